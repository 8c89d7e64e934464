"""Which thread takes which examples through a model, and how many at once."""

from __future__ import annotations

from collections.abc import Iterator
from threading import current_thread

import pytest
import torch
from tiny_models import AMPLE, random_activation, random_chain
from torch import Generator

from libcore.ablation import EvaluationData, unablated_score
from libcore.ablation.examples import Examples, part_of
from libcore.parallel import shares_for
from libcore.streams import stream_of_held


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def blocks_of(examples: Examples) -> list[tuple[int, int]]:
    return [block for part in examples.parts for block in examples.blocks(part)]


@pytest.mark.parametrize("count", [1, 2, 10, 11])
@pytest.mark.parametrize("most", [1, 4, 100])
def test_every_example_is_in_one_block(threads: int, count: int, most: int) -> None:
    examples = Examples(count, most, on_gpu=False)
    assert len(examples.parts) == min(shares_for(threads, count), count)
    assert [number for start, stop in blocks_of(examples) for number in range(start, stop)] == list(range(count))
    sizes = [stop - start for start, stop in blocks_of(examples)]
    assert 0 < min(sizes) <= max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


def test_a_gpu_has_one_thread(threads: int) -> None:
    assert Examples(10, 4, on_gpu=True).parts == [(0, 10)]


def test_results_come_in_the_examples_order_from_all_threads(threads: int) -> None:
    def work(start: int, stop: int) -> tuple[int, int, bool, str]:
        return start, stop, torch.is_grad_enabled(), current_thread().name

    examples = Examples(10, 2, on_gpu=False)
    found = examples.mapped(work)
    assert [(start, stop) for start, stop, *_ in found] == blocks_of(examples)
    assert not any(with_gradients for _, _, with_gradients, _ in found)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("budget", [1, 2000, AMPLE])
def test_the_score_is_a_mean_over_all_examples(threads: int, budget: int, generator: Generator) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 11, 3, 4)
    seen = []

    def score(outputs: torch.Tensor, start: int, stop: int) -> float:
        seen.append((start, stop, len(outputs)))
        return float(sum(range(start, stop)))

    assert unablated_score(chain, EvaluationData(inputs, score), budget) == sum(range(11)) / 11
    assert sorted(number for start, stop, _ in seen for number in range(start, stop)) == list(range(11))
    assert all(length == stop - start for start, stop, length in seen)
    if budget == 1:
        assert len(seen) == 11


def test_a_part_of_a_stream_is_counted_from_its_first_example() -> None:
    part = part_of(stream_of_held(torch.arange(10.0)[:, None, None], AMPLE), (4, 9))
    assert part.n_examples == 5
    assert part.produce(1, 3).flatten().tolist() == [5.0, 6.0]
