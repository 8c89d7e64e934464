"""Fourier terms of features with a known answer."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from libcore.chain import Chain
from libcore.methods import FitSettings
from libcore.methods.lib import fit_lib
from libcore.statistics import chain_statistics
from models.modular_addition import fourier, pair_activations
from models.modular_addition.data import all_pairs
from models.modular_addition.fourier import fourier_labels, fourier_terms, label_of, upper_half
from models.modular_addition.pair_activations import PairActivations
from models.modular_addition.transformer import NODE_LAYERS, Architecture, chain_of, initial_weights


def waves(p: int, *terms: tuple[float, int, int, float]) -> Tensor:
    """Sum of `amplitude * cos(k_a x + k_b y + phase)` as activations `[p, p, 1, 1]`."""
    x, y = torch.arange(p)[:, None].double(), torch.arange(p)[None, :].double()
    total = torch.zeros(p, p, dtype=torch.float64)
    for amplitude, k_a, k_b, phase in terms:
        total += amplitude * torch.cos(2 * math.pi / p * (k_a * x + k_b * y) + phase)
    return total[:, :, None, None]


@pytest.mark.parametrize(
    ("k_a", "k_b", "name"),
    [
        (3, 0, "cos(3x)"),
        (1, 0, "cos(x)"),
        (0, 2, "cos(2y)"),
        (4, 4, "cos(4(x+y))"),
        (1, 1, "cos(x+y)"),
        (2, -2, "cos(2(x−y))"),
        (1, 3, "cos(x+3y)"),
        (2, -1, "cos(2x−y)"),
    ],
)
@pytest.mark.parametrize("p", [11, 12])
def test_single_terms(p: int, k_a: int, k_b: int, name: str) -> None:
    (terms,) = fourier_terms(waves(p, (2.0, k_a, k_b, 0.7)))
    assert terms[0].share == pytest.approx(1.0)
    assert label_of(terms) == name


def test_shares_are_of_the_squared_norm_and_the_mean_does_not_count() -> None:
    (terms,) = fourier_terms(waves(13, (2.0, 3, 3, 0.1), (1.0, 5, 0, 0.4)) + 100.0)
    assert [term.share for term in terms[:2]] == pytest.approx([0.8, 0.2])
    assert label_of(terms) == "cos(3(x+y)) + cos(5x)"


def test_positions_are_taken_together() -> None:
    """Before attention a feature reads one number at each position."""
    both = torch.cat([waves(11, (1.0, 2, 0, 0.0)), waves(11, (1.0, 0, 2, 0.0))], dim=2)
    (terms,) = fourier_terms(both)
    assert {term.name for term in terms[:2]} == {"cos(2x)", "cos(2y)"}
    assert terms[0].share == pytest.approx(0.5)


def test_round_off_does_not_order_equal_terms() -> None:
    """Most features that read two numbers alike have the same share in both."""
    for noise in (0.0, 1e-12, -1e-12):
        amplitudes = {(0, 2): 1 + noise, (2, 0): 1.0, (2, 2): 1.0, (2, -2): 1 + noise}
        (terms,) = fourier_terms(waves(11, *((amplitude, *k, 0.3) for k, amplitude in amplitudes.items())), n_terms=4)
        assert [term.name for term in terms] == ["cos(2x)", "cos(2y)", "cos(2(x+y))", "cos(2(x−y))"]


def test_a_feature_that_never_varies_is_silent() -> None:
    assert label_of(fourier_terms(torch.full((7, 7, 1, 1), 3.0))[0]) == "silent"


def test_a_feature_of_many_terms_is_mixed(generator: torch.Generator) -> None:
    assert label_of(fourier_terms(torch.randn(23, 23, 1, 1, generator=generator))[0]) == "mixed"


@given(st.integers(min_value=2, max_value=15))
def test_upper_half_has_one_of_each_pair_of_conjugates(p: int) -> None:
    half = upper_half(p)
    for k_a in range(p):
        for k_b in range(p):
            conjugate = (-k_a % p, -k_b % p)
            chosen = int(half[k_a, k_b]) + (int(half[conjugate]) if conjugate != (k_a, k_b) else 0)
            assert chosen == (0 if k_a == k_b == 0 else 1), (k_a, k_b)


def test_every_kept_feature_has_a_label() -> None:
    architecture = Architecture(modulus=7, d_model=8, n_heads=2, d_head=4, d_mlp=12)
    weights = {name: weight.detach() for name, weight in initial_weights(architecture, 0).items()}
    chain, inputs = chain_of(weights, torch.float64, torch.device("cpu")), all_pairs(7).tokens
    bases = fit_lib(chain, inputs, chain_statistics(chain, inputs, 2**20), FitSettings())
    labels = fourier_labels(chain, bases, PairActivations(7, torch.device("cpu")))
    assert {layer: len(labels[layer]) for layer in NODE_LAYERS} == {
        layer: bases[layer].n_features for layer in NODE_LAYERS
    }
    assert all(labels[layer][0] == "constant" for layer in NODE_LAYERS[:-1])
    assert labels["output"] == [*map(str, range(7)), "="]


def test_features_are_shared_out_to_threads_that_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their maps are small: shared out operation by operation, threads spin beside each other for as long again."""
    architecture = Architecture(modulus=7, d_model=4, n_heads=1, d_head=3, d_mlp=6)
    weights = {name: weight.detach() for name, weight in initial_weights(architecture, 0).items()}
    chain, inputs = chain_of(weights, torch.float64, torch.device("cpu")), all_pairs(7).tokens
    bases = fit_lib(chain, inputs, chain_statistics(chain, inputs, 2**20), FitSettings())
    seen: list[tuple[int, int]] = []
    activations_of = type(chain).activations

    def watched_terms(activations: Tensor) -> list[list[fourier.FourierTerm]]:
        seen.append((threading.get_ident(), torch.get_num_threads()))
        return fourier_terms(activations)

    def watched_activations(self: Chain, tokens: Tensor) -> Iterator[Tensor]:
        if len(tokens) > 1:
            seen.append((threading.get_ident(), torch.get_num_threads()))
        return activations_of(self, tokens)

    monkeypatch.setattr(fourier, "fourier_terms", watched_terms)
    monkeypatch.setattr(fourier, "FEATURES_AT_ONCE", 2)
    monkeypatch.setattr(pair_activations, "PAIRS_AT_ONCE", 5)
    monkeypatch.setattr(Chain, "activations", watched_activations)
    labels, before = [], torch.get_num_threads()
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        try:
            labels.append(fourier_labels(chain, bases, PairActivations(7, torch.device("cpu"))))
            assert torch.get_num_threads() == n_threads
        finally:
            torch.set_num_threads(before)
        assert {threads for _, threads in seen} == {1}
        assert (threading.get_ident() in {thread for thread, _ in seen}) == (n_threads == 1)
        seen.clear()
    assert labels[0] == labels[1]
