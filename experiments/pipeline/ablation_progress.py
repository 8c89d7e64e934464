"""What is said while ablations go on: a bound at the start, the time left while it shrinks, and how it came out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator
from contextlib import contextmanager

from experiments.pipeline.console import Advance, duration
from libcore.ablation.plan import AblationPlan
from libcore.ablation.whole_model import Evaluation

log = logging.getLogger(__name__)


class AblationProgress:
    """Times every evaluation of a plan and shows what is left."""

    def __init__(self, plan: AblationPlan, advance: Advance, stage: str) -> None:
        self.plan = plan
        self.stage = stage
        self.advance = advance
        self.started = self.last = time.perf_counter()
        self.first_estimate: float | None = None

    def evaluated(self, evaluation: Evaluation) -> None:
        """Count one evaluation that has just been carried out."""
        now = time.perf_counter()
        self.plan.evaluated(evaluation.kind, evaluation.layer, now - self.last)
        self.last = now
        seconds_left = self.plan.seconds_left()
        if self.first_estimate is None and self.speed_is_known():
            self.first_estimate = now - self.started + seconds_left
            log.info("%s: at most %s in all, by the first evaluations", self.stage, duration(self.first_estimate))
        done = self.plan.done
        text = f"{evaluation.layer}: {evaluation.kept} kept, score {evaluation.score:.4f}"
        if not math.isnan(seconds_left):
            elapsed = now - self.started
            self.advance(elapsed, elapsed + seconds_left, f"{done}/{done + self.plan.left} evaluations  {text}")

    def speed_is_known(self) -> bool:
        """Whether of both kinds an evaluation was timed without what is prepared before a curve's first."""
        planned = {kind for (kind, _), curve in self.plan.curves.items() if curve.most > 1}
        return planned <= {kind for (kind, _), curve in self.plan.curves.items() if curve.done > 1}


@contextmanager
def ablation_progress(
    plan: AblationPlan, advance: Advance, stage: str = "ablation"
) -> Generator[AblationProgress, None, None]:
    """Say what the plan's work is at most, show it as it goes on, and say at the end what it was."""
    most = plan.left
    masks = max((curve.passes for (kind, _), curve in plan.curves.items() if kind == "edge"), default=0)
    log.info(
        "%s: at most %s evaluations: %s of kept features, %s of kept edges%s",
        stage,
        f"{most:,}",
        f"{plan.most('node'):,}",
        f"{plan.most('edge'):,}",
        f" of up to {masks:,} section passes each" if masks else "",
    )
    progress = AblationProgress(plan, advance, stage)
    yield progress
    log.info(
        "%s: %s of at most %s evaluations in %s%s",
        stage,
        f"{plan.done:,}",
        f"{most:,}",
        duration(time.perf_counter() - progress.started),
        "" if progress.first_estimate is None else f"; at most {duration(progress.first_estimate)} were estimated",
    )
