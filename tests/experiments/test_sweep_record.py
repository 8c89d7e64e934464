"""A sweep as it stands on disk: every job's last word, those that ended without one, and what a second call redoes."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace

import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.config.run_directory import held
from experiments.sweeps import parallel_jobs
from experiments.sweeps.ending import exit_status
from experiments.sweeps.objective import best_of, direction_of
from experiments.sweeps.parallel_jobs import SLOTS, THREADS, share_out_cores, slot
from experiments.sweeps.record import Job, SweepRecord, forget_skipped, resumed
from models.errors import UserError


@pytest.fixture
def record(tmp_path, monkeypatch) -> SweepRecord:
    monkeypatch.delenv(SLOTS, raising=False)
    return SweepRecord(tmp_path / "reports" / "one")


def job(number: int, status: str = "finished", **changes) -> Job:
    return replace(Job(number, (f"seed={number}",), f"runs/{number}", status), **changes)


def test_the_last_word_on_every_job_counts(record):
    for entry in (job(1, "started"), job(0, "started"), job(1), job(0, "failed")):
        record.note(entry)
    assert record.jobs() == [job(0, "failed"), job(1)]


def test_what_killed_sweeps_left_half_written_goes_when_it_is_old(record):
    killed, foreign = SweepRecord(record.folder.with_name("killed")), record.folder.with_name("notes")
    killed.begin([], 1, None, None)
    (killed.folder / "figures").mkdir()
    foreign.mkdir()
    old = [killed.folder / "figures" / ".graph.png.12.tmp", killed.folder / ".report.md.12.tmp"]
    stays = [killed.folder / ".metrics.csv.13.tmp", killed.folder / "mine.tmp", foreign / ".report.md.12.tmp"]
    for path in (*old, *stays):
        path.write_text("half")
    for path in (*old, *stays[1:]):
        os.utime(path, (time.time() - 4000,) * 2)
    record.sweep_beside()
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in stays)


def test_a_job_that_ended_without_a_word_was_killed(record, tmp_path):
    record.begin([], 3, None, None)
    record.note(job(0))
    record.note(job(1, "started", directory=str(tmp_path)))
    found = record.ended()
    assert [(one.number, one.status) for one in found] == [(0, "finished"), (1, "killed"), (2, "lost")]
    assert found[1].reason == "its process ended without a word"
    assert exit_status(found) == 1


def test_a_job_that_goes_on_is_waited_for(record, tmp_path):
    record.begin([], 1, None, None)
    record.note(job(0, "started", directory=str(tmp_path)))
    has_lock = threading.Event()

    def run() -> None:
        with held(tmp_path, ""):
            has_lock.set()
            time.sleep(1)
            record.note(job(0, directory=str(tmp_path)))

    thread = threading.Thread(target=run)
    thread.start()
    has_lock.wait()
    assert [one.status for one in record.ended()] == ["finished"]
    thread.join()


def test_a_job_that_says_a_moment_later_how_it_came_out_was_not_killed(record, tmp_path, monkeypatch):
    record.begin([], 1, None, None)
    record.note(job(0, "started", directory=str(tmp_path)))
    monkeypatch.setattr(time, "sleep", lambda _: record.note(job(0, directory=str(tmp_path))))
    assert [one.status for one in record.ended()] == ["finished"]


def test_what_a_search_found_before_it_was_resumed_is_kept(record, tmp_path):
    record.begin([], None, None, None)
    found = job(0, overrides=("seed=5",), directory=str(tmp_path))
    for entry in (found, job(1, "failed", overrides=("seed=6",)), job(0), job(1)):
        record.note(entry)
    assert record.ended() == [job(0), job(1), found]
    (tmp_path / "status.json").write_text(json.dumps({"status": "finished"}))
    assert record.finished(("seed=5",)) == found


def test_a_directory_that_was_used_again_is_no_earlier_job_s(record):
    for entry in (job(0, overrides=("seed=5",)), job(0)):
        record.note(entry)
    assert record.drawn_before() == []


@pytest.mark.parametrize(("names", "is_removed"), [((), True), (("run.log",), True), (("run.log", "notes"), False)])
def test_a_skipped_job_s_directory_is_removed_if_it_holds_nothing_else(tmp_path, names, is_removed):
    directory = tmp_path / "run"
    directory.mkdir()
    for name in names:
        (directory / name).touch()
    forget_skipped(directory)
    assert directory.exists() is not is_removed


def test_only_a_job_whose_run_still_says_so_has_finished(record, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    done = job(0, directory=str(run))
    record.note(done)
    assert record.finished(done.overrides) is None
    (run / "status.json").write_text(json.dumps({"status": "finished"}))
    assert record.finished(done.overrides) == done
    assert record.finished(("seed=7",)) is None
    (run / "status.json").write_text(json.dumps({"status": "finished", "sweep": str(tmp_path / "another")}))
    assert record.finished(done.overrides) is None
    (run / "status.json").write_text(json.dumps({"status": "finished", "sweep": str(record.folder)}))
    assert record.finished(done.overrides) == done
    (run / "status.json").write_text(json.dumps({"status": "interrupted"}))
    assert record.finished(done.overrides) is None


class TestResuming:
    def test_a_report_s_folder_and_the_one_it_lies_in(self, record, tmp_path):
        record.begin(["-m", "seed=0,1"], 2, None, None)
        SweepRecord(tmp_path / "reports" / "none").note(job(0))
        assert resumed(record.folder) == resumed(tmp_path) == record
        assert record.content()["arguments"] == ["-m", "seed=0,1"]

    @pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"arguments": 1}'])
    def test_what_holds_no_sweep(self, tmp_path, content):
        if content is not None:
            (tmp_path / "sweep.json").write_text(content)
        with pytest.raises(UserError, match=r"--resume .* holds no sweep; expected the folder of a sweep's report"):
            resumed(tmp_path).content()


def launcher(name: str, **options) -> DictConfig:
    return OmegaConf.create({"_target_": f"hydra_plugins.{name}"} | options)


class TestCores:
    @pytest.fixture(autouse=True)
    def _four_cores(self, monkeypatch):
        for name in (THREADS, SLOTS):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        monkeypatch.setattr(parallel_jobs.os, "cpu_count", lambda: 4)

    @pytest.mark.parametrize(
        ("n_jobs", "of_sweep", "threads"), [(-1, 6, "1"), (2, 6, "2"), (-1, 1, "4"), (8, 8, "1"), (-3, 9, "2")]
    )
    def test_joblib_s_jobs_share_them(self, n_jobs, of_sweep, threads):
        share_out_cores(launcher("JoblibLauncher", n_jobs=n_jobs), of_sweep)
        assert parallel_jobs.os.environ[THREADS] == threads
        assert SLOTS not in parallel_jobs.os.environ

    @pytest.mark.parametrize(
        ("per_task", "of_sweep", "threads", "slots"), [(None, 6, "1", "4"), (2, 6, "2", "2"), (None, 2, "2", "2")]
    )
    def test_submitit_s_local_jobs_wait_for_each_other(self, per_task, of_sweep, threads, slots):
        of_sweep_launcher = launcher("LocalLauncher", cpus_per_task=per_task, timeout_min=60)
        share_out_cores(of_sweep_launcher, of_sweep)
        assert of_sweep_launcher.timeout_min > 60
        assert (parallel_jobs.os.environ[THREADS], parallel_jobs.os.environ[SLOTS]) == (threads, slots)

    def test_what_the_user_has_set_stays(self, monkeypatch):
        monkeypatch.setenv(THREADS, "3")
        share_out_cores(launcher("JoblibLauncher", n_jobs=4), 4)
        assert parallel_jobs.os.environ[THREADS] == "3"

    def test_a_time_limit_of_the_user_s_stays(self):
        limited = launcher("LocalLauncher", cpus_per_task=None, timeout_min=5)
        share_out_cores(limited, 2, is_timeout_given=True)
        assert limited.timeout_min == 5

    def test_one_job_after_the_other_has_all(self):
        share_out_cores(launcher("BasicLauncher"), 4)
        assert THREADS not in parallel_jobs.os.environ

    def test_a_cluster_s_job_uses_what_it_was_given(self, monkeypatch, tmp_path):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
        with slot(tmp_path):
            assert parallel_jobs.os.environ[THREADS] == "3"

    def test_no_more_jobs_run_than_there_are_slots(self, monkeypatch, tmp_path):
        monkeypatch.setenv(SLOTS, "2")
        monkeypatch.setattr(parallel_jobs, "SECONDS_BETWEEN_LOOKS", 0.01)
        running, most, lock = 0, 0, threading.Lock()

        def work() -> None:
            nonlocal running, most
            with slot(tmp_path):
                with lock:
                    running += 1
                    most = max(most, running)
                time.sleep(0.05)
                with lock:
                    running -= 1

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 2


class TestObjective:
    @pytest.mark.parametrize(
        ("key", "lower_is_better", "direction"),
        [
            ("edges/needed_0.001/total", False, "minimize"),
            ("features/needed_0.01/layers.0", False, "minimize"),
            ("score/test", False, "maximize"),
            ("score/test", True, "minimize"),
            ("graph/modularity", True, "maximize"),
            ("edges/hoyer/layers.0", False, "maximize"),
            ("edges/mass99/layers.0", False, "minimize"),
            ("time/basis", False, "minimize"),
        ],
    )
    def test_which_way_is_better(self, key, lower_is_better, direction):
        assert direction_of(key, lower_is_better) == direction

    def test_the_best_job(self):
        jobs = [
            job(0, objective=3.0),
            job(1, objective=None),
            job(2, objective=1.0),
            job(3, objective=1.0),
            job(4, objective=float("nan")),
        ]
        assert best_of(jobs, "minimize") == jobs[2]
        assert best_of(jobs, "maximize") == jobs[0]
        assert best_of(jobs[1:2], "minimize") is None
