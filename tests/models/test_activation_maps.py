"""Maps of features of modular addition: the activation on every pair, where it varies most."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.sections import AffineSection
from models.modular_addition import maps
from models.modular_addition.maps import HIGH, LOW, activation_maps, coloured
from models.modular_addition.pair_activations import PairActivations

P = 5


def chain_of_numbers() -> Chain:
    """Each position holds its token's number, in the second position only half of it, and the constant."""

    def head(tokens: Tensor) -> Tensor:
        numbers = tokens.double() * torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
        return functional.pad(numbers[..., None], (0, 1), value=1.0)

    return Chain(("first", "last"), (AffineSection(torch.eye(2, dtype=torch.float64)),), head, last_has_constant=True)


def bases() -> dict[str, Basis]:
    """The constant, then the number about 2, and twice its negative."""
    matrix = torch.tensor([[0.0, 1.0, -2.0], [1.0, -2.0, 4.0]], dtype=torch.float64)
    basis = Basis(matrix, torch.linalg.pinv(matrix), torch.ones(3, dtype=torch.float64), has_constant=True)
    return {"first": basis, "last": basis}


def test_maps_show_the_position_that_varies_and_none_of_the_constant() -> None:
    pictures = activation_maps(chain_of_numbers(), bases(), PairActivations(P, torch.device("cpu")))
    for constant, number, negative in pictures.values():
        assert constant.map is None
        assert number.map is not None
        assert negative.map is not None
        assert number.map.shape == (P, P, 3)
        # The first number is shown, which grows downwards.
        for row, colour in ((0, LOW), (2, (255, 255, 255)), (4, HIGH)):
            assert number.map[row].tolist() == [list(colour)] * P
        assert negative.map.flip(0).tolist() == number.map.tolist(), "scale does not matter, sign does"


def test_only_the_first_features_are_drawn(monkeypatch) -> None:
    monkeypatch.setattr(maps, "MAPPED_FEATURES", 2)
    pictures = activation_maps(chain_of_numbers(), bases(), PairActivations(P, torch.device("cpu")))
    assert [len(of_layer) for of_layer in pictures.values()] == [2, 2]


def test_a_feature_that_is_zero_is_white() -> None:
    assert coloured(torch.zeros(1, 2, 2)).unique().tolist() == [255]


def test_names_and_maps_are_made_of_one_pass_that_is_let_go_of() -> None:
    chain, pairs, passes = chain_of_numbers(), PairActivations(P, torch.device("cpu")), []
    head = chain.embed

    def counted(tokens: Tensor) -> Tensor:
        passes.append(len(tokens))
        return head(tokens)

    chain = replace(chain, embed=counted)
    first = pairs.of(chain)
    assert [tuple(activation.shape) for activation in first] == [(P * P, 2, 2)] * 2, "the third position is constant"
    assert pairs.taken(chain) is first
    assert passes == [1, P * P], "one example for the shapes, then all"
    pairs.of(chain)
    assert passes == [1, P * P] * 2


def test_maps_are_coloured_on_one_thread(monkeypatch) -> None:
    """Beside another busy process, threads that meet after every small operation wait for each other."""
    seen, before = [], torch.get_num_threads()

    def watched(values: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return coloured(values)

    monkeypatch.setattr(maps, "coloured", watched)
    torch.set_num_threads(2)
    try:
        activation_maps(chain_of_numbers(), bases(), PairActivations(P, torch.device("cpu")))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1]
