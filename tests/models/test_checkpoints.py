"""Weights from outside: what fits is read, what does not is refused with the first mismatch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.modular_addition.model import load_weights
from models.modular_addition.transformer import Architecture, initial_weights
from models.weights import CheckpointError

ARCHITECTURE = Architecture(modulus=7, d_model=8, n_heads=2, d_head=4, d_mlp=12)


def state_dict() -> dict[str, Tensor]:
    weights = {name: weight.detach() for name, weight in initial_weights(ARCHITECTURE, 0).items()}
    buffers = {"blocks.0.attn.mask": torch.ones(3, 3).tril().bool(), "blocks.0.attn.IGNORE": torch.tensor(-1e5)}
    return weights | buffers


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_reads_classic_names_and_leaves_buffers_out(tmp_path: Path, suffix: str) -> None:
    path, expected = tmp_path / f"checkpoint{suffix}", state_dict()
    save_file(expected, path) if suffix == ".safetensors" else torch.save(expected, path)
    weights = load_weights(path, ARCHITECTURE)
    assert list(weights) == list(ARCHITECTURE.weight_shapes())
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("blocks.0.mlp.W_in"), r"weight blocks\.0\.mlp\.W_in is missing; expected shape \(8, 12\)"),
        (lambda w: w.update({"embed.W_E": torch.zeros(9, 8)}), r"embed\.W_E .* expected \(8, 8\), found \(9, 8\)"),
        (lambda w: w.update({"ln_final.w": torch.zeros(8)}), r"weight ln_final\.w does not belong"),
    ],
)
def test_names_the_first_mismatch(tmp_path: Path, change, message: str) -> None:
    weights = state_dict()
    change(weights)
    torch.save(weights, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path / "checkpoint.pt", ARCHITECTURE)


class Unpickled:
    """Code that would run if a checkpoint were unpickled."""

    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize("content", ["missing", "garbage", "truncated", "code", "no tensors"])
def test_refuses_what_is_no_state_dict(tmp_path: Path, content: str) -> None:
    path = tmp_path / "checkpoint.pt"
    if content == "garbage":
        path.write_bytes(b"not a checkpoint")
    elif content == "truncated":
        torch.save(state_dict(), path)
        path.write_bytes(path.read_bytes()[:500])
    elif content == "code":
        torch.save({"embed.W_E": Unpickled()}, path)
    elif content == "no tensors":
        torch.save({"step": 3}, path)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        load_weights(path, ARCHITECTURE)
