"""What a report says, before it is written in any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.config.scores import ACCURACY
from experiments.evidence.corrections import HOLM, Correction
from experiments.figures.groups import group_order
from experiments.reporting.comparison import Comparison, compare, metrics_table, short_table
from experiments.reporting.comparison_pages import write_comparison_pages
from experiments.reporting.evidence_halves import halves_part
from experiments.reporting.evidence_intervals import intervals_table
from experiments.reporting.evidence_rows import EvidenceRow, evidence_of
from experiments.reporting.evidence_tables import Evidence, NotedTable, evidence_part, shown
from experiments.reporting.finished_runs import FinishedRun, UnfinishedRun, tell_apart
from experiments.reporting.overview import MainMeasures, RunsOfModel, RunsOfSetting, by_model, overview_table
from experiments.reporting.report_figures import Figures, draw_setting, draw_swept_keys
from experiments.reporting.run_files import shown_path
from experiments.reporting.section_text import notes_of, runs_table, score_of
from experiments.reporting.settings import identity
from experiments.reporting.tables import Table
from experiments.reporting.verdicts import totals_table, verdicts

MOST_DRAWN = 12
"""Settings whose own figures are drawn: a setting's take 4 s and 1 MB (measured on the block-diagonal model)."""


@dataclass(frozen=True)
class Section:
    """One setting: runs that are averaged, methods side by side.

    Attributes:
        stem: what files of this section have in their names; empty where there is one section alone.
        verdicts: sentences, a list.
        pages: addresses of graphs beside each other, by what they show.
        notes: sentences; names of keys and files stand between backticks.
        totals: None for a single method, or where nothing was counted.
        evidence: None where no two methods ran on a same model, and no run has intervals.
    """

    title: str
    stem: str
    comparison: Comparison
    verdicts: tuple[str, ...]
    notes: tuple[str, ...]
    totals: Table | None
    short: Table
    metrics: Table
    runs: Table
    figures: Figures
    evidence: Evidence | None
    pages: Figures = field(default_factory=dict)


@dataclass(frozen=True)
class ModelPart:
    """One model; with several settings these are compared first."""

    runs: RunsOfModel
    overview: Table | None
    figures: Figures
    sections: tuple[Section, ...]

    @property
    def title(self) -> str:
        """What the model is called."""
        return self.runs.title

    def short_tables(self) -> dict[str, Table]:
        """What is enough for a terminal, by title."""
        if self.overview is not None and len(self.sections) > 1:
            return {self.title: self.overview}
        return {section.title: section.short for section in self.sections}


@dataclass(frozen=True)
class Report:
    """All that was found.

    Attributes:
        unfinished: directory and reason of every run without results.
    """

    models: tuple[ModelPart, ...]
    unfinished: list[str] = field(default_factory=list)

    @property
    def sections(self) -> list[Section]:
        """Of all models."""
        return [section for model in self.models for section in model.sections]


def report_of(
    finished: Sequence[FinishedRun], unfinished: Sequence[UnfinishedRun], out: Path, correction: Correction = HOLM
) -> Report:
    """Compare the runs; figures are drawn below `out`."""
    models = by_model(by_setting(finished))
    n_settings = sum(len(model.settings) for model in models)
    parts: list[ModelPart] = []
    number = 0
    for index, model in enumerate(models, start=1):
        stem = f"_{index}" if len(models) > 1 else ""
        sections: list[Section] = []
        for one in model.settings:
            number += 1
            of_section = "" if n_settings == 1 else f"_{number}"
            sections.append(section_of(model, one, of_section, out, number <= MOST_DRAWN, correction))
        parts.append(model_part(model, tuple(sections), out, stem))
    named = [f"{shown_path(run.directory)}: {run.reason}" for run in unfinished]
    return Report(tuple(parts), named)


def by_setting(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
    """Runs that differ in method, seed and half of the data only, together; of equal runs, the latest."""
    latest: dict[tuple[str, str, str, str], FinishedRun] = {}
    for run in sorted(tell_apart(runs), key=lambda run: run.directory.name):
        latest[identity(run), run.method, run.label, str(run.config["model"].get("checkpoint"))] = run
    groups: dict[str, list[FinishedRun]] = {}
    for (setting, *_), run in latest.items():
        groups.setdefault(setting, []).append(run)
    return [sorted(group, key=lambda run: (group_order(run.method), run.seed, run.label)) for group in groups.values()]


def section_of(
    model: RunsOfModel, one: RunsOfSetting, stem: str, out: Path, is_drawn: bool, correction: Correction
) -> Section:
    """One setting."""
    comparison, score = compare(one.runs), score_of(one.runs)
    evidence = evidence_of(one.runs, score or ACCURACY, correction)
    notes = notes_of(one.runs, comparison, score, stem)
    if not is_drawn:
        notes += (
            f"No figures: only the first {MOST_DRAWN} settings of a report are drawn; report on these runs alone.",
        )
    return Section(
        title=model.title_of(one.setting),
        stem=stem,
        comparison=comparison,
        verdicts=tuple(verdicts(comparison, score or ACCURACY, evidence)),
        notes=notes,
        totals=totals_table(comparison) if len(comparison.methods) > 1 else None,
        short=short_table(comparison),
        metrics=metrics_table(comparison),
        runs=runs_table(one.runs, score, out),
        evidence=evidence_part(evidence, correction, of_data(one.runs, evidence)),
        figures=draw_setting(one.runs, out, stem) if is_drawn else {},
        pages=write_comparison_pages(one.runs, out, stem) if is_drawn else {},
    )


def of_data(runs: Sequence[FinishedRun], evidence: Sequence[EvidenceRow]) -> tuple[NotedTable, ...]:
    """What halves and test examples say, where there is any."""
    found = (halves_part(runs, shown(evidence, is_whole=True)), intervals_table(runs))
    return tuple(table for table in found if table is not None)


def model_part(model: RunsOfModel, sections: tuple[Section, ...], out: Path, stem: str) -> ModelPart:
    """One model; settings, and variants of a method, are compared where there are several."""
    if len(sections) == 1 and not model.option_keys:
        return ModelPart(model, None, {}, sections)
    runs = [run for one in model.settings for run in one.runs]
    main = MainMeasures.of(runs, score_of(runs))
    return ModelPart(model, overview_table(model, main), draw_swept_keys(model, main, out, stem), sections)
