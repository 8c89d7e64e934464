"""Files appear whole or not at all."""

from __future__ import annotations

import json
import math

import pytest

from experiments.pipeline.json_files import write_json, write_text
from models.whole_files import written_whole


def test_the_file_appears_when_the_block_succeeds(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    with written_whole(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("interruption", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, interruption):
    path = tmp_path / "file.txt"
    path.write_text("before")

    def write_half() -> None:
        with written_whole(path) as temporary:
            temporary.write_text("ha")
            raise interruption

    with pytest.raises(type(interruption)):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_json_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", {"number": 1, "no number": object()})
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_json_has_no_word_for_become_null(tmp_path):
    content = {"a": math.nan, "b": [math.inf, 1.5, (-math.inf, 2)], "c": {"d": math.nan, "e": "nan", "f": None}}
    write_json(tmp_path / "file.json", content)
    text = (tmp_path / "file.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None,
        "b": [None, 1.5, [None, 2]],
        "c": {"d": None, "e": "nan", "f": None},
    }


def test_text_is_utf_8(tmp_path):
    write_text(tmp_path / "file.txt", "Λ ± –")
    assert (tmp_path / "file.txt").read_bytes() == "Λ ± –".encode()
