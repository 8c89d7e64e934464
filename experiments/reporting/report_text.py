"""One setting of the report in Markdown: verdicts, tables, figures, and which runs it is made of."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.config.scores import ACCURACY, Score
from experiments.reporting.comparison import Comparison, to_markdown
from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.verdicts import tolerances, totals_table, verdicts


def setting_text(
    title: str, stem: str, runs: Sequence[FinishedRun], comparison: Comparison, figures: dict[str, str]
) -> list[str]:
    """Paragraphs and tables of one setting; `figures`: paths by caption."""
    score = score_of(runs)
    lines = [f"## {title}\n"]
    lines += [f"- {sentence}" for sentence in verdicts(comparison, score or ACCURACY)]
    lines += ["", spread_text(runs, stem), needed_text(comparison, score or ACCURACY)]
    if (totals := totals_table(comparison)) and len(comparison.methods) > 1:
        lines.append(markdown_table(totals))
    lines.append(to_markdown(comparison))
    lines += [f"![{caption}]({path})\n" for caption, path in figures.items()]
    return [*lines, runs_table(runs, score), ""]


def score_of(runs: Sequence[FinishedRun]) -> Score | None:
    """What the runs of one setting were scored by; None where none of them says."""
    return next((ablations.score for run in runs if (ablations := run.ablations()) is not None), None)


def spread_text(runs: Sequence[FinishedRun], stem: str) -> str:
    """What means and standard deviations are taken over."""
    n_runs = max(sum(run.method == method for run in runs) for method in {run.method for run in runs})
    seeds = ", ".join(str(seed) for seed in sorted({run.seed for run in runs}))
    halves = ", ".join(sorted({run.half for run in runs if run.half is not None}))
    which = f"{'seeds' if ',' in seeds else 'seed'} {seeds}" + (f"; halves of the data: {halves}" if halves else "")
    over = f"{n_runs} {'run' if n_runs == 1 else 'runs'} of a method"
    sentence = f"Mean ± standard deviation over {over} ({which}); the same as numbers in `report{stem}.csv`."
    if "," in halves:
        sentence += " Both halves are tested on the same examples, whose own variation is not in the ±."
    return f"{sentence}\n"


def needed_text(comparison: Comparison, score: Score) -> str:
    """What is called needed; nothing where nothing was ablated."""
    counted = sorted(tolerances(comparison, "features") | tolerances(comparison, "edges"))
    if not counted:
        return ""
    listed = ", ".join(f"{tolerance:g}" for tolerance in counted)
    distance = f"{listed} nats per token above" if score.in_nats else f"{listed} {worse(score)}"
    return (
        "`needed`: the fewest features, counted upwards, and the number of edges, found by bisection, that keep a test "
        f"{score.name} at most {distance} the unablated model's.\n"
    )


def worse(score: Score) -> str:
    """On which side of the model's own score an ablated one lies."""
    return "above" if score.lower_is_better else "below"


def runs_table(runs: Sequence[FinishedRun], score: Score | None) -> str:
    """Directory, method, seed and score of every run, and the half of the data that it was fitted on, where it was."""
    halved = any(run.half is not None for run in runs)
    rows = [["run", "method", "seed", *(["half"] if halved else []), f"test {score.title if score else 'score'}"]]
    for run in runs:
        row = [f"`{run.directory}`", run.method, str(run.seed), *([run.half or "–"] if halved else [])]
        value = run.metrics.get("score/test")
        rows.append([*row, "–" if value is None else f"{value:.4f}"])
    return markdown_table(rows)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its header."""
    head, *body = rows
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)]) + "\n"
