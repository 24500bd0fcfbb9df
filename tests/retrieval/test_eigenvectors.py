"""Leading eigenvectors by products alone, against the dense decomposition."""

import pytest
import torch
from torch import Tensor

from recsys.core.errors import RecsysError
from recsys.retrieval import eigenvectors
from recsys.retrieval.eigenvectors import leading_eigenvectors


def matrix(eigenvalues: Tensor, seed: int) -> Tensor:
    size = len(eigenvalues)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    wanted: Tensor = rotation @ torch.diag(eigenvalues.double()) @ rotation.t()
    return wanted


def found_in(wanted: Tensor, count: int, *, tolerance: float = 1e-4) -> Tensor:
    device, size = torch.device("cpu"), len(wanted)
    return leading_eigenvectors(lambda x: wanted.float() @ x, size, count, seed=0, device=device, tolerance=tolerance)


SPECTRA = {
    "slow decay": torch.linspace(1.0, 0.05, 400),
    "a step": torch.cat([torch.ones(8), torch.full((392,), 0.9)]),
    "power law": torch.arange(1, 401) ** -0.5,
    "one stands out": torch.cat([torch.tensor([100.0]), torch.linspace(1.0, 0.0, 399)]),
    "low rank": torch.cat([torch.linspace(1.0, 0.5, 12), torch.zeros(388)]),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_they_span_what_the_dense_decomposition_finds(name: str) -> None:
    count, wanted = 8, matrix(SPECTRA[name], seed=1)
    found = found_in(wanted, count)
    torch.testing.assert_close(found.t() @ found, torch.eye(count), atol=1e-5, rtol=0.0)
    exact = torch.linalg.eigh(wanted).eigenvectors[:, -count:]
    cosines = torch.linalg.svdvals(exact.t() @ found.double())  # of the angles between both spaces
    assert float(cosines.min()) > 0.9999


def test_eigenvalues_ascend_and_all_of_a_small_matrix_are_exact() -> None:
    wanted = matrix(torch.tensor([0.0, 0.25, 0.5, 1.0]), seed=2)
    found = found_in(wanted, 4).double()
    torch.testing.assert_close((found.t() @ wanted @ found).diagonal(), torch.tensor([0.0, 0.25, 0.5, 1.0]).double())


def test_a_spectrum_without_a_gap_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eigenvectors, "MAX_ROUNDS", 2)
    wanted = matrix(torch.linspace(1.0, 0.99, 400), seed=3).float()
    with pytest.raises(RecsysError, match="8 eigenvectors have not converged after 2 rounds"):
        found_in(wanted, 8, tolerance=1e-6)
