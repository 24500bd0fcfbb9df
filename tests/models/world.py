"""What the model tests share: every model's forms and references, columns, a built head, random inputs for it."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec
from recsys.models.ctr import ModelConfig

Reference = Callable[[ModelConfig, dict[str, Tensor], list[float], list[list[float]]], float]
"""`logits` of a module of `tests.models.reference`."""

FRAPPE_ROWS = (957, 4082, 7, 7, 2, 3, 2, 9, 80, 240)
"""Ten columns whose rows sum to frappe_x1's 5,389, for the counts of parameters that BARS publishes."""

MOVIELENS_ROWS = (16978, 23743, 49518)
"""Three columns whose rows sum to movielenslatest_x1's 90,239, for the same."""


def read_references() -> tuple[dict[str, ModelConfig], dict[str, Reference]]:
    """Every form of every model, small, and the reference of each form; both by the form's name."""
    forms: dict[str, ModelConfig] = {}
    references: dict[str, Reference] = {}
    for file in sorted((Path(__file__).parent / "reference").glob("[!_]*.py")):
        module = import_module(f"tests.models.reference.{file.stem}")
        taken = forms.keys() & module.FORMS.keys()
        assert not taken, (
            f"{file.name}: another model has forms called {sorted(taken)}; begin their names with the model's"
        )
        forms |= module.FORMS
        references |= dict.fromkeys(module.FORMS, module.logits)
    return forms, references


FORMS, REFERENCES = read_references()


def columns(num_embeddings: Sequence[int] = (5, 7, 11)) -> list[FeatureSpec]:
    """One single-valued categorical column per number, called f0, f1, …"""
    return [
        FeatureSpec(name=f"f{i}", embedding_dim=1, num_embeddings=n, max_length=1) for i, n in enumerate(num_embeddings)
    ]


def build(config: ModelConfig, num_dense: int, categorical: Sequence[FeatureSpec] | None = None) -> nn.Module:
    """The head of `config` over `categorical`, from a fixed seed."""
    torch.manual_seed(0)
    return config.build(config.features(categorical or columns()), num_dense)


def inputs(
    config: ModelConfig, num_dense: int, num_rows: int = 6, categorical: Sequence[FeatureSpec] | None = None
) -> tuple[Tensor, Tensor]:
    """Random (dense, embeddings) for the head of `config` over `categorical`."""
    generator = torch.Generator().manual_seed(1)
    width = sum(spec.embedding_dim for spec in config.features(categorical or columns()))
    return (
        torch.randn(num_rows, num_dense, generator=generator),
        torch.randn(num_rows, width, generator=generator),
    )


def randomised(head: nn.Module) -> nn.Module:
    """`head` in eval mode, with biases and stored moments that are not trivial, so that a lost one shows."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for name, buffer in head.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.3)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return head.eval()


def num_parameters(module: nn.Module) -> int:
    """Trainable numbers of `module`."""
    return sum(parameter.numel() for parameter in module.parameters())


def num_on_frappe(config: ModelConfig) -> int:
    """Trainable numbers of head and tables together, on columns as large as those of frappe_x1."""
    return num_over(config, FRAPPE_ROWS)


def num_on_movielens(config: ModelConfig) -> int:
    """Trainable numbers of head and tables together, on columns as large as those of movielenslatest_x1."""
    return num_over(config, MOVIELENS_ROWS)


def num_over(config: ModelConfig, num_embeddings: Sequence[int]) -> int:
    features = config.features(columns(num_embeddings))
    in_tables = sum(spec.embedding_dim * (spec.num_embeddings or 0) for spec in features)
    return in_tables + num_parameters(config.build(features, 0))
