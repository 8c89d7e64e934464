"""A cache that was damaged, in whatever way, is never believed: results are the same to the last bit."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from running import QUICK, assert_same_tensors, read_json, reused, run_here, tensors_of

from experiments.pipeline.cache import StageCache
from experiments.pipeline.cache_entry import (
    ENTRY_FILES,
    DistrustedEntryError,
    StageResult,
    check_entry,
    read_entry,
    write_entry,
)
from models.in_use import unused

STAGES = ("model", "score", "statistics", "basis", "identification", "edges", "ablation", "names")
LENGTH_OF_KEY = 20
TIMES = ("time/", "memory/")


@cache
def whole(base: Path) -> Path:
    """The output directory of the quick run alone, not to be changed."""
    run_here(base / "whole_cache", "first", *QUICK)
    return base / "whole_cache"


@pytest.fixture
def outputs(tmp_path_factory, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(whole(tmp_path_factory.getbasetemp()), tmp_path / "outputs")


def entry_of(outputs: Path, stage: str) -> Path:
    (entry,) = (path for path in (outputs / "cache" / stage).iterdir() if len(path.name) == LENGTH_OF_KEY)
    return entry


def flipped(content: bytes, position: int) -> bytes:
    return content[: position // 8] + bytes([content[position // 8] ^ 1 << position % 8]) + content[position // 8 + 1 :]


def change(path: Path, changed: Callable[[bytes], bytes]) -> None:
    path.write_bytes(changed(path.read_bytes()))


def metrics_of(run: Path) -> dict[str, float]:
    return {key: value for key, value in read_json(run / "metrics.json").items() if not key.startswith(TIMES)}


def is_a_warning_of_the_cache(record: logging.LogRecord) -> bool:
    return record.name == "experiments.pipeline.cache" and record.levelno >= logging.WARNING


def assert_as_before(outputs: Path, stage: str, caplog) -> None:
    """Another run warns of the stage's entry once and computes it again, it alone; then all is as it was."""
    caplog.clear()
    again = run_here(outputs, "again", *QUICK)
    (line,) = (record.getMessage() for record in caplog.records if is_a_warning_of_the_cache(record))
    assert f"/{stage}/" in line
    assert "it is computed again" in line
    assert {name for name, found in reused(again).items() if not found} == {stage}
    first = outputs / "runs" / "first"
    assert_same_tensors(tensors_of(again), tensors_of(first))
    assert metrics_of(again) == metrics_of(first)
    for name in ("ablations.json", "features.json", "model.safetensors", "graph.safetensors"):
        assert (again / name).read_bytes() == (first / name).read_bytes(), name
    assert check_entry(entry_of(outputs, stage)) is not None


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit": lambda file: change(file, lambda content: flipped(content, 8 * len(content) - 12)),
    "a bit at the beginning": lambda file: change(file, lambda content: flipped(content, 70)),
    "shortened": lambda file: change(file, lambda content: content[:-1]),
    "empty": lambda file: file.write_bytes(b""),
    "longer": lambda file: change(file, lambda content: content + b" "),
    "gone": Path.unlink,
    "a folder in its place": lambda file: (file.unlink(), file.mkdir(), (file / "mine").write_text("precious")),
    "a link in its place": lambda file: (
        file.rename(file.parent.parent.parent / "moved"),
        file.symlink_to("../../moved"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ENTRY_FILES)
def test_a_damaged_file_of_an_entry(outputs, caplog, file, damage):
    stage = STAGES[(ENTRY_FILES.index(file) + 3 * list(DAMAGES).index(damage)) % len(STAGES)]
    DAMAGES[damage](entry_of(outputs, stage) / file)
    assert_as_before(outputs, stage, caplog)


@pytest.mark.parametrize("stage", STAGES)
def test_one_bit_of_any_stage(outputs, caplog, stage):
    change(entry_of(outputs, stage) / "tensors.safetensors", lambda content: flipped(content, 8 * len(content) - 2))
    assert_as_before(outputs, stage, caplog)


def test_a_digit_of_the_values(outputs, caplog):
    def changed(content: bytes) -> bytes:
        position = content.rindex(b"1")
        return content[:position] + b"2" + content[position + 1 :]

    change(entry_of(outputs, "ablation") / "values.json", changed)
    assert_as_before(outputs, "ablation", caplog)


def test_another_stage_s_entry(outputs, caplog):
    basis = entry_of(outputs, "basis")
    shutil.rmtree(basis)
    shutil.copytree(entry_of(outputs, "edges"), basis)
    assert_as_before(outputs, "basis", caplog)


def test_another_stage_s_tensors(outputs, caplog):
    shutil.copy(entry_of(outputs, "edges") / "tensors.safetensors", entry_of(outputs, "basis") / "tensors.safetensors")
    assert_as_before(outputs, "basis", caplog)


def test_an_entry_of_an_older_version(outputs, caplog):
    (entry_of(outputs, "basis") / "manifest.json").unlink()
    assert_as_before(outputs, "basis", caplog)


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_lock_that_is_none(outputs, tmp_path, kind):
    lock = entry_of(outputs, "edges").with_suffix(".lock")
    lock.unlink()
    lock.mkdir() if kind == "folder" else lock.symlink_to(tmp_path / "mine")
    (tmp_path / "mine").write_text("precious")
    assert all(reused(run_here(outputs, "again", *QUICK)).values())
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("kind", ["file", "link to a folder", "link to nothing"])
def test_an_entry_that_is_none_is_set_aside(outputs, caplog, tmp_path, kind):
    entry = entry_of(outputs, "edges")
    if kind == "file":
        shutil.rmtree(entry)
        entry.write_text("precious")
    else:
        entry.rename(tmp_path / "mine")
        entry.symlink_to(tmp_path / ("mine" if kind == "link to a folder" else "nothing"))
    assert_as_before(outputs, "edges", caplog)
    aside = entry.with_name(f"{entry.name}.set-aside")
    if kind == "file":
        assert aside.read_text() == "precious"
    else:
        assert os.path.lexists(aside)
        assert {path.name for path in (tmp_path / "mine").iterdir()} == set(ENTRY_FILES)


def test_files_of_the_user_s_in_a_damaged_entry_stay(outputs, caplog):
    entry = entry_of(outputs, "edges")
    (entry / "notes.txt").write_text("precious")
    (entry / "values.json").unlink()
    assert_as_before(outputs, "edges", caplog)
    assert (entry.with_name(f"{entry.name}.set-aside") / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize(("seed", "n"), [(0, 40), pytest.param(1, 200, marks=pytest.mark.slow)])
def test_random_bits_of_all_entries(outputs, seed, n):
    """None is believed; and with all entries damaged at once, a run has the results of the first."""
    draw = random.Random(seed)
    files = sorted(path for path in (outputs / "cache").rglob("*") if path.is_file() and path.suffix != ".lock")
    assert {path.name for path in files} == set(ENTRY_FILES)
    sizes = [path.stat().st_size for path in files]
    for _ in range(n):
        (path,) = draw.choices(files, sizes)
        before = path.read_bytes()
        path.write_bytes(flipped(before, draw.randrange(8 * len(before))))
        with pytest.raises(DistrustedEntryError):
            read_entry(path.parent)
        path.write_bytes(before)
        assert check_entry(path.parent) is not None
    for folder in {path.parent for path in files}:
        file = folder / draw.choice(ENTRY_FILES)
        change(file, lambda content: flipped(content, draw.randrange(8 * len(content))))
    again, first = run_here(outputs, "again", *QUICK), outputs / "runs" / "first"
    assert not any(reused(again).values())
    assert (again / "graph.safetensors").read_bytes() == (first / "graph.safetensors").read_bytes()
    assert metrics_of(again) == metrics_of(first)


@pytest.mark.slow
def test_every_bit_of_a_manifest(outputs):
    path = entry_of(outputs, "edges") / "manifest.json"
    whole = path.read_bytes()
    for position in range(8 * len(whole)):
        path.write_bytes(flipped(whole, position))
        with pytest.raises(DistrustedEntryError):
            check_entry(path.parent)


def test_a_format_of_the_future_is_told(tmp_path):
    entry = tmp_path / "stage" / "key"
    entry.parent.mkdir()
    write_entry(entry, StageResult(values={"a": 1}), {})
    content = json.loads((entry / "manifest.json").read_text())
    (entry / "manifest.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(DistrustedEntryError, match="of format 99, which this version does not know"):
        read_entry(entry)


def test_a_result_is_in_use_from_its_writing_or_reading_until_the_run_ends(tmp_path):
    for compute in (lambda _: StageResult(values={"a": 1}), lambda _: pytest.fail("computed")):
        stages = StageCache(tmp_path / "cache", torch.device("cpu"))
        folder = tmp_path / "cache" / "stage" / "key"
        with stages.in_use:
            stages.finish("stage", "key", compute)
            with unused(folder) as is_unused:
                assert not is_unused
        with unused(folder) as is_unused:
            assert is_unused


def test_a_model_that_comes_out_otherwise_has_later_stages_of_its_own(tmp_path):
    """As where it is trained again on another machine, after its entry was lost."""
    stages = StageCache(tmp_path / "cache", torch.device("cpu"))
    first = stages.finish("model", "key", lambda _: StageResult({"a": torch.tensor([1.0])}))
    shutil.rmtree(tmp_path / "cache" / "model" / "key")
    same = stages.finish("model", "key", lambda _: StageResult({"a": torch.tensor([1.0])}))
    shutil.rmtree(tmp_path / "cache" / "model" / "key")
    other = stages.finish("model", "key", lambda _: StageResult({"a": torch.tensor([1.0000001])}))
    assert first.identity == same.identity != other.identity
    assert stages.finish("model", "key", lambda _: pytest.fail("computed")).identity == other.identity


def test_later_stages_of_other_weights_are_not_reused(outputs, monkeypatch):
    """The model's entry is lost, and its training comes out otherwise in the last bit."""
    shutil.rmtree(entry_of(outputs, "model"))
    from models.modular_addition import room

    train = room.train

    def otherwise(*arguments):
        result = train(*arguments)
        name = next(iter(result.weights))
        result.weights[name].view(-1)[0] += 1e-6
        return result

    monkeypatch.setattr(room, "train", otherwise)
    again = run_here(outputs, "again", *QUICK)
    assert not any(reused(again).values())
