"""What several processes compute together is what one computes, whatever share each has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from libcore import processes

SCRIPT = Path(__file__).parent / "computed_together.py"


def computed_in(n_processes: int, folder: Path) -> dict[str, Tensor]:
    """By as many as `torchrun` starts."""
    path = folder / f"{n_processes}.safetensors"
    run_in(n_processes, SCRIPT, path)
    return load_file(path)


def run_in(n_processes: int, script: Path, *arguments: object) -> None:
    """A script, to its good end."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_processes}"]
    command = [sys.executable, *(launcher if n_processes > 1 else []), str(script), *map(str, arguments)]
    paths = os.pathsep.join(str(SCRIPT.parents[number]) for number in (0, 2))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Tensor]:
    return computed_in(1, folder)


@pytest.mark.parametrize("n_processes", [2, 3])
def test_several_compute_what_one_does(alone: dict[str, Tensor], folder: Path, n_processes: int) -> None:
    """Seven examples: shares are uneven."""
    together = computed_in(n_processes, folder)
    assert set(together) == set(alone)
    for name, expected in alone.items():
        assert together[name].shape == expected.shape, name
        difference = (together[name].double() - expected.double()).abs().max().item() if expected.numel() else 0.0
        assert difference <= 1e-10 * max(1.0, expected.abs().max().item() if expected.numel() else 0.0), name


LEAVING = """
import sys, time
from pathlib import Path
from libcore import processes
with processes.joined():
    rank = processes.rank()
    time.sleep(0.0 if rank else 1.0)
    ready = time.time()
Path(sys.argv[1], str(rank)).write_text(f"{ready} {time.time()}")
"""


def test_all_leave_together(tmp_path: Path) -> None:
    """One that has nothing more to do does not end while the others still may need what it holds."""
    script = tmp_path / "leaving.py"
    script.write_text(LEAVING)
    run_in(2, script, tmp_path)
    (ready_first, _), (_, left_second) = (map(float, (tmp_path / name).read_text().split()) for name in "01")
    assert left_second >= ready_first


class TestInOneProcess:
    def test_nothing_is_shared_out(self) -> None:
        assert (processes.count(), processes.rank()) == (1, 0)
        assert list(processes.own(5)) == [0, 1, 2, 3, 4]
        assert processes.gathered(["a", "b"], 2) == ["a", "b"]
        assert processes.merged({3: "c"}) == {3: "c"}
        assert processes.from_first("this") == "this"
        numbers = torch.arange(3.0)
        assert processes.summed(numbers) is numbers

    def test_no_group_is_formed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        with processes.joined():
            assert not torch.distributed.is_initialized()
