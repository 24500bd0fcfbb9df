"""The border of an exported model: plain named tensors of raw values, described for people, Triton and checks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from recsys.core.labels import LabelKind
from recsys.core.names import LENGTHS_SUFFIX, WEIGHTS_SUFFIX
from recsys.core.schema import MISSING_KEY, KeyType, Schema

CLICK_OUTPUTS, NUMBER_OUTPUTS = ("logits", "probabilities"), ("outputs", "predictions")


def model_outputs(schema: Schema) -> tuple[str, str]:
    """What a model of that schema returns, by name: as its head says it, and what that means.

    Of clicks logits and probabilities; of number labels outputs in standard deviations from the mean, and predictions.
    """
    return CLICK_OUTPUTS if schema.label_kind is LabelKind.CLICK else NUMBER_OUTPUTS


class TensorType(Enum):
    """Element type of a border tensor."""

    FLOAT32 = "float32"
    INT64 = "int64"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type as torch calls it."""
        return torch.float32 if self is TensorType.FLOAT32 else torch.int64


@dataclass(frozen=True, kw_only=True)
class BorderTensor:
    """One named input tensor; always of one dimension."""

    name: str
    dtype: TensorType
    shape: str  # "B": one value a row; "N": the values of all rows, one row after the other
    meaning: str

    @property
    def lengths_name(self) -> str:
        """Of shape "N": the tensor that says how many of its values each row has."""
        return self.name.removesuffix(WEIGHTS_SUFFIX) + LENGTHS_SUFFIX


def border_tensors(schema: Schema) -> tuple[BorderTensor, ...]:
    """Inputs of a model of that schema: numbers, then categories, lengths and weights behind multi-valued ones, then
    timestamps.
    """
    tensors = [
        BorderTensor(name=name, dtype=TensorType.FLOAT32, shape="B", meaning="raw number; NaN means missing")
        for name in schema.raw_numbers
    ]
    for feature in schema.raw_categories:
        hashed = (
            "xxh64 of the UTF-8 text (seed 0) as signed 64-bit" if feature.key_type is KeyType.STRING else "the value"
        )
        meaning = f"key: {hashed}; {MISSING_KEY} means missing"
        shape = "N" if feature.multi_valued else "B"
        tensors.append(BorderTensor(name=feature.name, dtype=TensorType.INT64, shape=shape, meaning=meaning))
        if feature.multi_valued:
            counted = f"number of values of {feature.name!r} in each row"
            name = feature.name + LENGTHS_SUFFIX
            tensors.append(BorderTensor(name=name, dtype=TensorType.INT64, shape="B", meaning=counted))
        if feature.weights:
            counted = f"weight of each value of {feature.name!r}"
            name = feature.name + WEIGHTS_SUFFIX
            tensors.append(BorderTensor(name=name, dtype=TensorType.FLOAT32, shape="N", meaning=counted))
    for timestamp in schema.input_times:
        meaning = f"seconds since 1970 in UTC; {MISSING_KEY} means missing"
        tensors.append(BorderTensor(name=timestamp.name, dtype=TensorType.INT64, shape="B", meaning=meaning))
    return tuple(tensors)


class BorderCheck(nn.Module):
    """Refuses input that does not match the schema, naming the tensor; part of the exported model, so scriptable."""

    names: list[str]
    per_row: list[bool]
    is_float: list[bool]
    lengths_names: list[str]

    def __init__(self, tensors: Sequence[BorderTensor]) -> None:
        super().__init__()
        self.names = [tensor.name for tensor in tensors]
        self.per_row = [tensor.shape == "B" for tensor in tensors]
        self.lengths_names = [tensor.lengths_name for tensor in tensors]
        self.is_float = [tensor.dtype is TensorType.FLOAT32 for tensor in tensors]

    def forward(self, features: dict[str, Tensor]) -> None:
        """Check presence, element type, dimension and number of rows of each tensor.

        Raises:
            RuntimeError: one of them is wrong; inside TorchScript no other type survives.
        """
        num_rows, first = -1, ""
        for i, name in enumerate(self.names):
            wanted = "float32" if self.is_float[i] else "int64"
            if name not in features:
                raise RuntimeError(f"input '{name}' is missing: pass {wanted} of one dimension.")
            tensor = features[name]
            if tensor.dtype != (torch.float32 if self.is_float[i] else torch.int64):
                raise RuntimeError(f"input '{name}' has dtype {tensor.dtype}: it must be {wanted}.")
            if tensor.dim() != 1:
                raise RuntimeError(f"input '{name}' has shape {tensor.shape}: it must have one dimension.")
            if self.per_row[i]:
                if num_rows >= 0 and tensor.numel() != num_rows:
                    raise RuntimeError(
                        f"input '{name}' has {tensor.numel()} rows, but '{first}' has {num_rows}: they must be equal."
                    )
                num_rows, first = tensor.numel(), name
        self._check_lengths(features)

    def _check_lengths(self, features: dict[str, Tensor]) -> None:
        for i, name in enumerate(self.names):
            if not self.per_row[i]:
                lengths = features[self.lengths_names[i]]
                if bool((lengths < 0).any()) or int(lengths.sum()) != features[name].numel():
                    raise RuntimeError(
                        f"input '{self.lengths_names[i]}' must hold counts >= 0 that add up to the "
                        f"{features[name].numel()} values of '{name}'; they add up to {int(lengths.sum())}."
                    )


def count_rows(features: Mapping[str, Tensor], tensors: Sequence[BorderTensor]) -> int:
    """Number of rows B that border tensors hold."""
    return next(features[tensor.name].numel() for tensor in tensors if tensor.shape == "B")


def slice_rows(
    features: Mapping[str, Tensor], tensors: Sequence[BorderTensor], *, start: int, stop: int
) -> dict[str, Tensor]:
    """Border tensors of rows [start, stop), copied so that they own their memory."""
    part: dict[str, Tensor] = {}
    for tensor in tensors:
        first, last = start, stop
        if tensor.shape == "N":
            lengths = features[tensor.lengths_name]
            first, last = int(lengths[:start].sum()), int(lengths[:stop].sum())
        part[tensor.name] = features[tensor.name][first:last].clone()
    return part
