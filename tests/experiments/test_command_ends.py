"""How commands end: causes in one line, signals, a full disk, what killed processes left."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time

import pytest
import torch
from running import QUICK, config_of, read_json

from experiments.causes import DISK, user_cause
from experiments.command_end import told_in_one_line
from experiments.config.run_directory import STATUS, refuse_foreign, sweep_temporaries
from experiments.interruptions import (
    SIGNALS,
    Interruption,
    end_in_order,
    exit_status_of,
    interrupt,
    reason_of,
    uninterrupted,
)
from experiments.pipeline import recorded_run, status_file
from experiments.pipeline.cache_entry import sweep_temporaries as sweep_entry
from experiments.pipeline.status_file import ROOM, begin_status, end_status
from libcore.tensor_files import write_tensors
from models.errors import UserError


@pytest.fixture(autouse=True)
def handlers():
    """As they were before each test."""
    before, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


class TestCauses:
    @pytest.mark.parametrize("number", sorted(DISK))
    def test_what_the_operating_system_says_is_told_with_the_place(self, number):
        line = user_cause(OSError(number, os.strerror(number), "some/file"))
        assert line is not None
        assert line.startswith(f"some/file: {DISK[number]}")
        assert "\n" not in line

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 800 bytes.\nx"
            ),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            RuntimeError("std::bad_alloc"),
        ],
    )
    def test_memory_is_told_with_what_to_change(self, error):
        line = user_cause(error)
        assert line is not None
        assert "analysis.memory_budget" in line
        assert "\n" not in line

    def test_how_much_was_wanted_is_told(self):
        assert "for 2.00 GiB;" in str(
            user_cause(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
        )

    def test_a_file_has_the_name_that_users_know_it_by(self, tmp_path, monkeypatch):
        """No folder above the current one, which `status.json` would keep, and no half-written file's."""
        monkeypatch.chdir(tmp_path)
        half_written = str(tmp_path / "runs" / ".graph.safetensors.12.tmp")
        line = str(user_cause(OSError(errno.EFBIG, "too large", half_written)))
        assert line.startswith("runs/graph.safetensors: larger than a file may be here")

    def test_a_cause_behind_another_error_is_found(self):
        error = ValueError("the stage failed")
        error.__cause__ = RuntimeError("while writing")
        error.__cause__.__context__ = OSError(errno.ENOSPC, "full", "a")
        assert str(user_cause(error)).startswith("a: no space left")

    @pytest.mark.parametrize(
        "error",
        [ValueError("x"), KeyError("no space"), RuntimeError("shape"), FileNotFoundError(2, "no such file", "a")],
    )
    def test_a_defect_has_none(self, error):
        assert user_cause(error) is None

    def test_safetensors_says_where(self, tmp_path):
        with pytest.raises(OSError, match="missing") as raised:
            write_tensors(tmp_path / "missing" / "a.safetensors", {"x": torch.ones(2)}, {})
        assert raised.value.errno == errno.ENOENT


def ended(error: BaseException | None, capsys) -> tuple[object, str]:
    code = 0
    try:
        with told_in_one_line("the same command goes on"):
            if error is not None:
                raise error
    except SystemExit as left:
        code = left.code
    return code, capsys.readouterr().err


class TestCommandEnd:
    @pytest.mark.parametrize(
        ("error", "status", "line"),
        [
            (None, 0, ""),
            (UserError("no such thing"), 2, "error: no such thing\n"),
            (OSError(errno.ENOSPC, "full", "out"), 2, "error: out: no space left on the disk"),
            (KeyboardInterrupt(), 130, "interrupted: the same command goes on\n"),
            (Interruption(signal.SIGTERM), 143, "asked to end (SIGTERM): the same command goes on\n"),
            (Interruption(signal.SIGHUP), 129, "its terminal was closed (SIGHUP): the same command goes on\n"),
        ],
    )
    def test_status_and_line(self, capsys, error, status, line):
        code, said = ended(error, capsys)
        assert code == status
        assert said.startswith(line)
        assert said.count("\n") == bool(line)

    def test_a_defect_says_that_it_is_one_behind_its_traceback(self, capsys):
        code, said = ended(ZeroDivisionError("x"), capsys)
        assert code == 1
        assert "Traceback" in said
        assert said.splitlines()[-1] == "this is a bug: ZeroDivisionError; the lines above say where"


class TestSignals:
    @pytest.mark.parametrize("number", SIGNALS)
    def test_each_raises_and_tells_its_number(self, number):
        end_in_order()
        with pytest.raises(Interruption) as raised:
            signal.raise_signal(number)
        assert (raised.value.number, exit_status_of(raised.value)) == (number, 128 + number)
        assert reason_of(raised.value)

    def test_a_second_signal_does_not_disturb_the_first_one_s_end(self):
        end_in_order()
        with pytest.raises(Interruption):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(Interruption):  # a person may press Ctrl-C again
            signal.raise_signal(signal.SIGINT)

    def test_one_that_comes_within_a_destructor_comes_again(self):
        class Slow:
            def __del__(self) -> None:
                signal.raise_signal(signal.SIGTERM)

        end_in_order()

        def run() -> None:
            one = Slow()
            del one
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                time.sleep(0.01)

        with pytest.raises(Interruption) as raised:
            run()
        assert raised.value.number == signal.SIGTERM

    def test_one_that_is_ignored_stays_so(self):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        end_in_order()
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) is interrupt

    def test_what_must_be_whole_is_not_interrupted(self):
        end_in_order()
        done = []

        def write() -> None:
            with uninterrupted():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("whole")

        with pytest.raises(Interruption):
            write()
        assert done == ["whole"]


class TestStatus:
    def test_a_run_s_end_is_told_where_the_disk_has_no_room(self, tmp_path, monkeypatch):
        begin_status(tmp_path, {"status": "running", "started": "today", "foreign": []})
        assert (tmp_path / STATUS).stat().st_size == ROOM

        def full(path, content):
            raise OSError(errno.ENOSPC, "full", str(path))

        monkeypatch.setattr(status_file, "write_json", full)
        end_status(tmp_path, {"status": "failed", "started": "today", "reason": "é" * 5000, "files": ["x"] * 5000})
        content = read_json(tmp_path / STATUS)
        assert (content["status"], content["started"]) == ("failed", "today")
        assert (tmp_path / STATUS).stat().st_size == ROOM

    @pytest.mark.parametrize(
        ("error", "outcome", "status", "reason"),
        [
            (OSError(errno.EDQUOT, "quota", "cache"), "refused", "failed", "cache: the disk quota is used up"),
            (MemoryError(), "refused", "failed", "not enough of this machine's memory"),
            (ZeroDivisionError("x"), "failed", "failed", "ZeroDivisionError: x"),
        ],
    )
    def test_a_run_tells_its_causes(self, tmp_path, monkeypatch, caplog, error, outcome, status, reason):
        def fail(*arguments):
            raise error

        monkeypatch.setattr(recorded_run, "run_pipeline", fail)
        assert recorded_run.carry_out(config_of(*QUICK), tmp_path) == outcome
        content = read_json(tmp_path / STATUS)
        assert content["status"] == status
        assert content["reason"].startswith(reason)
        assert any("this is a bug" in line and "run.log" in line for line in caplog.messages) is (outcome == "failed")

    @pytest.mark.parametrize("number", SIGNALS)
    def test_a_signal_is_written_down(self, tmp_path, monkeypatch, number):
        def come(*arguments):
            signal.raise_signal(number)

        end_in_order()
        monkeypatch.setattr(recorded_run, "run_pipeline", come)
        with pytest.raises(Interruption):
            recorded_run.carry_out(config_of(*QUICK), tmp_path)
        assert read_json(tmp_path / STATUS)["status"] == "interrupted"
        assert read_json(tmp_path / STATUS)["reason"] == reason_of(Interruption(number))

    def test_a_signal_before_the_pipeline_is_written_down_too(self, tmp_path, monkeypatch):
        end_in_order()
        monkeypatch.setattr(recorded_run, "own_commit", lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interruption):
            recorded_run.carry_out(config_of(*QUICK), tmp_path)
        assert read_json(tmp_path / STATUS)["status"] == "interrupted"


def test_a_run_that_was_killed_with_its_first_status_half_written_can_be_repeated(tmp_path):
    (tmp_path / ".status.json.123.tmp").write_text('{"sta')
    (tmp_path / "run.log").touch()
    refuse_foreign(tmp_path, "hydra.run.dir=")
    sweep_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.log"]
    (tmp_path / ".notes.txt.123.tmp").touch()
    with pytest.raises(UserError, match=r"holds \.notes\.txt\.123\.tmp"):
        refuse_foreign(tmp_path, "hydra.run.dir=")


def test_what_a_killed_stage_left_goes_and_what_another_writes_stays(tmp_path):
    entry = tmp_path / "model" / "abc"
    for name in (".abc.1.tmp", ".abd.1.tmp"):
        (tmp_path / "model" / name).mkdir(parents=True)
        (tmp_path / "model" / name / "values.json").write_text("{}")
    for name in (".abc.training.safetensors.2.tmp", ".abd.training.safetensors.2.tmp", "abc.training.safetensors"):
        (tmp_path / "model" / name).write_text("")
    sweep_entry(entry)
    assert {path.name for path in entry.parent.iterdir()} == {
        ".abd.1.tmp",
        ".abd.training.safetensors.2.tmp",
        "abc.training.safetensors",
    }


def test_what_a_killed_run_left_half_written_is_swept_and_nothing_else(tmp_path):
    (tmp_path / "figures").mkdir()
    ours = ("figures/.graph.png.123.tmp", ".metrics.json.99999.tmp", ".status.json.1.tmp")
    others = (".notes.txt.123.tmp", "metrics.json.123.tmp", ".metrics.json.tmp", "figures/mine.tmp")
    for name in (*ours, *others):
        (tmp_path / name).write_text(json.dumps({}))
    link = tmp_path / ".config.yaml.7.tmp"
    link.symlink_to(tmp_path / "figures")
    sweep_temporaries(tmp_path)
    assert not any((tmp_path / name).exists() for name in ours)
    assert all((tmp_path / name).exists() for name in others)
    assert link.is_symlink()
