"""Eigenvalues descend and are clipped, signs follow a rule, and the cut is what it says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import largest_difference, random, random_orthogonal

from libcore.eigen import Truncation, descending_eigh, fix_signs


def test_eigenvectors_diagonalise_in_descending_order(generator: torch.Generator) -> None:
    rows = random(generator, 9, 6)
    gram = rows.T @ rows
    eigenvalues, vectors = descending_eigh(gram)
    assert (eigenvalues[:-1] >= eigenvalues[1:]).all()
    assert largest_difference(vectors @ torch.diag(eigenvalues) @ vectors.T, gram) < 1e-13
    assert largest_difference(vectors.T @ vectors, torch.eye(6, dtype=torch.float64)) < 1e-13


def test_known_eigenvalues(generator: torch.Generator) -> None:
    rotation = random_orthogonal(generator, 3)
    known = torch.tensor([0.5, 4.0, 2.0], dtype=torch.float64)
    eigenvalues, vectors = descending_eigh(rotation @ torch.diag(known) @ rotation.T)
    assert eigenvalues.tolist() == pytest.approx([4.0, 2.0, 0.5])
    assert largest_difference((vectors.T @ rotation[:, [1, 2, 0]]).abs(), torch.eye(3, dtype=torch.float64)) < 1e-13


def test_negative_eigenvalues_become_zero_and_not_positive() -> None:
    eigenvalues, _ = descending_eigh(torch.diag(torch.tensor([-1e-3, 2.0, -5.0], dtype=torch.float64)))
    assert eigenvalues.tolist() == [2.0, 0.0, 0.0]


def test_asymmetry_of_round_off_is_averaged_away() -> None:
    eigenvalues, _ = descending_eigh(torch.tensor([[2.0, 1.0], [0.0, 2.0]], dtype=torch.float64))
    assert eigenvalues.tolist() == pytest.approx([2.5, 1.5])


@given(seed=st.integers(0, 10_000), d=st.integers(1, 5), k=st.integers(1, 5))
def test_signs_follow_the_entry_of_largest_magnitude(seed: int, d: int, k: int) -> None:
    columns = random(torch.Generator().manual_seed(seed), d, k)
    fixed = fix_signs(columns)
    assert torch.equal(fixed.abs(), columns.abs())
    assert torch.equal(fix_signs(-columns), fixed)
    for column, original in zip(fixed.T, columns.T, strict=True):
        assert column[column.abs().argmax()] > 0
        assert torch.equal(column, original) or torch.equal(column, -original)


@pytest.mark.parametrize("isolated", [(), (1,)])
def test_eigenvectors_have_their_signs_fixed(generator: torch.Generator, isolated: tuple[int, ...]) -> None:
    """LAPACK's own signs are whatever they are: of this many columns about half would be turned."""
    for _ in range(4):
        rows = random(generator, 12, 8)
        _, vectors = descending_eigh(rows.T @ rows, isolated)
        assert torch.equal(vectors, fix_signs(vectors))


def test_an_isolated_coordinate_without_variance_is_clipped_as_others_are() -> None:
    eigenvalues, _ = descending_eigh(torch.diag(torch.tensor([1.0, -1e-18, 2.0], dtype=torch.float64)), (1,))
    assert eigenvalues.tolist() == [2.0, 1.0, 0.0]


def test_a_column_of_zeros_keeps_its_sign() -> None:
    assert fix_signs(torch.zeros(3, 1)).tolist() == [[0.0], [0.0], [0.0]]


@pytest.mark.parametrize(
    ("truncation", "dtype", "cut"),
    [
        (Truncation(), torch.float64, 50 * 2.0**-52),
        (Truncation(), torch.float32, 50 * 2.0**-23),
        (Truncation("relative", 1e-3), torch.float64, 0.05),
        (Truncation("relative", 1e-3), torch.float32, 0.05),
        (Truncation("relative", 0.0), torch.float64, 0.0),
        (Truncation("absolute"), torch.float64, 1e-15),
        (Truncation("absolute"), torch.float32, 1e-15),
        (Truncation("absolute", 1e-3), torch.float64, 1e-3),
        (Truncation("absolute", 0.0), torch.float64, 0.0),
    ],
)
def test_cut_of_a_spectrum_whose_largest_is_50(truncation: Truncation, dtype: torch.dtype, cut: float) -> None:
    assert truncation.cut(50.0, dtype) == pytest.approx(cut, rel=1e-15, abs=0.0)


def test_cut_is_never_negative() -> None:
    assert Truncation("relative", 0.1).cut(-1.0, torch.float64) == 0.0


def test_absolute_cut_ignores_and_relative_cut_follows_the_scale() -> None:
    assert Truncation("absolute", 0.1).cut(1.0, torch.float64) == Truncation("absolute", 0.1).cut(1e6, torch.float64)
    assert Truncation("relative", 0.1).cut(1e6, torch.float64) == pytest.approx(1e5)


def test_no_directions_have_no_eigenvectors() -> None:
    eigenvalues, vectors = descending_eigh(torch.zeros(0, 0, dtype=torch.float64))
    assert eigenvalues.shape == (0,)
    assert vectors.shape == (0, 0)
