"""Load a bundle's model in a process that can import torch and nothing else, and compare its scores.

Run as `python -I reload.py MODEL GOLDEN MAX_ERROR`, never imported: it must not see this package. GOLDEN is a
`torch.save`d dict with `features` (border tensors), `logits` and `probabilities` (B,). Exit status 0 when every score
agrees.
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
        logits, probabilities = model(golden["features"])
    expected = golden["logits"]
    error = ((logits - expected).abs() / expected.abs().clamp(min=1)).max().item() if expected.numel() else 0.0
    # A calibration may be steep: where a logit differs in its last bit, its probability may by more.
    same = logits == expected
    apart = (probabilities - golden["probabilities"])[same].abs().max().item() if bool(same.any()) else 0.0
    if not (error <= max_error and apart <= max_error):  # also true for NaN
        raise SystemExit(
            f"scores differ from those of the exporting process, logits by {error:.3g} and probabilities of equal "
            f"logits by {apart:.3g}, above {max_error:.3g}"
        )
    print(f"{expected.numel()} rows, largest error {error:.3g}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
