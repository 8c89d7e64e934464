"""The identification stage: how far features move if they are fitted again, by rounding and from half to half.

What hangs on the machine's rounding, or on which inputs were drawn, is no finding about the model; it is told in the
log, in the metrics and in the graph's file (METHOD.md 7).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from experiments.config.schema import RunConfig
from experiments.config.settings import chain_of, fit_settings
from experiments.pipeline.cache import FinishedStage, StageCache
from experiments.pipeline.cache_entry import StageResult
from experiments.pipeline.console import Advance, PassesOverData
from experiments.pipeline.identification_warnings import warn_of
from libcore import codec
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import Truncation
from libcore.identification import Movement, condition, higher_cut, movement, rounded_anew
from libcore.messages import one_line
from libcore.stability.joint_covariance import JointCovariance
from libcore.stability.layer import STABLE, found_again
from libcore.statistics import LayerStatistics, chain_statistics
from models.analysed import AnalysedModel
from models.content_hashes import stage_key

log = logging.getLogger(__name__)

LEADING = 64
"""Features of a node layer that are looked for in both halves, from the most important on."""

T = TypeVar("T")
Bases = dict[str, Basis]
Statistics = dict[str, LayerStatistics]


def identification_stage(
    cache: StageCache,
    config: RunConfig,
    basis_identity: str,
    model: AnalysedModel,
    inputs: Tensor,
    statistics: Statistics,
    bases: Bases,
) -> tuple[FinishedStage, dict[str, Movement]]:
    """By `analysis.identify_by`, `rounding` and `halves`; conditions in any case.

    Values are counts by node layer. Movements by rounding have an entry for every feature, the constant included. What
    can't be trusted is said in the log, each time.
    """
    chain = chain_of(model, config, getattr(torch, config.dtype))
    wanted = config.identify_by

    def compute(advance: Advance) -> StageResult:
        found = StageResult(values={layer: of_fit(statistics[layer], basis) for layer, basis in bases.items()})
        refits = Refits(config, inputs, advance)
        if "rounding" in wanted:
            fits_again = refits.rounded(chain_of(model, config, torch.float64), statistics)
            if fits_again is not None:
                take_movements(found, fits_again[0], bases, fits_again[1])
        if "halves" in wanted:
            halves = refits.halves(chain)
            if halves is not None:
                take_halves(found, statistics, *halves)
        return found

    depends_on = {"basis": basis_identity, "by": sorted(wanted)}
    stage = cache.finish("identification", stage_key(depends_on, ("libcore",)), compute)
    for layer, of_layer in stage.result.values.items():
        warn_of(layer, of_layer, config.dtype)
    return stage, codec.movements_from(stage.result.tensors, bases)


def of_fit(statistics: LayerStatistics, basis: Basis) -> dict[str, Any]:
    """What needs no second fit."""
    return {
        "kept": basis.n_features,
        "varying": basis.n_variable,
        "condition": condition(statistics, basis),
        "activations": statistics.count,
        "dimensions": basis.d - int(basis.has_constant),
    }


def take_movements(found: StageResult, statistics: Statistics, bases: Bases, again: Bases) -> None:
    """How far every feature is from those of the second fit."""
    for layer, basis in bases.items():
        moved = movement(statistics[layer], basis, again[layer]).with_constant(basis.has_constant)
        found.tensors.update(codec.tensors_of_movements({layer: moved}))
        importance = torch.where(moved.identified, basis.importance[: basis.n_features], 0.0)[basis.variable]
        total = basis.importance[: basis.n_features][basis.variable].sum()
        found.values[layer] |= {
            "identified": int(moved.identified.sum()),
            "identified_in_groups": int(moved.identified_in_group.sum()),
            "kept_again": again[layer].n_features,
            "importance_identified": (importance.sum() / total).item() if total else 1.0,
        }


def take_halves(found: StageResult, statistics: Statistics, first: Bases, second: Bases) -> None:
    """How many leading features of one half are found in the other, by themselves or in their group."""
    for layer in found.values:
        one, other = first[layer], second[layer]
        n = min(one.n_variable, other.n_variable, LEADING)
        if not n:
            continue
        leading = slice(one.variable.start, one.variable.start + n)
        covariance = JointCovariance.of_bases(statistics[layer].gram, one, other).of_features(leading, leading)
        n_found = int((found_again(covariance, one.importance[leading]) > STABLE).sum())
        found.values[layer] |= {"compared_in_halves": n, "found_in_halves": n_found}


@dataclass
class Refits:
    """The run's method, carried out again; what it then refuses is said, and leaves that part out.

    Attributes:
        passes: over the data, by what they are for.
    """

    config: RunConfig
    inputs: Tensor
    advance: Advance
    passes: PassesOverData = field(init=False)

    def __post_init__(self) -> None:
        self.passes = PassesOverData(self.advance, 1)

    def rounded(self, chain: Chain, statistics: Statistics) -> tuple[Statistics, Bases] | None:
        """Moments in float64, and bases of these moments rounded anew, with the cut a little higher."""
        settings = fit_settings(self.config)
        truncation = higher_cut(settings.truncation, torch.float64)

        def fitted() -> tuple[Statistics, Bases]:
            exact = statistics
            if self.config.dtype != "float64":
                exact = self.moments(chain, self.inputs, "float64")
            return exact, self.fit(chain, self.inputs, rounded_anew(exact), "rounding", truncation)

        return attempted("rounding", fitted)

    def halves(self, chain: Chain) -> tuple[Bases, Bases] | None:
        """Bases of the first and of the second half of the inputs."""
        middle = len(self.inputs) // 2
        if not middle:
            return None
        halves = {"first half": self.inputs[:middle], "second half": self.inputs[middle:]}

        def fitted() -> tuple[Bases, Bases]:
            first, second = (
                self.fit(chain, half, self.moments(chain, half, name), name, None) for name, half in halves.items()
            )
            return first, second

        return attempted("halves", fitted)

    def moments(self, chain: Chain, inputs: Tensor, name: str) -> Statistics:
        """Of every node layer."""
        return chain_statistics(self.watched(chain, f"{name}, moments"), inputs, self.config.analysis.memory_bytes)

    def fit(
        self, chain: Chain, inputs: Tensor, statistics: Statistics, name: str, truncation: Truncation | None
    ) -> Bases:
        """By the run's method and settings, but for the cut where another is given."""
        method, settings = self.config.method, fit_settings(self.config)
        if truncation is not None:
            settings = replace(settings, truncation=truncation)
        return method.method(self.watched(chain, name), inputs, statistics, settings, **method.options)

    def watched(self, chain: Chain, name: str) -> Chain:
        """The same chain, whose passes are told as those of a named part."""
        self.passes.n_layers += len(chain.node_layers)
        return replace(chain, on_chunk=lambda layer, done, total: self.passes(f"{name}: {layer}", done, total))


def attempted(what: str, fit: Callable[[], T]) -> T | None:
    """What a method says of inputs that do not suit it any more is told, and is no reason to fail."""
    try:
        return fit()
    except ValueError as error:
        log.warning("identification by %s is left out: %s", what, one_line(error))
        return None
