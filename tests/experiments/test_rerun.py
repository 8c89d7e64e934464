"""A run says what its results were, by hash, and is repeated from its own directory, to the last bit."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import pytest
import yaml
from running import QUICK, TOY, assert_says, exit_status, files_below, read_json, reused
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from models.content_hashes import file_hash
from models.weights import ModelFile

HOME = "telling_name"
RUN = "outputs/run"


@cache
def finished(base: Path) -> Path:
    """A home with a run of a checkpoint, given by absolute path, in it; not to be changed."""
    home = base / HOME
    home.mkdir()
    assert exit_status(home, *QUICK, "hydra.run.dir=trained") == 0
    shutil.copy(home / "trained" / "model.safetensors", home / "weights.safetensors")
    places = (f"model.checkpoint={home}/weights.safetensors", f"data.root={home}/data", f"output_directory={home}/all")
    assert exit_status(home, *TOY, "tracking.mode=disabled", *places, f"hydra.run.dir={RUN}") == 0
    return home


@pytest.fixture
def home(tmp_path_factory) -> Path:
    return finished(tmp_path_factory.getbasetemp())


@pytest.fixture
def copied(home, tmp_path) -> Path:
    """A copy of the trained run alone, in a folder of its own."""
    shutil.copytree(home / "trained", tmp_path / "trained")
    return tmp_path


class TestHashes:
    def test_of_every_result(self, home):
        run = home / RUN
        status = read_json(run / "status.json")
        assert set(status["hashes"]) == set(status["files"]) - {"status.json", "run.log"}
        assert {"figures/graph.html", "graph.safetensors"} <= set(status["hashes"])
        for name, found in status["hashes"].items():
            assert file_hash(run / name) == found

    def test_of_the_weights_that_the_graph_belongs_to(self, home):
        run = home / RUN
        weights = read_json(run / "status.json")["weights"]
        assert weights == {"sha256": ModelFile.read(run / "model.safetensors").hash, "file": "model.safetensors"}
        with safe_open(run / "graph.safetensors", "pt") as file:
            assert file.metadata()["weights"] == weights["sha256"]


class TestPaths:
    @pytest.mark.parametrize("pattern", ["graph.safetensors", "model.safetensors", "*.json", "figures/*"])
    def test_no_folder_of_the_user_s_in_results(self, home, pattern):
        run, n_files = home / RUN, 0
        for path in run.glob(pattern):
            if path.name != "status.json":
                n_files += 1
                assert HOME.encode() not in path.read_bytes(), path
        assert n_files

    def test_the_graph_has_the_names_alone(self, home):
        with safe_open(home / RUN / "graph.safetensors", "pt") as file:
            config = json.loads(file.metadata()["config"])
        assert config["model"]["checkpoint"] == "weights.safetensors"
        assert config["data"] == {"root": None, "path": None}
        assert not {"output_directory", "tracking"} & set(config)
        kept = yaml.safe_load((home / RUN / "config.yaml").read_text())
        assert {key: value for key, value in config["analysis"].items() if value != kept["analysis"][key]} == {}

    def test_equal_runs_elsewhere_have_equal_graphs(self, home, tmp_path):
        other = tmp_path / "other"
        other.mkdir()
        shutil.copy(home / "weights.safetensors", other)
        checkpoint = "model.checkpoint=weights.safetensors"
        assert exit_status(other, *QUICK, checkpoint, "hydra.run.dir=run") == 0
        assert (
            exit_status(home, *QUICK, f"model.checkpoint={home}/weights.safetensors", f"hydra.run.dir={tmp_path}/here")
            == 0
        )
        graphs = [(folder / "graph.safetensors").read_bytes() for folder in (other / "run", tmp_path / "here")]
        assert graphs[0] == graphs[1]


class TestRerun:
    def test_is_the_same_to_the_last_bit_without_the_cache(self, home, tmp_path, capsys):
        assert exit_status(home, "--rerun", RUN, "--out", str(tmp_path / "again")) == 0
        lines = capsys.readouterr().out.splitlines()
        hashes = read_json(home / RUN / "status.json")["hashes"]
        assert {f"{name}: the same" for name in hashes if name != "timings.json"} <= set(lines)
        assert_says(lines[-1], "again: the same results as ", RUN)
        again = read_json(tmp_path / "again" / "status.json")["hashes"]
        assert {name for name in hashes if again[name] != hashes[name]} == {
            "timings.json",
            "metrics.json",
            "config.yaml",
        }
        assert not any(reused(tmp_path / "again").values())
        assert (tmp_path / "again" / "run.log").stat().st_size

    def test_training_is_done_again_and_with_the_cache_it_is_not(self, home, capsys):
        before = files_below(home / "outputs" / "cache")
        assert exit_status(home, "--rerun", "trained", "--out", "fresh") == 0
        assert files_below(home / "outputs" / "cache") == before
        assert exit_status(home, "--rerun", "trained", "--out", "cached", "--use-cache") == 0
        assert all(reused(home / "cached").values())
        assert not any(reused(home / "fresh").values())
        for name in ("fresh", "cached"):
            shutil.rmtree(home / name)

    def test_from_any_folder_relative_paths_mean_what_they_meant(self, home, tmp_path, capsys):
        shutil.copytree(home, tmp_path / "moved")
        assert exit_status(tmp_path / "moved", *QUICK, "model.checkpoint=weights.safetensors", "hydra.run.dir=a/b") == 0
        (tmp_path / "elsewhere").mkdir()
        assert exit_status(tmp_path / "elsewhere", "--rerun", str(tmp_path / "moved" / "a" / "b")) == 0
        assert files_below(tmp_path / "elsewhere") == set()
        assert len(list((tmp_path / "moved" / "outputs" / "reruns").iterdir())) == 1

    def test_what_differs_is_said(self, copied, capsys):
        """A run whose files are another seed's, with hashes to match."""
        run = copied / "trained"
        graph = load_file(run / "graph.safetensors")
        with safe_open(run / "graph.safetensors", "pt") as file:
            header = file.metadata()
        name = next(name for name in graph if name.startswith("gram/"))
        graph[name][0, 0] += 0.5
        save_file(graph, run / "graph.safetensors", header)
        metrics = read_json(run / "metrics.json")
        metrics["score/test"] += 1
        (run / "metrics.json").write_text(json.dumps(metrics))
        (run / "features.json").unlink()
        (run / "ablations.json").write_text("{}")
        status = read_json(run / "status.json")
        for changed in ("graph.safetensors", "metrics.json"):
            status["hashes"][changed] = file_hash(run / changed)
        status["environment"]["python"] = "2.7"
        (run / "status.json").write_text(json.dumps(status))
        assert exit_status(copied, "--rerun", "trained") == 1
        said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
        assert said["graph.safetensors"] == f"1 of {len(graph)} tensors differ, by up to 0.5 ({name})"
        assert_says(said["metrics.json"], "1 of ", "such as score/test: ", " then, ", " now")
        assert_says(said["features.json"], "only in ")
        assert_says(said["ablations.json"], "changed in ", "since the run")
        assert said["model.safetensors"] == said["config.yaml"] == "the same"
        assert_says(said["python"], "2.7 then")

    def test_threads_are_those_that_the_run_had(self, copied, monkeypatch):
        chosen: list[int] = []
        monkeypatch.setattr("torch.set_num_threads", chosen.append)
        status = read_json(copied / "trained" / "status.json")
        status["environment"]["threads"] = 3
        (copied / "trained" / "status.json").write_text(json.dumps(status))
        exit_status(copied, "--rerun", "trained")
        assert chosen[0] == 3

    @pytest.mark.parametrize("found", ["none", "unfinished", "without hashes"])
    def test_what_is_no_finished_run(self, copied, capsys, found):
        path = copied / "trained" / "status.json"
        status = read_json(path)
        if found == "none":
            path.unlink()
        else:
            change = {"status": "failed"} if found == "unfinished" else {"hashes": None}
            path.write_text(json.dumps(status | change))
        assert exit_status(copied, "--rerun", "trained") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert_says(line, "error: --rerun ", f"found {found}")

    def test_into_somebody_else_s_folder(self, copied, capsys):
        (copied / "mine").mkdir()
        (copied / "mine" / "notes").write_text("precious")
        assert exit_status(copied, "--rerun", "trained", "--out", "mine") == 2
        assert_says(capsys.readouterr().err, "holds notes and is no run's directory")
        assert files_below(copied / "mine") == {"notes"}

    def test_a_checkpoint_that_is_gone(self, home, tmp_path, capsys):
        shutil.copytree(home / RUN, tmp_path / "run")
        config = tmp_path / "run" / "config.yaml"
        config.write_text(config.read_text().replace(f"{home}/weights", f"{home}/nowhere"))
        assert exit_status(tmp_path, "--rerun", "run") == 2
        assert_says(capsys.readouterr().err, "model.checkpoint=", "no such file")
