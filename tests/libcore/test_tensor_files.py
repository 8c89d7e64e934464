"""Tensors in files: whatever memory they share, they come back as they were."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from libcore.tensor_files import read_tensors, write_tensors


def test_names_that_share_memory_are_written_apart(tmp_path):
    """A method may give two node layers one basis, or two halves of one matrix."""
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"a": whole, "b": whole, "row": whole[1], "turned": whole.T, "column": whole[:, 2], "empty": whole[:0]}
    write_tensors(tmp_path / "x.safetensors", tensors, {"b": "1", "a": "2"})
    found, header = read_tensors(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert header == {"a": "2", "b": "1"}


def test_nothing_is_written_beside_the_file(tmp_path, monkeypatch):
    """A process that is killed leaves the file's own name half-written, and no other."""
    written = []
    open_path = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode: written.append(path) or open_path(path, *mode))
    write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(3)}, {"b": "Λ", "a": "2"})
    assert written == [tmp_path / "x.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_equal_contents_give_equal_files_in_the_library_s_format(tmp_path):
    texts = {name: name * 3 for name in "qwertzuiop"}
    for number, names in enumerate(("abc", "cab")):
        write_tensors(tmp_path / str(number), {name: torch.full((2,), ord(name)) for name in names}, texts)
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    assert load_file(tmp_path / "0")["b"].tolist() == [ord("b")] * 2
    assert read_tensors(tmp_path / "1")[1] == texts
