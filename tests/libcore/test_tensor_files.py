"""Tensors in files: whatever memory they share, they come back as they were."""

from __future__ import annotations

import torch

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
