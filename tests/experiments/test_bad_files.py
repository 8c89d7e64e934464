"""A place, a device, an account or a checkpoint that is not what it should be is refused in one line."""

from __future__ import annotations

import os
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from running import TOY, assert_says, command, refusal
from safetensors.torch import save_file

from models.modular_addition.transformer import Architecture


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Calls the command in `tmp_path` with arguments that it must refuse; returns the one line that it says."""
    return partial(refusal, tmp_path, monkeypatch, capsys)


class TestPlaces:
    def test_an_output_directory_below_a_file(self, refused, tmp_path):
        (tmp_path / "file").write_text("here")
        assert_says(refused("output_directory=file/below"), "file/below", str(tmp_path / "file"), "not a directory")

    def test_a_run_s_directory_below_a_file(self, refused, tmp_path):
        (tmp_path / "file").write_text("here")
        assert_says(refused("hydra.run.dir=file/below"), "file/below", "not a directory")

    def test_an_output_directory_below_a_file_while_the_run_s_directory_is_elsewhere(self, refused, tmp_path):
        """The cache of finished stages lies in the output directory wherever the run's own directory is."""
        (tmp_path / "file").write_text("here")
        assert_says(refused("hydra.run.dir=good", "output_directory=file/below"), "file/below", "not a directory")

    def test_a_sweep_s_directory_below_a_file(self, refused, tmp_path):
        (tmp_path / "file").write_text("here")
        assert_says(refused("-m", "seed=0,1", "hydra.sweep.dir=file/below"), "file/below", "not a directory")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_directory_without_permission(self, refused, tmp_path):
        (tmp_path / "closed").mkdir(mode=0o500)
        assert_says(refused("output_directory=closed/below"), "closed", "permission denied")

    def test_a_loop_of_links(self, refused, tmp_path):
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        for key in ("output_directory", "hydra.run.dir"):
            assert_says(refused(f"{key}={tmp_path}/a/run"), f"{key}=", "too many levels of symbolic links")
        assert_says(refused(f"model.checkpoint={tmp_path}/a"), "model.checkpoint=", "too many levels of symbolic links")

    def test_a_path_that_no_file_system_takes(self, refused):
        assert_says(refused(f"hydra.run.dir={'x' * 300}"), "hydra.run.dir=", "file name too long")
        assert_says(refused(f"output_directory={'x' * 300}"), "output_directory=", "300 bytes", "255 in a name")

    def test_a_folder_that_is_gone(self, tmp_path):
        gone = tmp_path / "gone"
        gone.mkdir()
        script = (
            f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); from experiments.run import main; main()"
        )
        ended = command(tmp_path, program=("-c", script))
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == "error: the current folder is not there any more; expected the command in one that is\n"


class TestDevicesAndAccounts:
    @pytest.mark.parametrize("device", ["cuda:99", "cuda:99999999999"])
    def test_a_device_that_is_not_there(self, refused, device):
        assert_says(refused(f"device={device}"), f"device={device}", "cpu")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_cuda_without_a_device(self, refused):
        assert_says(refused("device=cuda"), "device=cuda", "0 CUDA devices", "cpu or auto")

    def test_online_tracking_without_an_account(self, refused):
        assert_says(refused("tracking.mode=online"), "tracking.mode=online", "wandb login", "offline")

    def test_online_tracking_with_a_damaged_netrc(self, refused, tmp_path):
        (tmp_path / ".netrc").write_text("machine\n")
        assert_says(refused("tracking.mode=online"), "tracking.mode=online")


class TestCheckpoints:
    @pytest.mark.parametrize(
        ("name", "write", "expected"),
        [
            ("missing.pt", lambda path: None, "no such file"),
            ("folder.pt", Path.mkdir, "file"),
            ("empty.pt", Path.touch, "not readable"),
            ("text.pt", lambda path: path.write_text("these are no weights"), "not readable"),
            ("text.safetensors", lambda path: path.write_text("these are no weights"), "not readable"),
            ("module.pt", lambda path: torch.save(torch.nn.Linear(2, 2), path), "not readable"),
            ("object.pt", lambda path: path.write_bytes(pickle.dumps(Path("x"))), "not readable"),
            ("old_object.pt", lambda path: path.write_bytes(pickle.dumps(Path("x"), protocol=2)), "not readable"),
            ("tensor.pt", lambda path: torch.save(torch.zeros(3), path), "holds Tensor; expected named tensors"),
            ("nested.pt", lambda path: torch.save({"model": {"a": torch.zeros(3)}}, path), "expected named tensors"),
            ("numbered.pt", lambda path: torch.save({0: torch.zeros(3)}, path), "expected named tensors"),
            ("no_weights.pt", lambda path: torch.save({}, path), "weight embed.W_E is missing; expected shape (8, 16)"),
        ],
    )
    def test_a_file_that_holds_no_weights(self, refused, tmp_path, name, write, expected):
        write(tmp_path / name)
        assert_says(refused(*TOY, f"model.checkpoint={name}"), f"model.checkpoint={name}", expected)

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (
                lambda weights: weights | {"embed.W_E": torch.zeros(9, 16)},
                ("weight embed.W_E has another shape", "expected (8, 16)", "found (9, 16)"),
            ),
            (
                lambda weights: {name: weight for name, weight in weights.items() if name != "blocks.0.mlp.b_in"},
                ("weight blocks.0.mlp.b_in is missing", "expected shape (32,)"),
            ),
            (
                lambda weights: weights | {"blocks.1.mlp.b_in": torch.zeros(32)},
                ("weight blocks.1.mlp.b_in does not belong to this model",),
            ),
        ],
    )
    @pytest.mark.parametrize("suffix", ["pt", "safetensors"])
    def test_the_first_weight_that_does_not_fit_is_named(self, refused, tmp_path, change, expected, suffix):
        weights = change({name: torch.zeros(shape) for name, shape in toy_shapes().items()})
        path = tmp_path / f"weights.{suffix}"
        torch.save(weights, path) if suffix == "pt" else save_file(weights, path)
        assert_says(refused(*TOY, f"model.checkpoint={path}"), f"model.checkpoint={path}", *expected)

    def test_no_code_of_a_pickle_is_run(self, refused, tmp_path):
        (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(tmp_path / "traces"), protocol=2))
        assert_says(refused(*TOY, "model.checkpoint=evil.pt"), "model.checkpoint=evil.pt")


def toy_shapes() -> dict[str, tuple[int, ...]]:
    return Architecture(modulus=7, d_model=16, n_heads=2, d_head=8, d_mlp=32).weight_shapes()


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
