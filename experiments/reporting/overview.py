"""A model's settings side by side: the keys that a sweep varied as columns, and what was measured of each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.config.method_schema import OWN_KEYS
from experiments.config.scores import ACCURACY, Score
from experiments.figures.groups import group_label, group_order
from experiments.figures.hyperparameter_values import ABSENT, Value, is_numeric, value_order, value_text
from experiments.figures.hyperparameters import SweptRun
from experiments.pipeline.metric_keys import TOTAL, tolerance_of
from experiments.reporting.comparison import Cell, entry_of
from experiments.reporting.finished_runs import FinishedRun
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
        options: by the name of a method, its own options of which its runs differ.
    """

    title: str
    keys: tuple[str, ...]
    settings: tuple[RunsOfSetting, ...]
    options: dict[str, tuple[str, ...]]

    @property
    def option_keys(self) -> tuple[str, ...]:
        """Options of any method, dotted."""
        return tuple(dict.fromkeys(f"method.{option}" for options in self.options.values() for option in options))

    def values_of(self, run: FinishedRun, setting: Setting) -> dict[str, Value]:
        """Of all keys that differ and that this run's method has."""
        options = {f"method.{name}": run.config["method"].get(name, ABSENT) for name in self.options[method_of(run)]}
        return {key: setting.get(key, ABSENT) for key in self.keys} | options

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
        options = swept_options([run for one in settings for run in one.runs])
        models.append(RunsOfModel(title, keys, tuple(ordered), options))
    return models


def method_of(run: FinishedRun) -> str:
    """What variants of one method have in common: its label, where it was given one, else its name."""
    part = run.config["method"]
    return part.get("label") or part["name"]


def swept_options(runs: Sequence[FinishedRun]) -> dict[str, tuple[str, ...]]:
    """By method, the options of which its runs differ."""
    parts: dict[str, list[Setting]] = {}
    for run in runs:
        part = {key: value for key, value in run.config["method"].items() if key not in OWN_KEYS}
        parts.setdefault(method_of(run), []).append(part)
    return {method: differing_keys(of_method) for method, of_method in parts.items()}


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
        found: dict[str, float] = {}
        for kind in CRITERIA:
            counted = (tolerance_of(name, kind) for run in runs for name in run.metrics)
            if tolerances := [tolerance for tolerance in counted if tolerance is not None]:
                found[kind] = min(tolerances)
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
    names = {name: None for other in setting.runs for name in other.metrics if tolerance_of(name, kind) == tolerance}
    layers = [name for name in names if not name.endswith(f"/{TOTAL}")] or list(names)
    counts = [run.metrics.get(name) for name in layers]
    present = [count for count in counts if count is not None]
    return sum(present) if present and len(present) == len(layers) else None


def swept_runs(model: RunsOfModel, main: MainMeasures) -> list[SweptRun]:
    """Every run with the values of the settings' keys; a variant of a method is a method of its own."""
    return [
        SweptRun(run.method, {key: one.setting.get(key, ABSENT) for key in model.keys}, main.measured(run, one))
        for one in model.settings
        for run in one.runs
    ]


def keys_together(model: RunsOfModel) -> dict[str, tuple[str, ...]]:
    """The settings' keys; by the first of those that tell the same settings apart, the others."""
    first: dict[tuple[int, ...], str] = {}
    found: dict[str, tuple[str, ...]] = {}
    for key in model.keys:
        texts = [value_text(one.setting.get(key, ABSENT)) for one in model.settings]
        parts = tuple(texts.index(text) for text in texts)
        key_of_parts = first.setdefault(parts, key)
        found[key_of_parts] = (*found[key_of_parts], key) if key_of_parts in found else ()
    return found


def runs_by_option(model: RunsOfModel, main: MainMeasures, key: str) -> list[SweptRun]:
    """Runs of the methods that have this option, variants of one method together."""
    return [
        SweptRun(method_of(run), values, main.measured(run, one))
        for one in model.settings
        for run in one.runs
        if key in (values := model.values_of(run, one.setting))
    ]


def overview_table(model: RunsOfModel, main: MainMeasures) -> Table:
    """A row for each setting and method: the keys that differ, how many runs, and their mean measures."""
    keys = (*model.keys, *model.option_keys)
    rows: list[tuple[Entry, ...]] = []
    for one in model.settings:
        for method in sorted({run.method for run in one.runs}, key=group_order):
            members = [run for run in one.runs if run.method == method]
            found = model.values_of(members[0], one.setting)
            values = [found.get(key, ABSENT) for key in keys]
            entries = [Entry(value_text(value), float(value) if is_numeric(value) else None) for value in values]
            measured = [main.measured(run, one) for run in members]
            means = [mean_entry([of_run[name] for of_run in measured if name in of_run]) for name in main.names()]
            rows.append((*entries, Entry(group_label(method)), Entry(str(len(members)), len(members)), *means))
    head = (*keys, "method", "n", *main.names())
    return Table("settings side by side", head, tuple(rows), n_left=len(keys) + 1)


def mean_entry(values: Sequence[float | int]) -> Entry:
    """Mean and spread of these values; a dash for none."""
    return entry_of(Cell(tuple(values)) if values else None)
