"""What each command imports that takes long: by name, and only what it uses."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import QUICK, TOY, command

HEAVY = {
    "hydra": 0.13,
    "igraph": 0.5,
    "jinja2": 0.03,
    "matplotlib": 0.4,
    "networkx": 0.1,
    "optuna": 0.4,
    "pandas": 0.4,
    "PIL": 0.03,
    "pydantic": 0.05,  # `models` has its schema
    "rich": 0.12,
    "scipy": 0.1,
    "sklearn": 0.5,
    "sympy": 0.3,
    "torch": 1.3,
    "torch._dynamo": 1.0,
    "torchvision": 1.5,
    "transformer_lens": 10.0,
    "transformers": 1.0,
    "triton": 0.1,
    "wandb": 0.35,
    "wandb.apis.public": 0.5,
    "wandb.sdk.launch": 0.5,
}
"""Modules, and about how many seconds each takes to import."""
IMPORTED = """
import atexit, pathlib, runpy, sys
heavy = {heavy!r}
atexit.register(lambda: pathlib.Path("imported").write_text(" ".join(name for name in heavy if name in sys.modules)))
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


def imported_by(folder: Path, module: str, *arguments: str) -> set[str]:
    """The heavy modules that a command has imported when it ends."""
    done = command(folder, *arguments, program=("-c", IMPORTED.format(heavy=sorted(HEAVY), module=module)))
    assert done.returncode == 0, done.stderr
    return set((folder / "imported").read_text().split())


@pytest.mark.parametrize("arguments", [("--help",), ("--cfg", "job"), ("--info", "defaults-tree")])
def test_what_a_run_says_of_itself(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert imported_by(tmp_path, "experiments.run", *arguments) == {"hydra", "pydantic"}


@pytest.mark.parametrize(
    ("module", "mode"),
    [
        ("experiments.report", ()),
        ("experiments.benchmark", ()),
        ("experiments.benchmark", ("stages",)),
        ("experiments.reproduce", ()),
        ("experiments.stability", ()),
    ],
)
def test_help_of_the_other_commands(tmp_path: Path, module: str, mode: tuple[str, ...]) -> None:
    assert imported_by(tmp_path, module, *mode, "--help") == {"pydantic"}


OF_ANY_RUN = {"hydra", "pydantic", "torch"}
OF_TRAINING = {"sympy", "torch._dynamo", "triton"}
"""What torch's optimizers import at their first step: only a run that trains."""


def test_a_refused_run(tmp_path: Path) -> None:
    program = ("-c", IMPORTED.format(heavy=sorted(HEAVY), module="experiments.run"))
    assert command(tmp_path, "dtype=float16", program=program).returncode == 2
    assert set((tmp_path / "imported").read_text().split()) <= OF_ANY_RUN


class TestRuns:
    """Of the toy; igraph, for communities, brings matplotlib, and that PIL."""

    def test_without_figures_and_tracker(self, tmp_path):
        first = imported_by(tmp_path, "experiments.run", *QUICK, "hydra.run.dir=first")
        assert first - OF_TRAINING == OF_ANY_RUN | {"igraph", "matplotlib", "PIL"}
        again = imported_by(tmp_path, "experiments.run", *QUICK, "hydra.run.dir=second")
        assert again == OF_ANY_RUN, "what is found again imports nothing to compute it"
        anew = imported_by(tmp_path, "experiments.run", *QUICK, "hydra.run.dir=third", "analysis.n_examples=20")
        assert anew == OF_ANY_RUN | {"igraph", "matplotlib", "PIL"}, "stages without training import no compiler"

    def test_with_a_tracker(self, tmp_path):
        offline = (*TOY, "analysis.stages=[basis]", "tracking.mode=offline")
        assert imported_by(tmp_path, "experiments.run", *offline) - OF_TRAINING == OF_ANY_RUN | {"wandb"}

    def test_with_everything_and_its_report(self, tmp_path):
        drawing = {"jinja2", "matplotlib", "PIL"}
        run = (*TOY, "tracking.mode=offline", "hydra.run.dir=run")
        found = imported_by(tmp_path, "experiments.run", *run)
        assert found - OF_TRAINING == OF_ANY_RUN | drawing | {"igraph", "wandb"}
        assert imported_by(tmp_path, "experiments.run", *run) == OF_ANY_RUN | drawing | {"wandb"}
        assert imported_by(tmp_path, "experiments.report", "run") == {*drawing, "pydantic", "rich", "torch"}
