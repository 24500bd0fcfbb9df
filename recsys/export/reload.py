"""Load a bundle's model in a process that can import torch and nothing else, and compare its scores.

Run as `python -I reload.py MODEL GOLDEN MAX_ERROR`, never imported: it must not see this package. GOLDEN is a
`torch.save`d dict with `features` (border tensors) and `outputs`, a list of (B, …). Exit status 0 when all agree.
"""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# torch, what its wheel requires, and numpy, which it uses when it is there.
ALLOWED = frozenset(
    "torch torchgen functorch numpy typing_extensions filelock sympy mpmath networkx jinja2 markupsafe fsspec "
    "setuptools pkg_resources _distutils_hack nvidia triton cuda".split()
)


class OnlyTorch(importlib.abc.MetaPathFinder):
    """Refuses to import anything but torch, its requirements and the standard library."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raise for what is not allowed; leave the rest to the finders behind."""
        top = fullname.partition(".")[0]
        if top in ALLOWED or top in sys.stdlib_module_names:
            return None
        raise ModuleNotFoundError(f"{fullname!r} may not be imported where a bundle is served", name=fullname)


def main(model_path: str, golden_path: str, max_error: float) -> None:
    """Score the golden rows and compare."""
    sys.meta_path.insert(0, OnlyTorch())
    for name in ("recsys", "torchrec", "fbgemm_gpu", "polars"):
        try:
            __import__(name)
        except ModuleNotFoundError:
            continue
        raise SystemExit(f"{name} could be imported, so this check proves nothing")
    import torch

    model = torch.jit.load(model_path, map_location="cpu")
    golden = torch.load(golden_path, weights_only=True)
    with torch.inference_mode():
        outputs = model(golden["features"])
    largest, alike = 0.0, None
    for found, expected in zip(outputs, golden["outputs"], strict=True):
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise SystemExit(f"{found.dtype} {tuple(found.shape)}, not {expected.dtype} {tuple(expected.shape)}")
        same = found == expected  # also where both are infinite
        if not found.is_floating_point() and not bool(same.all()):
            raise SystemExit(f"{int((~same).sum())} of {same.numel()} numbers are others than the exporting process's")
        # A calibration may be steep: where a logit differs in its last bit, its probability may by more.
        compared = ~same if alike is None or alike.shape != same.shape else ~same & alike
        errors = ((found - expected).abs() / expected.abs().clamp(min=1))[compared]
        error = errors.max().item() if errors.numel() else 0.0
        if not error <= max_error:
            raise SystemExit(f"scores differ by {error:.3g} from those of the exporting process, above {max_error:.3g}")
        largest, alike = max(largest, error), same if alike is None else alike
    print(f"{len(golden['outputs'][0])} rows, largest error {largest:.3g}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
