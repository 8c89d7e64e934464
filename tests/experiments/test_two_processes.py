"""Drawing by two processes: what each draws, in which order, and what becomes of errors."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from experiments.figures.two_processes import Drawing, carry_out

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere one process draws")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
    assert multiprocessing.active_children() == []


def written_by(number: int) -> Drawing:
    return lambda: [Path(f"{number}a", str(os.getpid())), Path(f"{number}b", str(os.getpid()))][: 1 + number % 2]


def fail() -> list[Path]:
    raise ValueError("no such colour")


def test_every_other_drawing_is_made_by_another_process() -> None:
    paths = carry_out([written_by(number) for number in range(5)])
    assert [path.parts[0] for path in paths] == ["0a", "1a", "1b", "2a", "3a", "3b", "4a"]
    here = [path.parts[0] for path in paths if path.name == str(os.getpid())]
    assert here == ["0a", "2a", "4a"]
    assert len({path.name for path in paths}) == 2


def test_torch_computes_in_the_other_process_too() -> None:
    """Its threads are not there: what is shared out to them would be waited for without end."""
    large = torch.ones(2**20, dtype=torch.float64)
    assert large.sum() == 2**20

    def summed() -> list[Path]:
        return [Path(str(int((large * large).sum())))]

    assert carry_out([list, summed]) == [Path(str(2**20))]


def test_neither_process_wakes_further_threads() -> None:
    def number_of_threads() -> list[Path]:
        return [Path(str(torch.get_num_threads()))]

    assert carry_out([number_of_threads] * 2) == [Path("1")] * 2
    assert torch.get_num_threads() == 2


def test_on_one_thread_one_process_draws() -> None:
    torch.set_num_threads(1)
    paths = carry_out([written_by(number) for number in range(3)])
    assert {path.name for path in paths} == {str(os.getpid())}


@pytest.mark.parametrize("place", [0, 1])
def test_an_error_in_either_process_is_raised(place: int) -> None:
    drawings = [written_by(0), written_by(1)]
    drawings[place] = fail
    with pytest.raises(ValueError, match="no such colour") as raised:
        carry_out(drawings)
    assert place == 0 or "in fail" in "".join(raised.value.__notes__)


def test_a_process_that_was_ended_from_outside_is_no_success() -> None:
    def killed() -> list[Path]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    with pytest.raises(RuntimeError, match="has ended before it was done"):
        carry_out([written_by(0), killed])
