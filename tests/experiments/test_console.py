"""A long stage without a terminal says where it is; what is left is estimated from what has been done."""

from __future__ import annotations

import logging
import threading
import time

import pytest
import torch
from filelock import FileLock

from experiments.pipeline import console
from experiments.pipeline.cache import StageCache
from experiments.pipeline.cache_entry import StageResult
from experiments.pipeline.console import PassesOverData, StageProgress, duration, progress_of

LOGGER = "experiments.pipeline.console"


@pytest.fixture
def lines(caplog, monkeypatch):
    """What is said, every few milliseconds."""
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.02)
    caplog.set_level(logging.INFO, LOGGER)
    return lambda: [record.getMessage() for record in caplog.records if record.name == LOGGER]


def test_a_stage_says_where_it_is(lines):
    with progress_of("basis") as advance:
        advance(1, 4, "layers.0")
        time.sleep(0.1)
        advance(3, 4, "layers.1")
        time.sleep(0.1)
    said = lines()
    assert len(said) > 4
    assert said[0].startswith("basis: 25% after 0.")
    assert said[0].endswith("  layers.0")
    assert "left" not in said[0]
    assert said[-1].startswith("basis: 75% after 0.")
    assert "about 0." in said[-1]
    assert said[-1].endswith("left  layers.1")


def test_a_stage_that_tells_nothing_says_how_long_it_takes(lines):
    with progress_of("figures"):
        time.sleep(0.1)
    assert all(line.startswith("figures: 0.") and line.endswith("s so far") for line in lines())
    assert lines()


def test_nothing_is_said_after_the_end(lines):
    with progress_of("figures"):
        pass
    said = len(lines())
    time.sleep(0.1)
    assert len(lines()) == said


def test_lines_come_at_least_every_half_minute():
    assert console.SECONDS_BETWEEN_LINES <= 30


def test_the_time_left_is_by_the_speed_of_this_process():
    """A training that goes on where it was interrupted has done much in no time."""
    progress = StageProgress("model", "about")
    progress.started -= 50
    progress(900, 1000)
    progress.first_told -= 10
    progress(950, 1000)
    assert progress.seconds_left() == pytest.approx(10, rel=0.01)


def test_passes_over_layers_add_up():
    told = []
    passes = PassesOverData(lambda done, total, text: told.append((done, total, text)), 2)
    for layer, done in (("a", 5), ("a", 10), ("b", 2), ("a", 1)):
        passes(layer, done, 10)
    assert told == [(0.5, 2, "a"), (1.0, 2, "a"), (1.2, 2, "b"), (1.2, 2, "a")]


def test_a_stage_that_waits_for_another_process_says_so(tmp_path, caplog, lines):
    caplog.set_level(logging.INFO, "experiments.pipeline.cache")
    cache = StageCache(tmp_path, torch.device("cpu"))
    (tmp_path / "basis").mkdir()
    held = threading.Event()

    def hold() -> None:
        with FileLock(tmp_path / "basis" / "key.lock"):
            held.set()
            time.sleep(0.3)

    threading.Thread(target=hold).start()
    held.wait()
    cache.finish("basis", "key", lambda _: StageResult(values={"one": 1}))
    assert "basis: another run is computing it; waiting" in caplog.text
    assert any(line.startswith("basis (waiting for another run): ") for line in lines())


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4 s"), (47.6, "48 s"), (700, "12 min"), (12700, "3.5 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
