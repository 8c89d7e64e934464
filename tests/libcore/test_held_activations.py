"""Activations held in memory, on disk, or computed again: the same numbers, and as few sections as the room allows."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import largest_difference, random, random_activation
from torch import Generator

from libcore.chain import Chain
from libcore.held_activations import OnDisk, Scratch, chosen_to_hold, room_for
from libcore.sections import FunctionSection

D, N_EXAMPLES, N_SECTIONS = 4, 6, 9
LAYER_BYTES = N_EXAMPLES * 3 * D * 8
LITTLE = 2
"""Bytes of a budget that holds nothing."""


def long_chain(generator: Generator, passes: list[int], dtype: torch.dtype = torch.float64) -> Chain:
    """Sections of one width, which say when they are called, by number."""

    def section(number: int) -> FunctionSection:
        weight = random(generator, D, D).to(dtype)
        weight[:, -1], weight[-1, -1] = 0.0, 1.0
        return FunctionSection(lambda activation: passes.append(number) or activation @ weight)

    layers = tuple(f"layer {number}" for number in range(N_SECTIONS + 1))
    return Chain(layers, tuple(map(section, range(N_SECTIONS))), lambda inputs: inputs, last_has_constant=True)


@pytest.fixture
def passes() -> list[int]:
    return []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_disk_are_the_same_activations(generator: Generator, passes: list[int], tmp_path: Path, dtype) -> None:
    chain = replace(long_chain(generator, passes, dtype), scratch=Scratch(tmp_path, 10**6))
    inputs = random_activation(generator, N_EXAMPLES, 3, D).to(dtype)
    expected = list(chain.activations(inputs))
    streams = chain.streams(inputs, LITTLE)
    for stream, activation in zip(streams, expected, strict=False):
        assert torch.equal(stream.produce(0, N_EXAMPLES), activation)
        assert torch.equal(stream.produce(2, 5), activation[2:5])
        assert stream.example().dtype == dtype


def test_nothing_is_computed_again_where_the_disk_has_room(
    generator: Generator, passes: list[int], tmp_path: Path
) -> None:
    chain = replace(long_chain(generator, passes), scratch=Scratch(tmp_path, N_SECTIONS * LAYER_BYTES))
    inputs = random_activation(generator, N_EXAMPLES, 3, D)
    expected = list(chain.activations(inputs))
    streams = chain.streams(inputs, LITTLE)
    passes.clear()
    for stream, activation in zip(streams, expected, strict=False):
        assert largest_difference(torch.cat(list(stream.chunks(1))), activation) == 0.0
    assert not passes
    assert not list(tmp_path.iterdir())  # a file without a name


@pytest.mark.parametrize("layers_in_memory", range(4))
@pytest.mark.parametrize("layers_on_disk", range(4))
def test_what_has_no_room_is_computed_from_the_layer_held_before_it(
    generator: Generator, passes: list[int], tmp_path: Path, layers_in_memory: int, layers_on_disk: int
) -> None:
    scratch = Scratch(tmp_path, layers_on_disk * LAYER_BYTES)
    chain = replace(long_chain(generator, passes), scratch=scratch)
    inputs = random_activation(generator, N_EXAMPLES, 3, D)
    expected = list(chain.activations(inputs))
    streams = chain.streams(inputs, 2 * layers_in_memory * LAYER_BYTES or LITTLE)
    passes.clear()
    for stream, activation in zip(streams, expected, strict=False):
        assert largest_difference(stream.produce(0, N_EXAMPLES), activation) == 0.0
    n_held = layers_in_memory + layers_on_disk
    in_memory = chosen_to_hold([1] * N_SECTIONS, layers_in_memory, ())
    held = sorted([*in_memory, *chosen_to_hold([1] * N_SECTIONS, layers_on_disk, in_memory)])
    again = [number for last, following in pairwise([0, *held, N_SECTIONS]) for number in range(following - last)]
    assert len(held) == n_held
    assert len(passes) == sum(again)


@pytest.mark.parametrize("refusal", ["full", "no folder"])
def test_a_disk_that_takes_nothing_is_done_without(
    generator: Generator, passes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if refusal == "full":
        monkeypatch.setattr(os, "posix_fallocate", full)
    directory = tmp_path if refusal == "full" else tmp_path / "none"
    chain = replace(long_chain(generator, passes), scratch=Scratch(directory, 10**6))
    inputs = random_activation(generator, N_EXAMPLES, 3, D)
    expected = list(chain.activations(inputs))
    for stream, activation in zip(chain.streams(inputs, LITTLE), expected, strict=False):
        assert largest_difference(stream.produce(0, N_EXAMPLES), activation) == 0.0


def test_no_more_than_half_of_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Scratch(tmp_path, 100).room() == 100
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 50}))
    assert Scratch(tmp_path, 100).room() == 25


def test_of_one_width_they_lie_evenly() -> None:
    assert sorted(chosen_to_hold([8] * 60, 3 * 8, ())) == [14, 29, 44]
    assert sorted(chosen_to_hold([8] * 60, 10**6, ())) == list(range(60))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=12), st.integers(0, 400), st.integers(0, 400))
def test_chosen_layers_fit_and_none_that_would_is_left(layer_bytes: list[int], memory: int, disk: int) -> None:
    in_memory = chosen_to_hold(layer_bytes, memory, ())
    on_disk = chosen_to_hold(layer_bytes, disk, in_memory)
    assert len({*in_memory, *on_disk}) == len(in_memory) + len(on_disk)
    for chosen, room in ((in_memory, memory), (on_disk, disk)):
        left = room - sum(layer_bytes[index] for index in chosen)
        assert left >= 0
        rest = set(range(len(layer_bytes))) - {*in_memory, *on_disk}
        assert all(layer_bytes[index] > left for index in rest)


def test_room_for_tells_what_memory_is_taken(tmp_path: Path) -> None:
    examples = [torch.zeros(1, 2, 3, dtype=torch.float64)] * 3
    held, in_memory = room_for(5, examples, 5 * 48, Scratch(tmp_path, 5 * 48))
    assert in_memory == 5 * 48
    assert sorted(type(one).__name__ for one in held.values()) == ["OnDisk", "Tensor"]
    assert all(len(one) == 5 for one in held.values())
    assert isinstance(next(one for one in held.values() if isinstance(one, OnDisk))[1:3], torch.Tensor)
