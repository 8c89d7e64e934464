"""What a command's process is set up for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from running import REPOSITORY

COUNTED = """
import gc
collections = []
gc.callbacks.append(lambda phase, info: collections.append(info["generation"]) if phase == "start" else None)
from {module} import main
try:
    main()
except SystemExit:
    pass
gc.collect()
collections.clear()
kept = [[] for _ in range(10_000)]
print(len(collections), gc.get_freeze_count())
import atexit
atexit._run_exitfuncs()
print(gc.get_freeze_count() > 10_000)
"""


@pytest.mark.parametrize("module", ["experiments.run", "experiments.report"])
def test_ten_thousand_objects_are_not_gone_over_and_none_when_the_process_ends(module):
    code = COUNTED.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.splitlines()[-2:] == ["0 0", "True"]


ENDED = """
import atexit, sys, threading, time
from experiments.start_up import process_of
class TakenApart:
    def __del__(self): print("taken apart", flush=True)
kept = TakenApart()
kept.itself = kept
def later():
    time.sleep(0.2)
    print("thread ended")
atexit.register(print, "exit function")
def main():
    threading.Thread(target=later).start()
    {ends}
process_of(main)
"""


@pytest.mark.parametrize(
    ("ends", "status", "taken_apart"),
    [
        ("pass", 0, False),
        ("sys.exit()", 0, False),
        ("sys.exit(3)", 3, False),
        ("sys.exit('why')", 1, True),
        ("1 / 0", 1, True),
    ],
)
def test_a_process_ends_with_its_status_after_threads_and_exit_functions(ends, status, taken_apart):
    code = ENDED.format(ends=ends)
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == status
    assert done.stdout.splitlines()[:2] == ["thread ended", "exit function"]
    assert ("taken apart" in done.stdout) is taken_apart
    assert ("why" in done.stderr) == ("why" in ends)
    assert ("ZeroDivisionError" in done.stderr) == ("1 / 0" in ends)
