"""Kept tensors are read only if they are what was written."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest
import torch
from flips import flipped

from models.checked_tensors import read_checked, write_checked
from models.training_state import TrainingEvaluation, read_training_state, write_training_state

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2], dtype=torch.uint8), "c": torch.zeros(0)}
HEADER = {"text": "Λ", "sha": '"sha256":"none"', "another": "x"}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    write_checked(tmp_path / "kept.safetensors", TENSORS, HEADER)
    return tmp_path / "kept.safetensors"


def test_what_was_written_is_read(kept):
    found = read_checked(kept)
    assert found is not None
    assert found.header == HEADER
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())


def test_equal_tensors_give_equal_files(kept, tmp_path):
    for number in range(4):
        path = tmp_path / str(number) / kept.name
        write_checked(path, dict(reversed(TENSORS.items())), dict(reversed(HEADER.items())))
        assert path.read_bytes() == kept.read_bytes()


def test_no_bit_of_it_may_change(kept, caplog):
    whole = kept.read_bytes()
    positions = range(0, 8 * len(whole), 7)  # every byte's bits in turn
    for position in positions:
        kept.write_bytes(flipped(whole, position))
        assert read_checked(kept) is None, position
    assert len(caplog.records) == len(positions)
    kept.write_bytes(whole)
    assert read_checked(kept) is not None


@pytest.mark.parametrize("n", [0, 1, 7, 8, 100, -1, -4])
def test_nor_be_missing(kept, n):
    kept.write_bytes(kept.read_bytes()[:n])
    assert read_checked(kept) is None


def test_a_file_of_another_name_is_another_s(kept, tmp_path):
    assert read_checked(kept.rename(tmp_path / "other.safetensors")) is None


def test_no_file_is_no_damage(tmp_path, caplog):
    assert read_checked(tmp_path / "kept.safetensors") is None
    assert caplog.records == []


@pytest.mark.parametrize("kind", ["folder", "link", "link to nothing"])
def test_what_is_no_file_is_set_aside(kept, tmp_path, caplog, kind):
    mine = tmp_path / "mine"
    if kind == "folder":
        kept.unlink()
        kept.mkdir()
        (kept / "precious").write_text("precious")
    else:
        kept.rename(mine) if kind == "link" else kept.unlink()
        kept.symlink_to(mine)
    before = mine.read_bytes() if mine.exists() else None
    with caplog.at_level(logging.WARNING):
        assert read_checked(kept) is None
    assert "no file, but a folder or a link" in caplog.text
    write_checked(kept, TENSORS, HEADER)
    assert read_checked(kept) is not None
    assert (mine.read_bytes() if mine.exists() else None) == before
    aside = kept.with_name(f"{kept.name}.set-aside")
    assert (aside / "precious").is_file() if kind == "folder" else aside.is_symlink()


def test_a_state_of_training_with_a_changed_bit_is_none(tmp_path):
    path, history = tmp_path / "key.training.safetensors", [TrainingEvaluation(1, 0.5, 0.25, 0.1)]
    write_training_state(path, TENSORS, history)
    found = read_training_state(path, torch.device("cpu"))
    assert found is not None
    assert found[1] == history
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(200):
        path.write_bytes(flipped(whole, draw.randrange(8 * len(whole))))
        assert read_training_state(path, torch.device("cpu")) is None
