"""What `pipelines.doctor` tries in a process of its own: `python -m pipelines.doctor_kernels NAME`.

A kernel that was built for another torch may end the process instead of raising, so none of this runs in the doctor
itself. Each check computes something whose answer is known, and returns a sentence about it; an AssertionError or any
other exception means that the kernel does not work. Packages are imported inside the checks: one may be missing.
"""

import sys
import time
from collections.abc import Callable

NUM_ROWS, WIDTH, LEARNING_RATE = 50, 8, 0.5


def table_batched_embedding(device: str) -> str:
    """FBGEMM's fused table: forward, and backward with exact row-wise Adagrad, against the same in plain torch."""
    import torch
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    on_cpu = device == "cpu"
    location = EmbeddingLocation.HOST if on_cpu else EmbeddingLocation.DEVICE
    fused = SplitTableBatchedEmbeddingBagsCodegen(
        [(NUM_ROWS, WIDTH, location, ComputeDevice.CPU if on_cpu else ComputeDevice.CUDA)],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=LEARNING_RATE,
        eps=0.0,
        device=torch.device(device),
    )
    (table,) = fused.split_embedding_weights()
    start = torch.linspace(-1, 1, NUM_ROWS * WIDTH).reshape(NUM_ROWS, WIDTH)
    table.data.copy_(start)
    pooled = fused(torch.tensor([3, 7, 7], device=device), torch.tensor([0, 2, 3], device=device))
    assert torch.allclose(pooled.detach().cpu(), torch.stack([start[3] + start[7], start[7]])), "wrong sum of rows"
    pooled.sum().backward()
    # The gradient of a row is g in every column; row-wise Adagrad divides it by sqrt(mean(g**2)) = g: one full step.
    moved = start.clone()
    moved[[3, 7]] -= LEARNING_RATE
    (table,) = fused.split_embedding_weights()
    assert torch.allclose(table.detach().cpu(), moved, atol=1e-5), "wrong row-wise Adagrad step"
    return "forward and one row-wise Adagrad step are exact"


def quantized_embedding_bag() -> str:
    """The int8 operator that exported models use, against float32."""
    import torch
    from torch.nn import functional as F

    weights = torch.linspace(-1, 1, NUM_ROWS * WIDTH).reshape(NUM_ROWS, WIDTH)
    ids, offsets = torch.tensor([1, 2, 49]), torch.tensor([0, 2, 3])
    packed = torch.ops.quantized.embedding_bag_byte_prepack(weights)
    got = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(packed, ids, offsets, include_last_offset=True)
    want = F.embedding_bag(ids, weights, offsets, mode="sum", include_last_offset=True)
    error = float((got - want).abs().max())
    assert error < 1e-3, f"int8 rows differ from float32 by {error:.1e}"
    return f"differs from float32 by {error:.0e}"


def bfloat16_matmul(device: str) -> str:
    """Matrix product under bf16 autocast: right within the type, and how fast beside float32."""
    import torch

    # Positive numbers: nothing cancels, so that the error of the product is that of the type.
    a = torch.linspace(0.1, 1, 1024 * 1024, device=device).reshape(1024, 1024)

    def milliseconds() -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            float((a @ a)[0, 0])  # reading a value waits for a GPU
            times.append(time.perf_counter() - start)
        return min(times) * 1e3

    exact, plain = a @ a, milliseconds()
    with torch.autocast(device, dtype=torch.bfloat16):
        half, fast = a @ a, milliseconds()
    assert half.dtype is torch.bfloat16, "autocast left the product in float32"
    error = float((half.float() - exact).abs().max() / exact.abs().max())
    assert error < 0.02, f"product is off by {error:.1%}"
    return f"{plain / fast:.1f}x the speed of float32 (1024 x 1024)"


def distributed_model_parallel(device: str) -> str:
    """TorchRec's DistributedModelParallel with one rank and no port: sums of known rows."""
    import torch
    import torch.distributed as dist
    from torchrec.distributed import DistributedModelParallel
    from torchrec.modules.embedding_configs import EmbeddingBagConfig
    from torchrec.modules.embedding_modules import EmbeddingBagCollection
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    if device == "cuda":
        torch.cuda.set_device(0)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    start = torch.linspace(-1, 1, NUM_ROWS * WIDTH, device=device).reshape(NUM_ROWS, WIDTH)

    def fill(weight: torch.Tensor) -> None:
        with torch.no_grad():
            weight.copy_(start)

    config = EmbeddingBagConfig(
        name="t", num_embeddings=NUM_ROWS, embedding_dim=WIDTH, feature_names=["f"], init_fn=fill
    )
    collection = EmbeddingBagCollection(tables=[config], device=torch.device("meta"))
    sharded = DistributedModelParallel(collection, device=torch.device(device))
    ids = KeyedJaggedTensor(["f"], torch.tensor([1, 2, 3]), lengths=torch.tensor([2, 1])).to(torch.device(device))
    pooled = sharded(ids).wait().values().detach()
    assert torch.allclose(pooled, torch.stack([start[1] + start[2], start[3]])), "wrong sum of rows"
    dist.destroy_process_group()
    return f"one rank over {backend} looks up the right rows"


CHECKS: dict[str, Callable[[], str]] = {
    "FBGEMM tables, CPU": lambda: table_batched_embedding("cpu"),
    "int8 embedding bag": quantized_embedding_bag,
    "bf16 autocast, CPU": lambda: bfloat16_matmul("cpu"),
    "DistributedModelParallel, CPU": lambda: distributed_model_parallel("cpu"),
}
CUDA_CHECKS: dict[str, Callable[[], str]] = {
    "FBGEMM tables, CUDA": lambda: table_batched_embedding("cuda"),
    "bf16 autocast, CUDA": lambda: bfloat16_matmul("cuda"),
    "DistributedModelParallel, CUDA": lambda: distributed_model_parallel("cuda"),
}


def cuda_devices() -> str:
    """One line per CUDA device that torch can use: name and memory."""
    import torch

    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return "\n".join(f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in found)


def main() -> None:
    """Run the check named on the command line and print its sentence."""
    name = sys.argv[1]
    check = {**CHECKS, **CUDA_CHECKS, "devices": cuda_devices}[name]
    try:
        sentence = check()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        lines = str(error).strip().splitlines() or [""]
        print(f"{type(error).__name__}: {lines[0]}", file=sys.stderr)
        sys.exit(1)
    print(sentence)


if __name__ == "__main__":
    main()
