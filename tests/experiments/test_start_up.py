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
