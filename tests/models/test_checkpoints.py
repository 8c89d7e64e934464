"""Weights from outside: what fits is read, what does not is refused with the first mismatch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.modular_addition.model import load_weights
from models.modular_addition.transformer import Architecture, initial_weights
from models.weights import CheckpointError, ModelFile

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


QUERIES = "blocks.0.attn.W_Q"
UNUSUAL = {
    "sparse": lambda weight: weight.to_sparse(),
    "sparse rows": lambda weight: weight[0].to_sparse_csr(),
    "meta": lambda weight: weight.to("meta"),
    "quantized": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    "nested": lambda weight: torch.nested.nested_tensor([weight[0], weight[1]]),
}


@pytest.mark.filterwarnings("ignore")  # torch's own, of prototypes
@pytest.mark.parametrize("kind", UNUSUAL)
def test_tensors_that_are_not_simply_numbers_are_refused_by_kind(tmp_path: Path, kind: str) -> None:
    weights = state_dict()
    weights[QUERIES] = UNUSUAL[kind](weights[QUERIES])
    torch.save(weights, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=rf"W_Q is a {kind.partition(' ')[0]} tensor; expected one"):
        load_weights(tmp_path / "checkpoint.pt", ARCHITECTURE)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn])
def test_weights_of_another_kind_of_number_are_refused(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    path, weights = tmp_path / f"checkpoint{suffix}", state_dict()
    weights[QUERIES] = weights[QUERIES].to(dtype)
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    with pytest.raises(CheckpointError, match=rf"weight {QUERIES} has dtype {str(dtype)[6:]}; expected float16, "):
        load_weights(path, ARCHITECTURE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_exact(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = state_dict()
    weights[QUERIES] = weights[QUERIES].to(dtype)
    torch.save(weights, tmp_path / "checkpoint.pt")
    loaded = load_weights(tmp_path / "checkpoint.pt", ARCHITECTURE)[QUERIES]
    assert loaded.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(loaded.double(), weights[QUERIES].double())


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, number: float) -> None:
    weights = state_dict()
    weights[QUERIES][0, 0, 0] = number
    torch.save(weights, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=f"weight {QUERIES} holds numbers that are not finite"):
        load_weights(tmp_path / "checkpoint.pt", ARCHITECTURE)


def test_names_that_share_a_tensor_have_one_each(tmp_path: Path) -> None:
    weights = state_dict()
    weights["blocks.0.attn.W_K"] = weights[QUERIES]
    torch.save(weights, tmp_path / "shared.pt")
    file = ModelFile.read(tmp_path / "shared.pt")
    file.write(tmp_path / "own.safetensors")  # takes no two names of one tensor
    read_back = ModelFile.read(tmp_path / "own.safetensors").tensors
    assert torch.equal(read_back["blocks.0.attn.W_K"], weights[QUERIES])
    assert torch.equal(read_back[QUERIES], weights[QUERIES])


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_git_lfs_has_not_fetched_is_named_so(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"checkpoint{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 538000000\n")
    with pytest.raises(CheckpointError, match="a Git LFS pointer, not the file itself; expected what `git lfs pull`"):
        ModelFile.read(path)
