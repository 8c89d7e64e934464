"""What attention's closed forms count: products, projections and waves, so that a loop that comes back is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from tiny_models import AMPLE, basis_of, random, random_activation, stream_of
from torch import Generator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformer_blocks import LAYER_NORM, RMS_NORM, ROTARY, SILU, D, attention_branch, block, mlp_branch

from libcore.quadrature import GRADIENT
from libcore.sections import AttentionBranch, BlockSection, Normalisation
from libcore.sections.attention import query_rows
from libcore.sections.branch import Positions

N_HEADS, D_HEAD, D_VALUE = 4, 4, 3


def added_product(total: torch.Size, left: torch.Size, right: torch.Size, **_: Any) -> int:
    """Of a product that is added in place, which the counter leaves out."""
    return 2 * prod(left) * right[-1]


IN_PLACE = {torch.ops.aten.addmm_: added_product, torch.ops.aten.baddbmm_: added_product}


class Calls(TorchDispatchMode):
    """How often each operation is called inside, and how many numbers its result has at most."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.largest: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, result = func.overloadpacket.__name__, func(*args, **(kwargs or {}))
        self.count[name] += 1
        if isinstance(result, torch.Tensor):
            self.largest[name] = max(self.largest[name], result.numel())
        return result


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """What other threads do is not counted."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def flops(compute: Callable[[], object]) -> int:
    """Of all matrix products inside, two for each multiplication."""
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        compute()
    return counter.get_total_flops()


def flops_per_example(section: BlockSection, generator: Generator, n_positions: int, n_out: int) -> float:
    """Of the Jacobian Gram: what further examples cost."""
    basis = basis_of(random(generator, D, n_out))

    def of(n: int) -> int:
        stream = stream_of(random_activation(generator, n, n_positions, D))
        return flops(lambda: section.closed_form_jacobian_gram(stream, basis, GRADIENT))

    return (of(12) - of(4)) / 8


@pytest.mark.parametrize("normalisation", [None, LAYER_NORM])
@pytest.mark.parametrize("settings", [{}, {"rotary": ROTARY}])
def test_a_gram_costs_the_same_for_any_number_of_output_features(
    generator: Generator, normalisation: Normalisation | None, settings: dict
) -> None:
    section = block(generator, attention_branch(generator, normalisation, **settings))
    few, many = (flops_per_example(section, generator, 6, n_out) for n_out in (10, 100))
    assert few == many > 0


def test_a_gram_takes_the_products_that_it_has_to(generator: Generator) -> None:
    """Of every pair of heads, per pair of positions: what they share, and the queries turned back by the key."""
    n_positions = 64
    section = block(generator, attention_branch(generator, rotary=ROTARY, causal=False))
    pairs_of_heads = N_HEADS * (N_HEADS + 1) / 2
    overlap, queries = 2 * D_VALUE + 2, D_HEAD**2
    values = 2 * D_HEAD + 1 + len(ROTARY.frequencies) * 2 + 1
    pattern = N_HEADS * (D_HEAD + D_VALUE + D_HEAD * (D_VALUE + 1))
    least = 2 * n_positions**2 * (pairs_of_heads * (overlap + queries + values) + pattern)
    assert least < flops_per_example(section, generator, n_positions, 5) < 1.5 * least


def test_few_keys_take_few_products(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a query's own rows, a number for every two other keys in place of products as wide as heads."""
    section = block(generator, attention_branch(generator))
    of_few = flops_per_example(section, generator, 3, 5)
    monkeypatch.setattr(query_rows, "few_keys", lambda n_keys, d_head: False)
    through_X = 2 * 3 * D_HEAD * D_VALUE * (D_HEAD + D_VALUE) * N_HEADS * (N_HEADS + 1) / 2
    assert flops_per_example(section, generator, 3, 5) - of_few > through_X / 4


def test_a_pair_of_heads_is_one_product_whatever_the_number_of_inputs(generator: Generator) -> None:
    """A matrix that all inputs share is not copied for each of them."""
    section = block(generator, attention_branch(generator))
    stream = stream_of(random_activation(generator, 50, 1, D))
    with Calls() as calls:
        section.closed_form_jacobian_gram(stream, basis_of(random(generator, D, 5)), GRADIENT)
    assert calls.largest["clone"] <= 50 * N_HEADS * D_HEAD


@pytest.mark.parametrize("n", [3, 12])
def test_waves_are_computed_once_whatever_the_number_of_chunks(generator: Generator, n: int) -> None:
    section = block(generator, attention_branch(generator, RMS_NORM, rotary=ROTARY))
    stream = stream_of(random_activation(generator, n, 5, D), memory_budget=1)
    bases = basis_of(random(generator, D, 4)), basis_of(random(generator, D, 4))
    with Calls() as calls:
        section.closed_form_jacobian_gram(stream, bases[1], GRADIENT)
    # Of queries and of keys.
    assert calls.count["cos"] == calls.count["sin"] == 2
    with Calls() as calls:
        section.closed_form_edges(stream, *bases, GRADIENT)
    assert calls.count["cos"] == calls.count["sin"] == 2


def test_heads_that_share_keys_and_values_project_them_once(generator: Generator) -> None:
    positions = Positions.of(5, None, torch.device("cpu"))
    activation = random_activation(generator, 2, 5, D)
    few, all_heads = (attention_branch(generator, key_value_heads=n) for n in (1, 4))
    _, k, v = few.project(activation, positions)
    assert k.shape[1] == v.shape[1] == 1
    shared, own = (flops(lambda branch=branch: branch.project(activation, positions)) for branch in (few, all_heads))
    assert own - shared == 2 * activation[..., 0].numel() * D * 3 * (D_HEAD + D_VALUE)


def test_edges_take_one_product_per_output_position_and_head(generator: Generator) -> None:
    """Into features: `z` by features times what heads write, and no more for a normalisation or rotary positions."""
    section = block(generator, attention_branch(generator, LAYER_NORM, rotary=ROTARY))
    stream = stream_of(random_activation(generator, 3, 5, D), memory_budget=AMPLE)

    def of(n_out: int) -> int:
        bases = basis_of(random(generator, D, 4)), basis_of(random(generator, D, n_out))
        return flops(lambda: section.closed_form_edges(stream, *bases, GRADIENT))

    weights = 2 * D * (D + 4 + N_HEADS * D_VALUE)
    assert of(30) - of(20) <= 10 * (2 * 3 * 5 * 4 * N_HEADS * D_VALUE + weights)


@pytest.mark.parametrize(("normalisation", "read"), [(None, 1), (RMS_NORM, 3)])
def test_rotary_edges_take_the_products_that_they_have_to(
    generator: Generator, normalisation: Normalisation | None, read: int
) -> None:
    """Per pair of positions, head and feature: a query with a key, that with a value, and what is read of all keys.

    A normalisation is one more coordinate of keys, and two more things read: along the scale, and of biases.
    """
    n_positions, n_in = 48, 40
    section = block(generator, attention_branch(generator, normalisation, rotary=ROTARY, causal=False))
    bases = basis_of(random(generator, D, n_in)), basis_of(random(generator, D, 2))

    def of(n: int) -> int:
        stream = stream_of(random_activation(generator, n, n_positions, D))
        return flops(lambda: section.closed_form_edges(stream, *bases, GRADIENT))

    least = 2 * n_positions**2 * N_HEADS * n_in * (D_HEAD + (normalisation is not None) + D_VALUE + read)
    assert least < (of(12) - of(4)) / 8 < 1.2 * least


def test_rotary_edges_take_all_heads_together(generator: Generator) -> None:
    weights = [random(generator, 4, D, 4) for _ in range(3)]

    def products(n_heads: int) -> int:
        branch = AttentionBranch(*(w[:n_heads] for w in weights), random(generator, n_heads, 4, D), rotary=ROTARY)
        bases = basis_of(random(generator, D, 4)), basis_of(random(generator, D, 4))
        stream = stream_of(random_activation(generator, 3, 5, D))
        with Calls() as calls:
            block(generator, branch).closed_form_edges(stream, *bases, GRADIENT)
        return sum(calls.count[name] for name in ("mm", "bmm", "addmm_", "baddbmm_"))

    assert products(2) == products(4)


@pytest.mark.parametrize("branch", ["attention", "rotary attention", "MLP"])
def test_positions_and_input_features_are_one_long_dimension_of_the_product_with_weights(
    generator: Generator, branch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of weights with everything that they act on: its other order, or a product for each position, is slower."""
    made = {
        "attention": lambda: attention_branch(generator, RMS_NORM),
        "rotary attention": lambda: attention_branch(generator, RMS_NORM, rotary=ROTARY),
        "MLP": lambda: mlp_branch(generator, RMS_NORM, SILU),
    }[branch]()
    shapes = []
    addmm_ = torch.Tensor.addmm_

    def recorded(self: torch.Tensor, *matrices: torch.Tensor, **settings: Any) -> torch.Tensor:
        shapes.append(tuple(self.shape))
        return addmm_(self, *matrices, **settings)

    monkeypatch.setattr(torch.Tensor, "addmm_", recorded)
    bases = basis_of(random(generator, D, 4)), basis_of(random(generator, D, 7))
    stream = stream_of(random_activation(generator, 3, 5, D))
    block(generator, made).closed_form_edges(stream, *bases, GRADIENT)
    assert shapes == [(7, 3 * 5 * 4)]
