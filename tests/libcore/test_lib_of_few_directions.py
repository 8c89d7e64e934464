"""LIB without whitening, where few directions of a wide layer are read (eq. 6b): equal to the whitened form."""

from __future__ import annotations

import pytest
import torch
from tiny_models import largest_difference, random
from torch import Generator, Tensor

from libcore import gram_range
from libcore.eigen import RELATIVE, Truncation
from libcore.gram_range import projected_onto_range
from libcore.jacobian_factor import JacobianFactor
from libcore.methods.lib import lib_basis, lib_basis_of_few
from libcore.statistics import LayerStatistics, statistics_of

D, RANK = 40, 6


def data(generator: Generator, n: int, rank: int = D) -> LayerStatistics:
    """Of `n` samples along `rank` directions, of scales from 1 to 0.01."""
    scales = torch.logspace(0, -2, rank, dtype=torch.float64)
    activation = random(generator, n, rank) * scales @ random(generator, rank, D) + random(generator, D)
    return statistics_of(torch.cat([activation, activation.new_ones(n, 1)], 1), has_constant=True)


def factor(generator: Generator, rank: int = RANK, used: int = RANK) -> JacobianFactor:
    root = random(generator, rank, used)
    return JacobianFactor(random(generator, D + 1, rank), root @ root.T)


# (samples, directions they vary along): more samples than coordinates, fewer, far fewer, and dead directions.
DATA = {"regular": (200, D), "few": (35, D), "very_few": (12, D), "dead": (200, D - 3), "almost_dead": (200, 5)}


@pytest.mark.parametrize("truncation", [RELATIVE, Truncation("absolute", 1e-9), Truncation("relative", 1e-3)])
@pytest.mark.parametrize("name", DATA)
def test_it_is_the_whitened_form(generator: Generator, name: str, truncation: Truncation) -> None:
    statistics, few = data(generator, *DATA[name]), factor(generator)
    found = lib_basis_of_few(statistics, few, truncation, torch.float64)
    if truncation.threshold == 1e-3:
        # A cut among the variances moves what is cut off, and with it the importances of the rest: the range is cut.
        inside = projected_onto_range(
            torch.eye(D, dtype=torch.float64), statistics.gram[:-1, :-1], statistics.count, truncation, torch.float64
        )
        assert largest_difference(inside @ found.to_basis[:-1, 1:], found.to_basis[:-1, 1:]) < 1e-9
        return
    expected = lib_basis(statistics, few.gram(), truncation, torch.float64)
    n = found.n_features
    assert largest_difference(found.importance[:n], expected.importance[:n]) < 1e-11
    assert largest_difference(found.to_basis, expected.to_basis[:, :n]) < 1e-8
    assert largest_difference(found.from_basis, expected.from_basis[:n]) < 1e-8
    # What the whitened form keeps beyond is round-off.
    assert (expected.importance[n:] <= 1e-14 * expected.importance[1]).all()


def test_directions_that_nothing_depends_on_are_no_features(generator: Generator) -> None:
    basis = lib_basis_of_few(data(generator, 200), factor(generator, RANK, used=2), RELATIVE, torch.float64)
    assert basis.n_features == 1 + 2


def test_features_are_uncorrelated_with_their_importance_as_variance(generator: Generator) -> None:
    statistics = data(generator, 200)
    basis = lib_basis_of_few(statistics, factor(generator), RELATIVE, torch.float64)
    variance = basis.to_basis[:-1, 1:].T @ statistics.gram[:-1, :-1] @ basis.to_basis[:-1, 1:]
    assert largest_difference(variance, torch.diag(basis.importance[1:])) < 1e-11
    assert largest_difference(basis.from_basis @ basis.to_basis, torch.eye(basis.n_features).double()) < 1e-9


@pytest.mark.parametrize("name", DATA)
def test_the_range_is_that_of_all_eigenvectors(generator: Generator, name: str) -> None:
    statistics = data(generator, *DATA[name])
    gram, columns = statistics.gram[:-1, :-1], random(generator, D, 5)
    eigenvalues, vectors = torch.linalg.eigh(gram)
    inside = vectors[:, eigenvalues > torch.finfo(torch.float64).eps * eigenvalues[-1]]
    found = projected_onto_range(columns, gram, statistics.count, RELATIVE, torch.float64)
    assert largest_difference(found, inside @ (inside.T @ columns)) < 1e-9


def test_nothing_varies(generator: Generator) -> None:
    zero = torch.zeros(D, D, dtype=torch.float64)
    assert not projected_onto_range(random(generator, D, 2), zero, 100, RELATIVE, torch.float64).any()


def test_what_lies_on_the_cut_is_not_above_it() -> None:
    gram = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
    assert gram_range.eigenvectors_above(gram, 1.0).abs().tolist() == [[1.0], [0.0]]


def test_no_wide_eigenproblem_is_solved(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[int] = []
    solve = torch.linalg.eigh

    def counted(matrix: Tensor) -> tuple[Tensor, Tensor]:
        solved.append(len(matrix))
        return solve(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", counted)
    for name in ("regular", "dead"):
        solved.clear()
        lib_basis_of_few(data(generator, *DATA[name]), factor(generator), RELATIVE, torch.float64)
        assert max(solved) <= gram_range.FIRST_GUESS
