"""What Weights & Biases is told is what the run's own files say; a tracker that fails takes nothing with it."""

from __future__ import annotations

import math

import pytest
import wandb
import yaml
from offline_run import OfflineRun, read_offline_run
from running import QUICK, files_below, full_run, quick_run, read_json, run_here

from experiments.config.schema import TrackingConfig
from experiments.pipeline import tracking
from experiments.pipeline.tracking import TrackedRun, check_tracking, track
from models.errors import UserError


def tracker(mode: str) -> TrackingConfig:
    return TrackingConfig(mode=mode, project="toys", group=None, tags=[])


def read_only_run(directory) -> OfflineRun:
    (path,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    return read_offline_run(path)


class TestOffline:
    @pytest.fixture
    def full(self, tmp_path_factory):
        return full_run(tmp_path_factory.getbasetemp())

    @pytest.fixture
    def logged(self, full) -> OfflineRun:
        return read_only_run(full)

    def test_the_summary_is_metrics_json_key_by_key(self, full, logged):
        metrics = read_json(full / "metrics.json")
        assert logged.summary.keys() - MEDIA == metrics.keys()
        for key, value in metrics.items():
            assert logged.summary[key] == value, key

    def test_the_configuration_is_config_yaml(self, full, logged):
        assert logged.config == yaml.safe_load((full / "config.yaml").read_text())

    def test_name_project_group_and_tags(self, logged):
        run = logged.run
        assert (run.display_name, run.project, run.run_group) == (
            "modular_addition-lib-seed0",
            "local-interaction-basis",
            "together",
        )
        assert sorted(run.tags) == ["lib", "modular_addition", "toy"]

    def test_the_run_has_ended_well(self, logged):
        assert logged.exit_code == 0

    def test_curves_are_tables_of_what_ablations_json_says(self, full, logged):
        ablations = read_json(full / "ablations.json")
        for kind in ("node_ablation", "edge_ablation"):
            table = read_json(logged_file(full, logged, f"curves/{kind}", "table-file"))
            assert table["columns"] == ["layer", "kept", "score"]
            expected = {
                (layer, int(kept), score) for layer, scores in ablations[kind].items() for kept, score in scores.items()
            }
            assert {tuple(row) for row in table["data"]} == expected
            assert len(table["data"]) == len(expected)

    def test_figures_are_images_and_the_graph_s_page_is_a_page(self, full, logged):
        for name in FIGURES:
            kind = "html-file" if name == "graph" else "image-file"
            suffix = "html" if name == "graph" else "png"
            kept = logged_file(full, logged, f"figures/{name}", kind)
            assert kept.read_bytes() == (full / "figures" / f"{name}.{suffix}").read_bytes()

    def test_everything_was_logged_in_one_step(self, logged):
        (step,) = logged.history
        assert step.keys() == MEDIA


FIGURES = ("importance_spectrum", "node_ablation", "edge_ablation", "interaction_graph", "communities", "graph")
MEDIA = {"curves/node_ablation", "curves/edge_ablation", *(f"figures/{name}" for name in FIGURES)}


def logged_file(run, logged: OfflineRun, key: str, kind: str):
    """The file of one media entry of the history, among those that would be uploaded."""
    entry = logged.history[0][key]
    assert entry["_type"] == kind
    (folder,) = run.glob("wandb/offline-run-*/files")
    return folder / entry["path"]


class TestOneSmallRun:
    """The tracker by itself."""

    def tracked(self, **changes) -> TrackedRun:
        content = {"name": "run", "tags": [], "group": None, "config": {}, "metrics": {"score/test": 0.5}}
        return TrackedRun(**(content | {"curves": {}, "figures": {}, "pages": {}} | changes))

    def test_no_group_and_nothing_but_numbers(self, tmp_path):
        assert track(tracker("offline"), self.tracked(), tmp_path) == "logged"
        logged = read_only_run(tmp_path)
        assert logged.summary == {"score/test": 0.5}
        assert logged.run.run_group == ""

    def test_a_number_that_json_has_no_word_for(self, tmp_path):
        """`metrics.json` says null; W&B may leave it out or say NaN, as long as the run is logged."""
        metrics = {"score/test": 0.5, "edges/hoyer/output": math.nan}
        assert track(tracker("offline"), self.tracked(metrics=metrics), tmp_path) == "logged"
        assert read_only_run(tmp_path).summary["score/test"] == 0.5

    def test_a_long_table_goes_over_many_blocks(self, tmp_path):
        config = {f"key{number}": "x" * 1000 for number in range(100)}
        assert track(tracker("offline"), self.tracked(config=config), tmp_path) == "logged"
        assert read_only_run(tmp_path).config == config

    def test_disabled_leaves_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("a tracker was started"))
        assert track(tracker("disabled"), self.tracked(), tmp_path) == "disabled"
        assert files_below(tmp_path) == set()


class TestTroubleWithTheTracker:
    @pytest.mark.parametrize("where", ["init", "Table"])
    def test_the_run_s_files_are_complete(self, tmp_path_factory, monkeypatch, caplog, where):
        def fail(**_):
            raise OSError("no luck today")

        monkeypatch.setattr(wandb, where, fail)
        quick = quick_run(tmp_path_factory.getbasetemp())
        run = run_here(quick.parents[1], f"untracked_{where}", *QUICK, "tracking.mode=offline")
        assert files_below(quick) <= files_below(run)
        assert read_json(run / "metrics.json") == pytest.approx(read_json(quick / "metrics.json"), rel=1e-12)
        (warning,) = [record for record in caplog.records if record.name == "experiments.pipeline.tracking"]
        assert warning.levelname == "WARNING"
        assert "no luck today" in warning.getMessage()
        assert wandb.run is None

    def test_a_tracker_that_fails_is_named(self, tmp_path, monkeypatch):
        def fail(*_):
            raise RuntimeError("no luck")

        monkeypatch.setattr(tracking, "log_to_wandb", fail)
        run = TrackedRun("run", [], None, {}, {}, {}, {}, {})
        assert track(tracker("offline"), run, tmp_path) == "failed: no luck"


class TestAccounts:
    @pytest.fixture(autouse=True)
    def _nowhere_logged_in(self, tmp_path, monkeypatch):
        for variable in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))

    @pytest.mark.parametrize("mode", ["offline", "disabled"])
    def test_none_is_needed(self, mode):
        check_tracking(tracker(mode))

    def test_online_without_one_is_refused(self):
        with pytest.raises(UserError, match=r"tracking\.mode=online: .* expected `wandb login`"):
            check_tracking(tracker("online"))

    def test_a_key_in_the_environment(self, monkeypatch):
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        check_tracking(tracker("online"))

    @pytest.mark.parametrize("name", [".netrc", "_netrc", "elsewhere"])
    def test_an_account_in_a_netrc(self, tmp_path, monkeypatch, name):
        (tmp_path / name).write_text(f"machine api.wandb.ai\n  login user\n  password {'x' * 40}\n")
        (tmp_path / name).chmod(0o600)
        if name == "elsewhere":
            monkeypatch.setenv("NETRC", str(tmp_path / name))
        check_tracking(tracker("online"))

    def test_an_account_at_another_service_is_none(self, tmp_path, monkeypatch):
        (tmp_path / ".netrc").write_text("machine wandb.example.org login user password x\n")
        (tmp_path / ".netrc").chmod(0o600)
        with pytest.raises(UserError):
            check_tracking(tracker("online"))
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
        check_tracking(tracker("online"))
