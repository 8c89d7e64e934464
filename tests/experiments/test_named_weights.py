"""Weights that are had by a name are not copied: a run says which they were, and what needs them gets them back."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest
from running import STORIES, TOY_MODELS, exit_status, files_below, read_json
from safetensors import safe_open

from experiments import stability
from models.content_hashes import file_hash
from models.pretrained_transformer.hub import revision_of
from models.pretrained_transformer.room import content_of, converted
from models.weights import ModelFile

NAMED = ("model=pretrained_transformer", *TOY_MODELS["pretrained_transformer"], "tracking.mode=disabled")
pytestmark = pytest.mark.skipif(not STORIES.is_dir(), reason="the pretrained model is not there")


@cache
def named_runs(base: Path) -> Path:
    """Two texts' worth of runs of a copy of the model, in `outputs` beside it; not to be changed."""
    folder = base / "named_weights"
    shutil.copytree(STORIES, folder / "stories")
    for number in (0, 1):
        split = f"model.split_seed={number}"
        stages = "analysis.stages=[basis,edges]"
        place = f"hydra.run.dir=outputs/run{number}"
        assert exit_status(folder, *NAMED, f"model.name={folder}/stories", stages, split, place) == 0
    return folder


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    return named_runs(tmp_path_factory.getbasetemp())


def test_a_run_and_the_cache_have_no_copy(folder):
    for number in (0, 1):
        assert "model.safetensors" not in files_below(folder / "outputs" / f"run{number}")
    cached = folder / "outputs" / "cache"
    assert not [path for path in cached.glob("model/*/*")]
    (kept,) = (cached / "pretrained").iterdir()
    n_bytes = sum(path.stat().st_size for path in cached.rglob("*") if path.is_file() and path != kept)
    assert n_bytes < kept.stat().st_size


def test_a_run_says_which_weights_it_had(folder):
    status = read_json(folder / "outputs" / "run0" / "status.json")
    weights = status["weights"]
    assert (weights["name"], weights["revision"]) == ("stories", None)
    assert weights["files"]["model.safetensors"] == file_hash(STORIES / "model.safetensors")
    (kept,) = (folder / "outputs" / "cache" / "pretrained").iterdir()
    read = ModelFile.read(kept)
    model = ModelFile(read.tensors, {key: text for key, text in read.header.items() if key != "sha256"})
    assert weights["sha256"] == model.hash
    with safe_open(folder / "outputs" / "run0" / "graph.safetensors", "pt") as file:
        assert file.metadata()["weights"] == model.hash


def test_the_hub_s_name_of_a_version(tmp_path):
    assert revision_of(tmp_path / "models--a--b" / "snapshots" / "0123abcd") == "0123abcd"
    assert revision_of(tmp_path / "a") is None


def compared(folder: Path, out: Path) -> None:
    runs = [str(folder / "outputs" / f"run{number}") for number in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stability.main([*runs, "--out", str(out)])


def test_features_of_such_runs_are_compared(folder, tmp_path):
    compared(folder, tmp_path / "out")
    assert (tmp_path / "out" / "stability.csv").is_file()


def test_other_weights_under_the_same_name_are_told(folder, tmp_path, capsys):
    """And found among those that were kept: by content, not by name."""
    other = tmp_path / "named"
    shutil.copytree(folder, other)
    for number in (0, 1):
        config = other / "outputs" / f"run{number}" / "config.yaml"
        config.write_text(config.read_text().replace(f"{folder}/stories", f"{other}/stories"))
    weights = other / "stories" / "model.safetensors"
    weights.chmod(0o644)
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(bytes(content))
    content_of.cache_clear()
    converted.cache_clear()
    with pytest.raises(SystemExit) as ended:
        compared(other, tmp_path / "out")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.name=stories has other weights than the run had" in line


def test_controls_have_weights_of_their_own(folder):
    place = "hydra.run.dir=outputs/shuffled"
    control = ("model.randomize=shuffled", "analysis.stages=[score]")
    assert exit_status(folder, *NAMED, f"model.name={folder}/stories", *control, place) == 0
    run = folder / "outputs" / "shuffled"
    weights = read_json(run / "status.json")["weights"]
    assert weights == {"sha256": ModelFile.read(run / "model.safetensors").hash, "file": "model.safetensors"}
    shutil.rmtree(run)
    shutil.rmtree(folder / "outputs" / "cache" / "model")
