"""What the model tests share: features of any width, a built head, random inputs for it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec
from recsys.models.ctr import ModelConfig
from recsys.models.dcnv2 import DCNv2Config, Structure
from recsys.models.deepfm import DeepFMConfig
from recsys.models.dlrm import DLRMConfig, Interaction
from recsys.models.lr import LRConfig

SMALL: dict[str, ModelConfig] = {
    "lr": LRConfig(),
    "deepfm": DeepFMConfig(embedding_dim=4, hidden_units=[16, 8], dropout=0.0),
    "dcnv2_parallel": DCNv2Config(embedding_dim=4, hidden_units=[16, 8], batch_norm=True, dropout=0.0),
    "dcnv2_stacked": DCNv2Config(embedding_dim=4, structure=Structure.STACKED, hidden_units=[16, 8], dropout=0.0),
    "dlrm_dot": DLRMConfig(embedding_dim=4, bottom_units=[8], hidden_units=[16, 8], dropout=0.0),
    "dlrm_cat": DLRMConfig(
        embedding_dim=4, interaction=Interaction.CAT, bottom_units=[8], hidden_units=[16, 8], dropout=0.0
    ),
}
"""Every form of every model, small."""


def columns(num_embeddings: Sequence[int] = (5, 7, 11)) -> list[FeatureSpec]:
    """One single-valued categorical column per number, called f0, f1, …"""
    return [
        FeatureSpec(name=f"f{i}", embedding_dim=1, num_embeddings=n, max_length=1) for i, n in enumerate(num_embeddings)
    ]


def build(config: ModelConfig, num_dense: int, categorical: Sequence[FeatureSpec] | None = None) -> nn.Module:
    """The head of `config` over `categorical`, from a fixed seed."""
    torch.manual_seed(0)
    return config.build(config.features(categorical or columns()), num_dense)


def inputs(config: ModelConfig, num_dense: int, num_rows: int = 6) -> tuple[Tensor, Tensor]:
    """Random (dense, embeddings) for the head of `config` over `columns()`."""
    generator = torch.Generator().manual_seed(1)
    width = sum(spec.embedding_dim for spec in config.features(columns()))
    return (
        torch.randn(num_rows, num_dense, generator=generator),
        torch.randn(num_rows, width, generator=generator),
    )


def num_parameters(module: nn.Module) -> int:
    """Trainable numbers of `module`."""
    return sum(parameter.numel() for parameter in module.parameters())
