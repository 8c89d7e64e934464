"""A run owns its directory: nothing of anybody else's is touched, nothing of an earlier run's taken for its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import QUICK, assert_says, command, files_below, read_json, reused, tensors_of

from experiments.config.run_directory import held, refuse_second_run
from experiments.pipeline import recorded_run
from models.errors import UserError

SMALL = (*QUICK, "analysis.stages=[basis]")


class TestForeignFiles:
    @pytest.mark.parametrize(
        "name", ["figures/drawn_by_hand.png", "metrics.json", "checkpoint.pt", "notes", "status.json"]
    )
    def test_a_directory_with_files_that_no_run_left_is_refused(self, refused, tmp_path, name):
        (tmp_path / "mine" / name).parent.mkdir(parents=True)
        (tmp_path / "mine" / name).write_text("precious")
        line = refused(*SMALL, "hydra.run.dir=mine")
        assert_says(line, "hydra.run.dir=mine", f"holds {name.partition('/')[0]}", "expected an empty or a new one")
        assert (tmp_path / "mine" / name).read_text() == "precious"

    @pytest.mark.parametrize("here", [".", "''"])
    def test_so_is_the_folder_that_the_user_stands_in(self, refused, tmp_path, here):
        (tmp_path / "thesis.tex").write_text("precious")
        assert_says(refused(*SMALL, f"hydra.run.dir={here}"), "holds thesis.tex")

    def test_what_a_user_puts_beside_a_run_s_files_stays_when_the_directory_is_used_again(self, carry_out, tmp_path):
        assert carry_out(*QUICK, "hydra.run.dir=run") == 0
        for name in ("figures/mine.png", "my_notes.md"):
            (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "run" / name).write_text("precious")
        assert (tmp_path / "run" / "ablations.json").is_file()
        assert carry_out(*SMALL, "hydra.run.dir=run") == 0
        run = tmp_path / "run"
        assert not (run / "ablations.json").exists()
        assert not any(name.startswith("edges/") for name in tensors_of(run))
        assert [(run / name).read_text() for name in ("figures/mine.png", "my_notes.md")] == ["precious"] * 2
        listed = set(read_json(run / "status.json")["files"])
        assert listed | {"figures", "figures/mine.png", "my_notes.md"} == files_below(run)
        assert not listed & {"figures/mine.png", "my_notes.md"}

    def test_what_a_user_puts_there_while_a_run_goes_on_stays(self, carry_out, tmp_path, monkeypatch):
        pipeline = recorded_run.run_pipeline

        def disturbed(config, directory, *others):
            (directory / "my_notes.md").write_text("precious")
            return pipeline(config, directory, *others)

        monkeypatch.setattr(recorded_run, "run_pipeline", disturbed)
        assert carry_out(*SMALL, "hydra.run.dir=run") == 0
        assert carry_out(*SMALL, "hydra.run.dir=run", "seed=1") == 0
        assert "my_notes.md" not in read_json(tmp_path / "run" / "status.json")["files"]
        monkeypatch.setattr(recorded_run, "run_pipeline", pipeline)
        assert carry_out(*SMALL, "hydra.run.dir=run") == 0
        assert (tmp_path / "run" / "my_notes.md").read_text() == "precious"

    def test_the_cache_is_no_result_of_a_run_s(self, carry_out, tmp_path):
        place = ("hydra.run.dir=all", "output_directory=all")
        assert carry_out(*SMALL, *place) == 0
        assert carry_out(*SMALL, *place) == 0
        stages = ("model", "statistics", "basis", "identification")
        assert reused(tmp_path / "all") == dict.fromkeys(stages, True)

    def test_results_of_a_killed_run_are_not_taken_for_the_next_one_s(self, carry_out, tmp_path):
        run = tmp_path / "run"
        (run / "figures").mkdir(parents=True)
        for name in ("ablations.json", "figures/importance_spectrum.png", "figures/mine.png"):
            (run / name).write_text("{}")
        status = {"status": "running", "started": "now", "foreign": ["figures/mine.png"]}
        (run / "status.json").write_text(json.dumps(status))
        assert carry_out(*SMALL, "hydra.run.dir=run") == 0
        assert not (run / "ablations.json").exists()
        assert files_below(run) & {"figures/mine.png", "figures/importance_spectrum.png"} == {"figures/mine.png"}

    def test_two_runs_at_once_in_one_directory(self, carry_out, tmp_path, capsys):
        assert carry_out(*SMALL, "hydra.run.dir=run") == 0
        with held(tmp_path / "run", ""):
            assert carry_out(*SMALL, "hydra.run.dir=run") == 2
        assert_says(capsys.readouterr().out, "hydra.run.dir=", "run: another run is writing there")
        assert carry_out(*SMALL, "hydra.run.dir=run") == 0

    def test_where_hydra_writes_its_own_configuration(self, carry_out, tmp_path):
        assert carry_out(*SMALL, "hydra.run.dir=run", "hydra.output_subdir=.hydra") == 0
        assert (tmp_path / "run" / ".hydra" / "overrides.yaml").is_file()
        assert carry_out(*SMALL, "hydra.run.dir=run", "hydra.output_subdir=.hydra") == 0

    def test_a_file_that_hydra_would_write_over_in_a_sweep_s_folder(self, carry_out, refused, tmp_path, capsys):
        for _ in range(2):
            assert carry_out("-m", *SMALL, "seed=0,1", "hydra.sweep.dir=another") == 0
        (tmp_path / "sweep").mkdir()
        (tmp_path / "sweep" / "multirun.yaml").write_text("precious")
        capsys.readouterr()
        line = refused("-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep")
        assert_says(line, "hydra.sweep.dir=sweep", "multirun.yaml", "expected another directory")
        assert (tmp_path / "sweep" / "multirun.yaml").read_text() == "precious"

    def test_a_method_s_name_stays_within_the_outputs(self, refused):
        function = "+method.function=libcore.methods.neuron:fit_neuron"
        assert_says(
            refused(*SMALL, "method=neuron", "method.name='../../x'", function),
            "method.name=../../x",
            "expected letters",
        )

    def test_an_input_within_the_run_s_own_directory_is_refused(self, carry_out, refused, capsys):
        assert carry_out(*SMALL, "hydra.run.dir=run") == 0
        capsys.readouterr()
        line = refused(*SMALL, "hydra.run.dir=run", "model.checkpoint=run/model.safetensors")
        assert_says(line, "model.checkpoint=run/model.safetensors", "the run's own directory", "expected another")

    def test_two_runs_of_a_sweep_with_one_directory(self, carry_out, tmp_path, capsys):
        place = ("hydra.sweep.dir=sweep", "hydra.sweep.subdir=same")
        assert carry_out("-m", *SMALL, "method=lib,pca", *place) == 2
        assert_says(
            capsys.readouterr().err, "hydra.sweep.subdir=same", "runs 0 and 1 of the sweep would both write there"
        )
        assert not (tmp_path / "sweep").exists()

    def test_two_runs_of_a_sweep_whose_directories_are_known_only_when_they_begin(self, tmp_path):
        (tmp_path / "status.json").write_text('{"status": "finished", "sweep": "/reports/one", "job": 0}')
        refuse_second_run(tmp_path, "/reports/one", 0)
        refuse_second_run(tmp_path, "/reports/two", 1)
        with pytest.raises(UserError, match=r"hydra\.sweep\.subdir: two runs of the sweep have the directory"):
            refuse_second_run(tmp_path, "/reports/one", 1)


def test_relative_paths_mean_the_user_s_folder_also_where_hydra_changes_into_the_run_s(carry_out, tmp_path):
    assert carry_out(*SMALL, "hydra.run.dir=first") == 0
    (tmp_path / "weights.safetensors").write_bytes((tmp_path / "first" / "model.safetensors").read_bytes())
    moved = ("hydra.job.chdir=true", "hydra.run.dir=second", "model.checkpoint=weights.safetensors")
    assert carry_out(*SMALL, *moved) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second", "outputs", "weights.safetensors"}
    assert not (tmp_path / "second" / "outputs").exists()


def test_without_a_log_there_is_none(carry_out, tmp_path, capsys):
    assert carry_out(*SMALL, "hydra/job_logging=disabled", "hydra.run.dir=quiet") == 0
    assert not (tmp_path / "quiet" / "run.log").exists()
    assert (tmp_path / "quiet" / "metrics.json").is_file()


def test_a_narrow_terminal_and_a_notebook_s_backend_end_no_run(tmp_path: Path) -> None:
    """The final table holds signs that ASCII has not, and matplotlib would look for a notebook's backend."""
    environment = {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "module://no_such_backend"}
    stages = "analysis.stages=[basis,figures]"
    done = command(tmp_path, "-m", *QUICK, stages, "seed=0,1", "hydra.sweep.dir=sweep", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "(n=2)" in done.stdout
    assert len(list(tmp_path.glob("sweep/*/*/*/*/figures/*.png"))) == 2
