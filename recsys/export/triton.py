"""`config.pbtxt`: how NVIDIA Triton's PyTorch backend serves the bundle.

Its conventions (docs/user_guide/model_configuration.md and pytorch_backend, `is_dict_input_`): where a model takes one
`Dict[str, Tensor]`, the names of inputs are the keys; outputs are called `<name>__<index>`.
"""

from collections.abc import Mapping, Sequence

from recsys.export.border import BorderTensor, TensorType

TRITON_NAME = "config.pbtxt"
MAX_BATCH_ROWS = 4096  # rows that Triton may join into one call

_HEADER = """\
# Model repository layout:  {name}/config.pbtxt  and  {name}/1/model.pt
# For a narrower model put model_int8.pt there under the name model.pt; it runs on CPUs only.
name: "{name}"
platform: "pytorch_libtorch"
default_model_filename: "model.pt"
"""
_BATCHED = """\
# Every input holds one value a row: clients send shape [rows, 1], Triton joins requests and the model sees [rows].
max_batch_size: {rows}
dynamic_batching {{ }}
"""
_UNBATCHED = """\
# Multi-valued inputs have no batch dimension (values of all rows, with their lengths beside them), so Triton must not
# join requests: one request is one batch of any number of rows.
max_batch_size: 0
"""
_FOOTER = """\
instance_group [ { kind: KIND_CPU } ]
# The profiling executor optimises anew for new batch sizes, which makes the first calls slow.
parameters { key: "DISABLE_OPTIMIZED_EXECUTION" value { string_value: "true" } }
parameters { key: "INFERENCE_MODE" value { string_value: "true" } }
"""


def triton_config(
    tensors: Sequence[BorderTensor], outputs: Mapping[str, TensorType], *, name: str, width: int = 1
) -> str:
    """The text of `config.pbtxt` for a model with these inputs and outputs, served under `name`.

    Args:
        tensors: inputs.
        outputs: type of each, in the model's order.
        name: of the model.
        width: values of an output for each row: tasks, or places of a list.
    """
    batched = all(tensor.shape == "B" for tensor in tensors)
    shape = "dims: [ 1 ] reshape { shape: [ ] }" if batched else "dims: [ -1 ]"
    types = {TensorType.FLOAT32: "TYPE_FP32", TensorType.INT64: "TYPE_INT64"}
    inputs = [f'  {{ name: "{t.name}" data_type: {types[t.dtype]} {shape} }}' for t in tensors]
    if width > 1:
        shape = f"dims: [ {width} ]" if batched else f"dims: [ -1, {width} ]"
    answers = [f'  {{ name: "{o}__{i}" data_type: {types[t]} {shape} }}' for i, (o, t) in enumerate(outputs.items())]
    return "".join(
        [
            _HEADER.format(name=name),
            _BATCHED.format(rows=MAX_BATCH_ROWS) if batched else _UNBATCHED,
            "input [\n" + ",\n".join(inputs) + "\n]\n",
            "output [\n" + ",\n".join(answers) + "\n]\n",
            _FOOTER,
        ]
    )
