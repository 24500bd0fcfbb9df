"""BSPM against dense matrices stepped through time, with a Runge-Kutta method written out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.retrieval.bspm import BSPMConfig, Merge, Solver
from tests.retrieval.test_models import inverse_root, matrix, normalised, scores
from tests.retrieval.world import interactions


def rk4_step(r: Tensor, h: float, slope: Callable[[Tensor], Tensor]) -> Tensor:
    a = slope(r)
    b = slope(r + h / 2 * a)
    c = slope(r + h / 2 * b)
    d = slope(r + h * c)
    return r + h / 6 * (a + 2 * b + 2 * c + d)


def euler_step(r: Tensor, h: float, slope: Callable[[Tensor], Tensor]) -> Tensor:
    return r + h * slope(r)


@pytest.mark.parametrize("solver", list(Solver))
@pytest.mark.parametrize("merge", list(Merge))
@pytest.mark.parametrize("average", [False, True])
def test_it_blurs_and_sharpens(solver: Solver, merge: Merge, average: bool) -> None:
    graph = interactions()
    s, r = normalised(graph), matrix(graph)
    p, degrees = s.t() @ s, r.sum(0)
    vectors = torch.linalg.svd(s).Vh[:6].t()
    ideal = 0.4 * r @ torch.diag(inverse_root(degrees)) @ vectors @ vectors.t() @ torch.diag(degrees.sqrt())
    blurred = euler_step(r, 1.0, lambda state: state @ p - state)
    state, states = blurred + (ideal if merge is Merge.EARLY else 0), [blurred]
    step = rk4_step if solver is Solver.RK4 else euler_step
    for _ in range(2):
        state = step(state, 0.75, lambda state: -(state @ p))
        states.append(state)
    expected = torch.stack(states).mean(0) if average else states[-1]
    if merge is Merge.LATE:
        expected = expected + ideal
    config = BSPMConfig(
        alpha=0.4,
        num_vectors=6,
        sharpen_time=1.5,
        sharpen_steps=2,
        solver=solver,
        merge=merge,
        average_times=average,
    )
    torch.testing.assert_close(scores(config, graph).double()[:, 1:], expected[:, 1:], rtol=3e-3, atol=3e-4)


@pytest.mark.parametrize("wrong", [{"sharpen_time": -1.0}, {"sharpen_steps": 0}, {"alpha": -0.1}, {"num_vectors": 0}])
def test_impossible_settings_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"retrieval.model.{next(iter(wrong))}="):
        BSPMConfig(**wrong)  # type: ignore[arg-type]
