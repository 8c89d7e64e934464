"""A chain is its model, however many of its node layers are looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import AMPLE, BUDGETS, affine, largest_difference, random, random_activation, random_chain
from torch import Generator

from libcore.chain import Chain
from libcore.sections import ComposedSection, FunctionSection
from libcore.statistics import chain_statistics

LAYERS = ("before", "middle", "after", "output")


def test_activations_are_the_sections_applied_in_order(generator: Generator) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 3, 3, 4)
    expected = inputs
    assert torch.equal(chain.activation(inputs, 0), expected)
    for index, section in enumerate(chain.sections):
        expected = section(expected)
        assert torch.equal(chain.activation(inputs, index + 1), expected)


def test_the_output_is_the_same_from_every_layer(generator: Generator) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 3, 3, 4)
    output = chain.activation(inputs, 3)
    for index in range(4):
        assert torch.equal(chain.output_from(chain.activation(inputs, index), index), output)


@pytest.mark.parametrize(
    "kept",
    [
        LAYERS,
        ("middle", "after", "output"),
        ("before", "after", "output"),
        ("before", "middle", "after"),
        ("before", "output"),
        ("middle", "after"),
    ],
    ids="-".join,
)
def test_fewer_node_layers_are_the_same_model(generator: Generator, kept: tuple[str, ...]) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 3, 3, 4)
    fewer = chain.restricted_to(kept)
    assert fewer.node_layers == kept
    for index, layer in enumerate(kept):
        activation = chain.activation(inputs, LAYERS.index(layer))
        assert torch.equal(fewer.activation(inputs, index), activation)
        assert torch.equal(fewer.output_from(activation, index), chain.activation(inputs, 3))
        assert fewer.has_constant(layer) == chain.has_constant(layer)


def test_restricting_twice_is_restricting_once(generator: Generator) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 3, 3, 4)
    twice = chain.restricted_to(["before", "middle", "after"]).restricted_to(["before", "middle"])
    activation = twice.activation(inputs, 1)
    assert torch.equal(activation, chain.activation(inputs, 1))
    assert torch.equal(twice.output_from(activation, 1), chain.activation(inputs, 3))


def test_a_tail_comes_after_the_dropped_last_layers(generator: Generator) -> None:
    chain = replace(random_chain(generator), tail=affine(generator, 5, 2, constant_out=False))
    inputs = random_activation(generator, 3, 3, 4)
    output = chain.output_from(chain.activation(inputs, 0), 0)
    assert output.shape == (3, 2, 2)
    fewer = chain.restricted_to(["before", "after"])
    assert torch.equal(fewer.output_from(fewer.activation(inputs, 1), 1), output)


def test_sections_between_kept_neighbours_stay_as_they_are(generator: Generator) -> None:
    chain = random_chain(generator)
    fewer = chain.restricted_to(["before", "after", "output"])
    assert isinstance(fewer.sections[0], ComposedSection)
    assert fewer.sections[1] is chain.sections[2]


@pytest.mark.parametrize(
    ("node_layers", "message"),
    [
        (["before", "logits"], "'logits' is no node layer.*'before', 'middle', 'after', 'output'"),
        (["before"], "two or more"),
        ([], "two or more"),
        (["after", "before"], "in the model's order"),
        (["before", "before"], "in the model's order"),
    ],
)
def test_impossible_restrictions_are_refused(generator: Generator, node_layers: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_chain(generator).restricted_to(node_layers)


def test_a_chain_has_one_section_between_two_node_layers(generator: Generator) -> None:
    section = affine(generator, 3, 3)
    with pytest.raises(ValueError, match=r"3 node layers.*got 1"):
        Chain(("a", "b", "c"), (section,), embed=lambda inputs: inputs, last_has_constant=False)


def test_all_node_layers_but_the_last_carry_the_constant_and_the_last_as_it_says(generator: Generator) -> None:
    chain = random_chain(generator)
    assert [chain.has_constant(layer) for layer in LAYERS] == [True, True, True, False]
    assert replace(chain, last_has_constant=True).has_constant("output")


@pytest.mark.parametrize("last", ["output", "logits", "anything"])
def test_no_name_decides_which_layer_carries_the_constant(generator: Generator, last: str) -> None:
    chain = replace(random_chain(generator), node_layers=(*LAYERS[:-1], last))
    assert not chain.has_constant(last)
    (*_, logits), (*_, expected) = (
        chain_statistics(each, random_activation(generator.manual_seed(1), 9, 3, 4), AMPLE).values()
        for each in (chain, random_chain(generator.manual_seed(0)))
    )
    assert torch.equal(logits.mean, expected.mean)


def test_a_constant_that_is_not_there_is_refused_on_data(generator: Generator) -> None:
    inputs = random_activation(generator, 9, 3, 4)
    with pytest.raises(
        ValueError, match=r"output: the last coordinate is .*d \+ 1\], .*last, or last_has_constant=False"
    ):
        chain_statistics(replace(random_chain(generator), last_has_constant=True), inputs, AMPLE)
    with pytest.raises(ValueError, match=r"before: the last coordinate is 3; .*the constant 1 last$"):
        chain_statistics(random_chain(generator), 3 * inputs, AMPLE)


def test_an_activation_without_positions_is_refused_with_the_shape_that_is_expected(generator: Generator) -> None:
    readout = affine(generator, 4, 5, constant_out=False)
    chain = Chain(("before", "output"), (readout,), lambda inputs: inputs[:, 0], last_has_constant=False)
    with pytest.raises(
        ValueError, match=r"before: an activation of shape \(1, 4\); expected \[batch, position, d \+ 1\]"
    ):
        chain_statistics(chain, random_activation(generator, 9, 3, 4), AMPLE)


@pytest.mark.parametrize("memory_budget", BUDGETS)
def test_a_stream_is_the_layers_activations_without_gradients(generator: Generator, memory_budget: int) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 7, 3, 4).requires_grad_()
    stream = chain.stream(inputs, 2, memory_budget)
    assert stream.n_examples == 7
    streamed = torch.cat(list(stream.chunks(10)))
    assert not streamed.requires_grad
    assert largest_difference(streamed, chain.activation(inputs, 2).detach()) < 1e-14


def test_what_producing_a_layer_takes_does_not_shrink_when_layers_are_left_out(generator: torch.Generator) -> None:
    chain = random_chain(generator)
    inputs = random_activation(generator, 2, 3, 4)
    for layer in ("middle", "after"):
        restricted = chain.restricted_to([layer, "output"])
        whole = chain.values_to_produce(inputs, chain.node_layers.index(layer))
        assert restricted.values_to_produce(inputs, 0) == whole
        assert torch.equal(restricted.activation(inputs, 0), chain.activation(inputs, chain.node_layers.index(layer)))


def test_activations_are_held_as_far_as_half_of_the_budget_goes(generator: Generator) -> None:
    """Narrow layers first; chunks then do without what is taken."""
    chain, inputs = random_chain(generator), random_activation(generator, 7, 3, 4)
    expected = list(chain.activations(inputs))[:-1]
    held_bytes = [activation.numel() * activation.element_size() for activation in expected]
    calls: list[int] = []
    counting = replace(chain, embed=lambda batch: calls.append(len(batch)) or batch)
    for budget, held in (
        (2 * sum(held_bytes), {0, 1, 2}),
        (2 * sum(held_bytes) - 1, set(sorted(range(3), key=held_bytes.__getitem__)[:2])),
        (2 * min(held_bytes), {held_bytes.index(min(held_bytes))}),
        (1, set()),
    ):
        streams = counting.streams(inputs, budget)
        left = budget - sum(held_bytes[index] for index in held)
        assert [stream.memory_budget for stream in streams] == [left] * 3
        for index, (stream, activation) in enumerate(zip(streams, expected, strict=True)):
            calls.clear()
            assert largest_difference(torch.cat(list(stream.chunks(1))), activation) < 1e-14
            from_inputs = not any(number <= index for number in held)
            assert (sum(calls) >= len(inputs)) if from_inputs else not calls


def test_a_layer_that_is_not_held_is_computed_from_the_one_held_before_it(generator: Generator) -> None:
    passes: list[str] = []

    def section(name: str, d_in: int, d_out: int) -> FunctionSection:
        weight = random(generator, d_in, d_out)
        weight[:, -1], weight[-1, -1] = 0.0, 1.0
        return FunctionSection(lambda activation: passes.append(name) or activation @ weight)

    sections = (section("first", 9, 2), section("second", 2, 9), section("third", 9, 9), section("last", 9, 9))
    chain = Chain(("a", "b", "c", "d", "e"), sections, embed=lambda inputs: inputs, last_has_constant=True)
    inputs = random_activation(generator, 6, 1, 9)
    streams = chain.streams(inputs, memory_budget=2 * 6 * 2 * 8)
    expected = list(chain.activations(inputs))
    passes.clear()
    assert largest_difference(streams[3].produce(0, 6), expected[3]) < 1e-14
    assert passes == ["second", "third"]
