"""BSPM: blur a history over items with common users, then sharpen it again; nothing is trained."""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.retrieval.gf_cf import GFCFConfig, GFCFRecommender, product
from recsys.retrieval.recommender import Recommender


class Solver(Enum):
    """How the sharpening equation is stepped; its matrix is constant, so a step is a polynomial of it."""

    EULER = "euler"  # 1 - h P
    RK4 = "rk4"  # the Taylor polynomial of exp(-h P) to degree 4, of any four-stage method of order 4


class Merge(Enum):
    """Where the ideal low-pass filter's part is added."""

    EARLY = "early"  # before sharpening
    LATE = "late"  # after it


@dataclass(frozen=True, kw_only=True)
class BSPMConfig(GFCFConfig):
    """BSPM-EM with the authors' settings for Gowalla; alpha is their beta. P = S^T S, S as GF-CF normalises.

    Blurring is one Euler step of dr/dt = r (P - 1) over unit time, which is r P, as in all settings of the authors;
    sharpening solves dr/dt = -r P. Ranking costs a product with P for each degree of the polynomial: 5 here, GF-CF's 1.
    Source: Choi et al., Blurring-sharpening process models, SIGIR 2023, arXiv:2211.09324, eq. 9-16.
    """

    alpha: float = 0.2
    num_vectors: int = 448
    sharpen_time: float = 2.5
    sharpen_steps: int = 1
    solver: Solver = Solver.RK4
    merge: Merge = Merge.EARLY
    average_times: bool = False  # score by the mean of what blurring and each sharpening step say

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sharpen_time >= 0:
            raise ConfigError(f"retrieval.model.sharpen_time={self.sharpen_time}: must be 0 or more.")
        if self.sharpen_steps < 1:
            raise ConfigError(f"retrieval.model.sharpen_steps={self.sharpen_steps}: must be 1 or more.")

    def fit(self, interactions: Interactions) -> Recommender:
        """GF-CF's normalisation and singular vectors, and the polynomials of what is done with them."""
        filters = super().fit(interactions)
        assert isinstance(filters, GFCFRecommender)
        of_history, of_low_pass = (torch.tensor(p, device=filters.into.device) for p in self.polynomials())
        return BSPMRecommender(of_history=of_history, of_low_pass=of_low_pass, **dict(filters.named_buffers()))

    def polynomials(self) -> tuple[list[float], list[float]]:
        """Coefficients of P^0, P^1, … that the history and its low-pass part are multiplied by, equally many."""
        step = [1.0, -self.sharpen_time / self.sharpen_steps]
        if self.solver is Solver.RK4:
            step += [step[1] ** 2 / 2, step[1] ** 3 / 6, step[1] ** 4 / 24]
        states = [[1.0]]
        for _ in range(self.sharpen_steps):
            states.append(_product(states[-1], step))
        size = len(states[-1]) + 1
        blurred = [[0.0, *state] for state in states]
        added = states if self.merge is Merge.EARLY else [[1.0]] * len(states)
        if not self.average_times:
            return _mean(blurred[-1:], size), _mean(added[-1:], size)
        # The low-pass part is none of the blurred state, but all of what is added at the end.
        early = self.merge is Merge.EARLY
        return _mean(blurred, size), _mean([[0.0], *added[1:]] if early else added, size)


class BSPMRecommender(GFCFRecommender):
    """Two polynomials of P, one of the history, one of its low-pass part; users have nothing of their own."""

    of_history: Tensor
    of_low_pass: Tensor

    def __init__(self, *, of_history: Tensor, of_low_pass: Tensor, **tensors: Tensor) -> None:
        """Keep coefficients, float32 (n + 1,) each, and GF-CF's tensors."""
        super().__init__(**tensors)
        self.register_buffer("of_history", of_history)
        self.register_buffer("of_low_pass", of_low_pass)

    def forward(self, users: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
        """Return scores, float32 (B, M), by Horner's rule."""
        rows = torch.repeat_interleave(torch.arange(users.size(0), device=users.device), offsets[1:] - offsets[:-1])
        met = torch.zeros(self.into.size(0), users.size(0), device=users.device)
        met[items, rows] = 1.0
        low_pass = torch.embedding_bag(self.into, items, offsets, False, 0, False, None, True)[0]
        ideal = self.out_of @ low_pass.t()
        last = self.of_history.size(0) - 1
        total = met * self.of_history[last] + ideal * self.of_low_pass[last]
        for back in range(last):
            power = last - 1 - back
            total = product(self.user_columns, total, self.user_offsets, self.user_values)
            total = product(self.item_columns, total, self.item_offsets, self.item_values)
            total += met * self.of_history[power]
            total += ideal * self.of_low_pass[power]
        return total.t()


def _product(first: list[float], second: list[float]) -> list[float]:
    found = [0.0] * (len(first) + len(second) - 1)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            found[i + j] += a * b
    return found


def _mean(polynomials: list[list[float]], size: int) -> list[float]:
    padded = [polynomial + [0.0] * (size - len(polynomial)) for polynomial in polynomials]
    return [sum(terms) / len(polynomials) for terms in zip(*padded, strict=True)]
