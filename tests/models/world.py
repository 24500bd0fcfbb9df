"""What the model tests share: every model's forms and references, columns, a built head, random inputs for it."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from recsys.core.padding import padded
from recsys.core.specs import FeatureSpec, Pooling, Read
from recsys.models.ctr import ModelConfig

Reference = Callable[..., float]
"""`logits` of a module of `tests.models.reference`: (config, state, dense, embeddings), of models with histories
(config, state, dense, embeddings, sequences), where each sequence is a list of as many vectors as its row has."""

Arguments = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, list[Tensor], list[Tensor]]
"""Of a head's `forward`."""

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


SEQUENTIAL = {
    type(FORMS[name]) for name, logits in REFERENCES.items() if "sequences" in inspect.signature(logits).parameters
}
"""Classes of the configurations of models that read histories."""

LONGEST = 5
"""Events of the longest history of random inputs."""


def columns(num_embeddings: Sequence[int] = (5, 7, 11)) -> list[FeatureSpec]:
    """One single-valued categorical column per number, called f0, f1, …"""
    return [
        FeatureSpec(name=f"f{i}", embedding_dim=1, num_embeddings=n, max_length=1) for i, n in enumerate(num_embeddings)
    ]


def with_histories(categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
    """The same, the first two with histories of their ids, and a column of time gaps."""
    targets = [
        replace(spec, also=(Read(name=f"hist_{spec.name}", source=f"hist_{spec.name}", max_length=LONGEST),))
        for spec in categorical[:2]
    ]
    gaps = FeatureSpec(name="hist_gap", embedding_dim=1, num_embeddings=6, max_length=LONGEST)
    return [*targets, gaps, *categorical[2:]]


def columns_for(config: ModelConfig, num_embeddings: Sequence[int] = (5, 7, 11)) -> list[FeatureSpec]:
    """`columns`, with histories if the model reads some."""
    categorical = columns(num_embeddings)
    return with_histories(categorical) if type(config) in SEQUENTIAL else categorical


def outputs_of(features: Sequence[FeatureSpec]) -> list[FeatureSpec]:
    """All embeddings that come out of a plan of these features."""
    return [output for feature in features for output in feature.outputs]


def build(config: ModelConfig, num_dense: int, categorical: Sequence[FeatureSpec] | None = None) -> nn.Module:
    """The head of `config` over `categorical`, from a fixed seed."""
    torch.manual_seed(0)
    return config.build(outputs_of(config.features(categorical or columns_for(config))), num_dense)


def inputs(
    config: ModelConfig, num_dense: int, num_rows: int = 6, categorical: Sequence[FeatureSpec] | None = None
) -> Arguments:
    """Random arguments for the head of `config` over `categorical`."""
    return inputs_for(outputs_of(config.features(categorical or columns_for(config))), num_dense, num_rows)


def inputs_for(outputs: Sequence[FeatureSpec], num_dense: int, num_rows: int) -> Arguments:
    """Random arguments for a head that reads `outputs`; row 0 has no history, the last the longest."""
    generator = torch.Generator().manual_seed(1)
    width = sum(spec.embedding_dim for spec in outputs if spec.pooling is not Pooling.NONE)
    dense = torch.randn(num_rows, num_dense, generator=generator)
    embeddings = torch.randn(num_rows, width, generator=generator)
    unpooled = [spec.embedding_dim for spec in outputs if spec.pooling is Pooling.NONE]
    if not unpooled:
        return dense, embeddings
    lengths = torch.randint(LONGEST + 1, (num_rows,), generator=generator)
    lengths[-1:], lengths[:1] = LONGEST, 0
    values = [torch.randn(int(lengths.sum()), width, generator=generator) for width in unpooled]
    return dense, embeddings, [padded(value, lengths) for value in values], [lengths] * len(values)


def of_rows(arguments: Arguments, rows: slice) -> Arguments:
    """Some rows alone, padded as a batch of them is."""
    if len(arguments) == 2:
        return arguments[0][rows], arguments[1][rows]
    dense, embeddings, sequences, lengths = arguments
    longest = max(int(lengths[0][rows].max()), 1)
    return (
        dense[rows],
        embeddings[rows],
        [sequence[rows, :longest] for sequence in sequences],
        [length[rows] for length in lengths],
    )


def sequences_of(arguments: Arguments, row: int) -> list[list[list[float]]]:
    """The events of one row, of each sequence."""
    if len(arguments) == 2:
        return []
    return [
        sequence[row, : int(length[row])].tolist() for sequence, length in zip(arguments[2], arguments[3], strict=True)
    ]


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
