"""Every metric of every run in long form: a row each, as data frames take it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.figures.hyperparameter_values import ABSENT, value_text
from experiments.pipeline.metric_keys import parse_metric
from experiments.reporting.overview import RunsOfModel
from experiments.reporting.run_files import shown_path

OF_THE_RUN = ("model", "method", "seed", "half")
OF_THE_METRIC = ("metric", "kind", "tolerance", "layer", "value", "directory")


def long_columns(models: Sequence[RunsOfModel]) -> list[str]:
    """Keys that differ between any model's settings stand between what a run is and what was measured."""
    keys = dict.fromkeys(key for model in models for key in (*model.keys, *model.option_keys))
    return [*OF_THE_RUN, *keys, *OF_THE_METRIC]


def long_rows(models: Sequence[RunsOfModel]) -> Iterator[list[Any]]:
    """A row for each run and metric; what is not there is None."""
    keys = long_columns(models)[len(OF_THE_RUN) : -len(OF_THE_METRIC)]
    for model in models:
        for one in model.settings:
            for run in one.runs:
                values = one.setting | model.values_of(run, one.setting)
                of_keys = [plain(values.get(key)) for key in keys]
                for name, value in run.metrics.items():
                    key = parse_metric(name)
                    of_metric = [name, key.kind, key.tolerance, key.layer, value, shown_path(run.directory)]
                    yield [model.title, run.method, run.seed, run.half, *of_keys, *of_metric]


def plain(value: Any) -> Any:
    """Texts and numbers as they are, others as one writes them."""
    return None if value is None or value == ABSENT else value_text(value) if isinstance(value, bool | list) else value


def to_long_csv(models: Sequence[RunsOfModel]) -> str:
    """The table as CSV; what is not there is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(long_columns(models))
    writer.writerows(long_rows(models))
    return buffer.getvalue()
