"""The comparison as one Weights & Biases run: its tables, figures and page; nothing else of reporting imports wandb."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config.schema import TrackingConfig
from experiments.figures.hyperparameter_values import value_text
from experiments.pipeline.tracking import open_run
from experiments.pipeline.tracking_service import mode_now, wandb_module
from experiments.reporting.contents import Report
from experiments.reporting.long_table import OF_THE_METRIC, OF_THE_RUN, long_columns, long_rows
from experiments.reporting.tables import Entry, Table
from libcore.messages import first_line
from models.errors import UserError


def log_report(report: Report, out: Path, project: str | None = None) -> Path | None:
    """One run below `out`, in the mode of WANDB_MODE, else offline: `wandb sync` uploads it later.

    Logged are `report/metrics`, every metric of every run; `report/<model>`, settings and methods side by side with
    numbers as numbers; figures; the page. Returns the run's folder, None where W&B is disabled. Raises UserError where
    W&B refuses; the report's files are complete by then.
    """
    tracking = TrackingConfig(
        mode=None, project=project, entity=None, name=None, group=None, tags=[], notes=None, artifacts=False
    )
    if (mode := mode_now(tracking)) == "disabled":
        return None
    directories = [str(row[0].text) for section in report.sections for row in section.runs.rows]
    name = f"report-{out.resolve().name}"
    run = open_run(tracking, mode, out, name=name, job_type="report", tags=["report"], config={"runs": directories})
    if run is None:
        raise UserError(f"--wandb: no W&B run could be begun; the report is in {out}")
    folder = Path(run.settings.sync_dir)
    wandb = wandb_module()
    try:
        tables = {name: wandb.Table(columns=columns, data=rows) for name, (columns, rows) in logged(report).items()}
        figures = {
            f"figures/{Path(address).stem}": wandb.Image(str(out / address))
            for part in (*report.models, *report.sections)
            for address in part.figures.values()
        }
        page = wandb.Html((out / "report.html").read_text(encoding="utf-8"), inject=False)
        run.log(tables | figures | {"report/page": page})
        run.finish()
    except Exception as error:  # whatever the service does, the report's own files are complete and stay so
        raise UserError(f"--wandb: {first_line(error)}; the report is in {out}") from error
    return folder


def logged(report: Report) -> dict[str, tuple[list[Any], list[Any]]]:
    """Columns and rows by the table's name; a column has one type, as W&B asks."""
    models = [model.runs for model in report.models]
    first, last = len(OF_THE_RUN), -len(OF_THE_METRIC)
    rows = [[*row[:first], *map(text_of, row[first:last]), *map(floating, row[last:])] for row in long_rows(models)]
    found: dict[str, tuple[list[Any], list[Any]]] = {"report/metrics": (long_columns(models), rows)}
    for model in report.models:
        (table, *_) = model.short_tables().values()
        found[f"report/{model.title}"] = (list(table.head), [numbers_of(table, row) for row in table.rows])
    return found


def numbers_of(table: Table, row: Sequence[Entry]) -> list[Any]:
    """What names the row as texts, what was measured as numbers: means over runs."""
    return [entry.text if index < table.n_left else floating(entry.value) for index, entry in enumerate(row)]


def text_of(value: Any) -> str | None:
    """A configuration's value, which may be of different types in different runs."""
    return None if value is None else value_text(value)


def floating(value: Any) -> Any:
    """Whole numbers as floating-point ones, texts as they are."""
    return float(value) if isinstance(value, int) else value
