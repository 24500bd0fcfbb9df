"""Student's t: what a difference over its standard error is worth when few samples say how large that error is."""

import math
from functools import lru_cache
from statistics import NormalDist

NUM_STEPS = 400
NORMAL_FROM = 2_000.0
"""Degrees of freedom from which t and the normal distribution agree to 1e-3 of a p-value near 0.05."""


def two_sided_p(statistic: float, degrees: float) -> float:
    """Probability of |t| >= |statistic|.

    Args:
        statistic: finite.
        degrees: of freedom, above 0; may be a fraction, or infinite.
    """
    if degrees >= NORMAL_FROM:
        return math.erfc(abs(statistic) / 2**0.5)
    # With t = sqrt(degrees) tan(x) the density is a power of a cosine on a finite range: Simpson's rule needs no more.
    start = math.atan(abs(statistic) / degrees**0.5)
    step = (math.pi / 2 - start) / NUM_STEPS
    values: list[float] = [math.cos(start + step * number) ** (degrees - 1) for number in range(NUM_STEPS)]
    last = 1.0 if degrees == 1 else 0.0  # cos(pi / 2) ** 0
    area = (values[0] + last + 4 * sum(values[1::2]) + 2 * sum(values[2::2])) * step / 3
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(math.pi) / 2
    return min(2 * math.exp(log_scale) * area, 1.0)


@lru_cache(maxsize=1024)
def critical(level: float, degrees: float) -> float:
    """The t that |t| exceeds with probability 1 - level, for a level in [0, 1)."""
    if degrees >= NORMAL_FROM:
        return NormalDist().inv_cdf((1 + level) / 2)
    low, high = 0.0, 1.0
    while two_sided_p(high, degrees) > 1 - level:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        if two_sided_p(middle, degrees) > 1 - level:
            low = middle
        else:
            high = middle
    return (low + high) / 2
