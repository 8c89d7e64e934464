"""What the pipeline asks of any kind of model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from experiments.config.schema import RunConfig
from libcore.chain import Chain
from models.analysed import AnalysedModel

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """Trained weights, and what is worth recording of the training, as JSON.

    `record` has at least `summary`, one line for the log, and `reached_target`, whether training met its criterion.
    """

    weights: Weights
    record: dict[str, Any]


class ModelFamily(Protocol):
    """One kind of model; every function reads its part of the run's configuration."""

    @property
    def training_code(self) -> tuple[str, ...]:
        """Modules whose change makes trained weights stale."""
        ...

    @property
    def seeded(self) -> bool:
        """Whether weights that no checkpoint gives depend on the run's seed."""
        ...

    @property
    def score_name(self) -> str:
        """What the model's outputs are scored by: `accuracy` or `cross-entropy`."""
        ...

    def node_layers(self, config: RunConfig) -> tuple[str, ...]:
        """Those that the run analyses, first to last: what `analysis.node_layers` chooses; raises UserError."""
        ...

    def split_sizes(self, config: RunConfig) -> tuple[int, int]:
        """Examples of the training split, which bases are fitted on, and of the test split; known without loading."""
        ...

    def check_data(self, config: RunConfig) -> None:
        """Raises UserError where the data that the model needs are neither there nor to be had."""
        ...

    def depends_on(self, config: RunConfig) -> dict[str, Any]:
        """What the model and its data depend on, beside the seed of training: identifies them in the cache, as JSON."""
        ...

    def load(self, config: RunConfig, path: Path) -> Weights:
        """Weights from a checkpoint; raises CheckpointError."""
        ...

    def initial(self, config: RunConfig) -> Weights:
        """Untrained weights, for checks before training."""
        ...

    def train(self, config: RunConfig, device: torch.device, state: Path) -> Trained:
        """Train from scratch with the run's seed, or go on from `state`, the file of an interrupted training."""
        ...

    def chain(self, config: RunConfig, weights: Weights, dtype: torch.dtype, device: torch.device) -> Chain:
        """The model as sections between the node layers that the run analyses."""
        ...

    def analysed(self, config: RunConfig, weights: Weights, device: torch.device) -> AnalysedModel:
        """The model with its data, ready for the pipeline; its chain is that of `chain`."""
        ...
