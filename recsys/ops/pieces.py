"""How many ids an operator of several passes takes at a time."""

from torch import Tensor


def at_once(ids: Tensor, fitting: int) -> int:
    """`fitting` on a CPU, so that all passes over them but one find them in its cache; all on a GPU; 1 at least."""
    return max(ids.numel() if ids.is_cuda else fitting, 1)
