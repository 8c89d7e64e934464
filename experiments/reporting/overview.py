"""A model's settings side by side: the keys that a sweep varied as columns, and what was measured of each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.config.scores import ACCURACY, Score
from experiments.figures.groups import group_label, group_order
from experiments.figures.hyperparameter_values import ABSENT, is_numeric, value_order, value_text
from experiments.figures.hyperparameters import SweptRun
from experiments.reporting.comparison import Cell, entry_of
from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.metric_keys import TOTAL, parse_metric
from experiments.reporting.settings import Setting, differing_keys, setting_of, setting_title
from experiments.reporting.tables import Entry, Table
from experiments.reporting.verdicts import CRITERIA


@dataclass(frozen=True)
class RunsOfSetting:
    """Runs that are averaged, and what they have in common."""

    setting: Setting
    runs: tuple[FinishedRun, ...]


@dataclass(frozen=True)
class RunsOfModel:
    """All runs of one model.

    Attributes:
        title: what the model is called.
        keys: dotted, of which its settings differ.
        settings: in the order of the keys' values.
    """

    title: str
    keys: tuple[str, ...]
    settings: tuple[RunsOfSetting, ...]

    def title_of(self, setting: Setting) -> str:
        """The model and the setting's values of the keys that differ."""
        return setting_title(self.title, setting, self.keys)


def by_model(groups: Sequence[Sequence[FinishedRun]]) -> list[RunsOfModel]:
    """Groups of averaged runs, those of one model together, models by name."""
    of_model: dict[str, list[RunsOfSetting]] = {}
    for runs in groups:
        of_model.setdefault(runs[0].model_title, []).append(RunsOfSetting(setting_of(runs[0]), tuple(runs)))
    models = []
    for title, settings in sorted(of_model.items()):
        keys = differing_keys([one.setting for one in settings])
        ordered = sorted(settings, key=lambda one: [value_order(one.setting.get(key, ABSENT)) for key in keys])
        models.append(RunsOfModel(title, keys, tuple(ordered)))
    return models


@dataclass(frozen=True)
class MainMeasures:
    """What overviews show of every run, by the names of their columns.

    Attributes:
        score: title of the test score.
        tolerances: the tightest one at which any run counted, by what was counted.
    """

    score: str
    tolerances: dict[str, float]

    @classmethod
    def of(cls, runs: Sequence[FinishedRun], score: Score | None) -> MainMeasures:
        """Those that these runs have."""
        parsed = [parse_metric(name) for run in runs for name in run.metrics]
        found = {
            kind: min(key.tolerance for key in parsed if key.kind == f"{kind}/needed" and key.tolerance is not None)
            for kind in CRITERIA
            if any(key.kind == f"{kind}/needed" and key.tolerance is not None for key in parsed)
        }
        return cls(f"test {(score or ACCURACY).title if score else 'score'}", found)

    def names(self) -> tuple[str, ...]:
        """In the order of the columns."""
        needed = (f"{kind} needed, {tolerance:g}" for kind, tolerance in self.tolerances.items())
        return (self.score, *needed, "modularity")

    def measured(self, run: FinishedRun, setting: RunsOfSetting) -> dict[str, float | int]:
        """What this run has of them; counts are sums over all node layers that runs of its setting have."""
        values: dict[str, float | int | None] = {self.score: run.metrics.get("score/test")}
        for kind, tolerance in self.tolerances.items():
            values[f"{kind} needed, {tolerance:g}"] = total_needed(run, setting, kind, tolerance)
        values["modularity"] = run.metrics.get("graph/modularity")
        return {name: value for name, value in values.items() if value is not None}


def total_needed(run: FinishedRun, setting: RunsOfSetting, kind: str, tolerance: float) -> float | int | None:
    """The sum over node layers, else the total that the run itself gives; None where a layer was not counted."""
    names = {
        name: key.layer
        for other in setting.runs
        for name in other.metrics
        if (key := parse_metric(name)).kind == f"{kind}/needed" and key.tolerance == tolerance
    }
    layers = [name for name, layer in names.items() if layer != TOTAL] or list(names)
    counts = [run.metrics.get(name) for name in layers]
    present = [count for count in counts if count is not None]
    return sum(present) if present and len(present) == len(layers) else None


def swept_runs(model: RunsOfModel, main: MainMeasures) -> list[SweptRun]:
    """Every run with the values of the keys that differ."""
    return [
        SweptRun(run.method, {key: one.setting.get(key, ABSENT) for key in model.keys}, main.measured(run, one))
        for one in model.settings
        for run in one.runs
    ]


def overview_table(model: RunsOfModel, main: MainMeasures) -> Table:
    """A row for each setting and method: the keys that differ, how many runs, and their mean measures."""
    rows: list[tuple[Entry, ...]] = []
    for one in model.settings:
        values = [one.setting.get(key, ABSENT) for key in model.keys]
        entries = [Entry(value_text(value), float(value) if is_numeric(value) else None) for value in values]
        for method in sorted({run.method for run in one.runs}, key=group_order):
            measured = [main.measured(run, one) for run in one.runs if run.method == method]
            cells = [
                Cell(tuple(of_run[name] for of_run in measured if name in of_run))
                if any(name in of_run for of_run in measured)
                else None
                for name in main.names()
            ]
            n = Entry(str(len(measured)), float(len(measured)))
            rows.append((*entries, Entry(group_label(method)), n, *map(entry_of, cells)))
    head = (*model.keys, "method", "n", *main.names())
    return Table("settings side by side", head, tuple(rows), n_left=len(model.keys) + 1)
