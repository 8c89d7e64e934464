"""However a file of somebody else's is reached, it stays as it is: links, sweeps, Hydra's keys, commands' `--out`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from running import QUICK, assert_says, few_settings, files_below, read_json, reused, write_run

from experiments import import_published, report, reproduce, stability
from experiments.benchmark import main as benchmark
from experiments.config.own_folder import own_folder
from experiments.pipeline import run_pipeline
from experiments.pipeline.json_files import write_text
from models.errors import UserError

SMALL = (*QUICK, "analysis.stages=[basis]")


@pytest.fixture
def mine(tmp_path) -> Path:
    """A folder of the user's with files of names that runs and reports write."""
    folder = tmp_path / "mine"
    for name in ("interaction_graph.png", "metrics.csv", "report.md", "stability.csv", "benchmark.md", "config.yaml"):
        write_text(folder / name, "precious")
    return folder


@pytest.fixture(autouse=True)
def stays(request, tmp_path):
    """Whatever a test does, the user's files are as they were."""
    yield
    if "mine" in request.fixturenames:
        found = {path.read_text() for path in (tmp_path / "mine").iterdir() if path.is_file()}
        assert found == {"precious"}
        assert len(list((tmp_path / "mine").iterdir())) == 6


class TestRuns:
    @pytest.mark.parametrize("name", ["figures", "wandb", "run.log"])
    def test_a_link_out_of_a_run_s_directory(self, carry_out, refused, tmp_path, mine, name, capsys):
        assert carry_out(*SMALL, "hydra.run.dir=run") == 0
        capsys.readouterr()
        path = tmp_path / "run" / name
        path.unlink(missing_ok=True)
        path.symlink_to(mine / "report.md" if name == "run.log" else mine)
        line = refused(*SMALL, "hydra.run.dir=run")
        assert_says(line, "hydra.run.dir=run", f"{name} in it leads elsewhere")

    @pytest.mark.parametrize("name", ["metrics.json", "status.json", "graph.safetensors"])
    def test_a_result_that_is_a_link_is_replaced_and_not_written_through(self, carry_out, tmp_path, mine, name):
        assert carry_out(*SMALL, "hydra.run.dir=run") == 0
        path, target = tmp_path / "run" / name, tmp_path / "moved"
        path.rename(target)
        path.symlink_to(target)
        before = target.read_bytes()
        assert carry_out(*SMALL, "hydra.run.dir=run", "seed=1") == 0
        assert target.read_bytes() == before
        assert not path.is_symlink()

    def test_a_link_as_the_directory(self, refused, tmp_path, mine):
        (tmp_path / "linked").symlink_to(mine)
        assert_says(refused(*SMALL, "hydra.run.dir=linked"), "holds ", "is no run's directory")

    @pytest.mark.parametrize("name", ["../mine", "mine/..", ".", "figures", "wandb"])
    def test_where_hydra_writes_its_own_configuration(self, refused, mine, name):
        line = refused(*SMALL, "hydra.run.dir=run", f"hydra.output_subdir={name}")
        assert_says(line, f"hydra.output_subdir={name}", "expected the name of a folder in the run's directory")
        line = refused("-m", *SMALL, "hydra.sweep.dir=sweep", f"hydra.output_subdir={name}")
        assert_says(line, f"hydra.output_subdir={name}")

    def test_a_folder_of_the_name_that_hydra_would_write_in(self, refused, tmp_path, mine):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mine").symlink_to(mine)
        assert_says(refused(*SMALL, "hydra.run.dir=run", "hydra.output_subdir=mine"), "holds mine")

    @pytest.mark.parametrize("subdir", ["mine", "../mine", "."])
    def test_directories_of_a_sweep(self, refused, tmp_path, mine, subdir):
        place = {"mine": ".", "../mine": "sweep", ".": "mine"}[subdir]
        line = refused("-m", *SMALL, f"hydra.sweep.dir={place}", f"hydra.sweep.subdir={subdir}")
        assert_says(line, "hydra.sweep.subdir: ", "holds ")

    def test_an_output_directory_with_files_of_its_names(self, carry_out, tmp_path, mine):
        (tmp_path / "out" / "cache").mkdir(parents=True)
        (tmp_path / "out" / "cache" / "statistics").symlink_to(mine)
        for name in ("notes", "model.safetensors"):
            (tmp_path / "out" / "cache" / name).write_text("precious")
        assert carry_out(*SMALL, "output_directory=out") == 0
        assert {(tmp_path / "out" / "cache" / name).read_text() for name in ("notes", "model.safetensors")} == {
            "precious"
        }
        shutil.rmtree(tmp_path / "mine" / next(p.name for p in mine.iterdir() if p.is_dir()))
        next(p for p in mine.iterdir() if p.suffix == ".lock").unlink()

    def test_an_empty_folder_of_the_user_s_stays(self, carry_out, tmp_path):
        assert carry_out(*SMALL, "hydra.run.dir=run") == 0
        (tmp_path / "run" / "thoughts").mkdir()
        assert carry_out(*SMALL, "hydra.run.dir=run") == 0
        assert (tmp_path / "run" / "thoughts").is_dir()


class TestEarlierResults:
    """They give way once the new run has its model and its data, and not before."""

    @pytest.fixture
    def run(self, carry_out, tmp_path) -> Path:
        assert carry_out(*QUICK, "hydra.run.dir=run") == 0
        return tmp_path / "run"

    def contents(self, run: Path) -> dict[str, bytes]:
        return {name: (run / name).read_bytes() for name in files_below(run) if name != "run.log"}

    def test_a_checkpoint_that_does_not_fit_touches_none(self, carry_out, run, tmp_path, capsys, monkeypatch):
        before = self.contents(run)
        (tmp_path / "weights.pt").write_text("none")
        # As where the file changes after the command's own check.
        monkeypatch.setattr("experiments.config.model_checks.check_runs", lambda runs: None)
        assert carry_out(*QUICK, "hydra.run.dir=run", "model.checkpoint=weights.pt") == 2
        assert self.contents(run) == before
        assert_says(capsys.readouterr().out, "model.checkpoint=weights.pt", "as the run before left it")
        assert carry_out(*SMALL, "hydra.run.dir=run") == 0
        assert "ablations.json" not in files_below(run)

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a defect"), UserError("no such text")])
    @pytest.mark.parametrize("where", ["model_stage", "with_data"])
    def test_nor_does_a_training_that_is_interrupted(self, carry_out, run, monkeypatch, error, where):
        before = self.contents(run)

        def fail(*_):
            raise error

        monkeypatch.setattr(run_pipeline, where, fail)
        assert carry_out(*QUICK, "hydra.run.dir=run", "seed=1") != 0
        assert self.contents(run) == before

    def test_a_run_that_fails_later_leaves_none_of_them(self, carry_out, run, monkeypatch):
        def fail(*_):
            raise RuntimeError("a defect")

        monkeypatch.setattr(run_pipeline, "analyse", fail)
        assert carry_out(*QUICK, "hydra.run.dir=run", "seed=1") == 1
        assert files_below(run) == {"status.json", "run.log", "config.yaml"}
        assert read_json(run / "status.json")["status"] == "failed"

    def test_a_job_that_failed_early_has_no_results_of_another_in_its_report(self, carry_out, tmp_path, monkeypatch):
        place = ("hydra.sweep.dir=sweep", "hydra.sweep.subdir=${seed}")
        assert carry_out("-m", *SMALL, "seed=0,1", *place) == 0

        def fail(*_):
            raise RuntimeError("a defect")

        monkeypatch.setattr(run_pipeline, "model_stage", fail)
        assert carry_out("-m", *SMALL, "seed=0,1", *place) == 1
        assert len(list((tmp_path / "sweep" / "reports").glob("*/report.md"))) == 1
        assert all(read_json(tmp_path / "sweep" / str(seed) / "status.json")["status"] == "finished" for seed in (0, 1))


class TestOut:
    @pytest.fixture
    def run(self, tmp_path) -> str:
        return str(write_run(tmp_path / "runs" / "a", few_settings("lib", 0)))

    def refusal_of(self, call, capsys) -> str:
        with pytest.raises((SystemExit, UserError)) as ended:
            call()
        if isinstance(ended.value, UserError):
            return str(ended.value)
        assert ended.value.code == 2
        return capsys.readouterr().err

    @pytest.mark.parametrize("command", ["report", "stability", "import_published", "benchmark"])
    @pytest.mark.parametrize("out", ["mine", "linked", "."])
    def test_a_folder_of_somebody_else_s(self, tmp_path, mine, run, capsys, monkeypatch, command, out):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "linked").mkdir()
        (tmp_path / "linked" / "figures").symlink_to(mine)
        (tmp_path / "clone").mkdir()
        (tmp_path / "clone" / "a_rib_graph.pt").write_text("none")
        calls = {
            "report": lambda: report.main([run, "--out", out]),
            "stability": lambda: stability.main([run, run, "--out", out]),
            "import_published": lambda: import_published.main(["clone", "--out", out]),
            "benchmark": lambda: benchmark(["stages", "--quick", "--out", out]),
        }
        before = files_below(tmp_path)
        line = self.refusal_of(calls[command], capsys)
        assert_says(line, f"--out {out}", "leads elsewhere" if out != "mine" else "which no command wrote")
        assert files_below(tmp_path) == before

    def test_a_report_s_own_folder_is_used_again_and_files_put_there_stay(self, tmp_path, run, capsys):
        out = tmp_path / "report"
        report.main([run, "--out", str(out)])
        (out / "notes.md").write_text("precious")
        report.main([run, "--out", str(out), "--latex"])
        report.main([run, "--out", str(out)])
        assert (out / "notes.md").read_text() == "precious"
        assert {"report.md", "report.tex"} <= set(read_json(out / "written.json")["files"])
        assert "notes.md" not in read_json(out / "written.json")["files"]

    def test_a_file_put_there_under_a_name_that_is_to_be_written(self, tmp_path, run, capsys):
        out = tmp_path / "report"
        report.main([run, "--out", str(out)])
        (out / "report.tex").write_text("precious")
        line = self.refusal_of(lambda: report.main([run, "--out", str(out), "--latex"]), capsys)
        assert_says(line, "report.tex: somebody else's file, which would be written over")
        assert (out / "report.tex").read_text() == "precious"

    def test_files_are_anybody_s_again_behind_the_block(self, tmp_path):
        with own_folder(tmp_path / "out", "--out"):
            write_text(tmp_path / "out" / "a", "own")
        (tmp_path / "out" / "b").write_text("precious")
        with own_folder(tmp_path / "out", "--out"), pytest.raises(UserError):
            write_text(tmp_path / "out" / "b", "own")
        write_text(tmp_path / "out" / "b", "own")

    def test_a_page_of_somebody_else_s(self, tmp_path, mine, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        line = self.refusal_of(lambda: reproduce.main(["--no-runs", "--out", "mine/report.md"]), capsys)
        assert_says(line, "--out mine/report.md: not written by this command")

    def test_pictures_beside_the_page(self, tmp_path):
        page, pictures = tmp_path / "page.md", tmp_path / "reproduction"
        pictures.mkdir()
        for name in ("mine.png", "own.png"):
            (pictures / name).write_text("x")
        write_text(page, "# Reproduction\n\n![](reproduction/own.png)\n")
        assert reproduce.foreign_beside(page) == [pictures / "mine.png"]


def test_a_directory_that_is_used_again_reuses_the_cache(carry_out, tmp_path):
    assert carry_out(*SMALL, "hydra.run.dir=run") == 0
    assert carry_out(*SMALL, "hydra.run.dir=run") == 0
    assert all(reused(tmp_path / "run").values())
