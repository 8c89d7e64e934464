"""What the pipeline asks of any model: one object a run, made from what of the configuration a model may depend on."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic

import torch

from libcore.chain import Chain
from models.analysed import AnalysedModel
from models.content_hashes import files_hash
from models.errors import UserError
from models.node_layer_selection import select_names
from models.schema import ModelSettings, SchemaT
from models.training_state import TrainingEvaluation
from models.weights import CheckpointError, ModelFile

Progress = Callable[[int, int, TrainingEvaluation | None], None]
"""`(steps done, steps in all, the last evaluation)`, called after every step or only after evaluations."""


@dataclass(frozen=True)
class Trained:
    """A trained model, and what is worth recording of the training, as JSON.

    `record` has at least `summary`, one line for the log, and `reached_target`, whether training met its criterion;
    `history` has every evaluation's attributes (`TrainingEvaluation`), where there were any.
    """

    file: ModelFile
    record: dict[str, Any]


class Room(ABC, Generic[SchemaT]):
    """One model with its data and its training.

    Attributes:
        shared_code: the project's packages and modules whose change makes trained weights stale, beside the files that
            lie in the same folder as the room's own.
        seeded: whether weights that no checkpoint gives depend on the run's seed.
        score_name: what the model's outputs are scored by.
        lower_score_is_better: whether a model that is harmed scores more.
        reads_data: whether `analysed` reads files that take time, which a run then tells of as its stage `data`.
    """

    shared_code: ClassVar[tuple[str, ...]] = ()
    seeded: bool = True
    score_name: str = "accuracy"
    lower_score_is_better: bool = False
    reads_data: ClassVar[bool] = False

    def __init__(self, settings: ModelSettings[SchemaT]) -> None:
        self.settings = settings
        self.model: SchemaT = settings.model

    @cached_property
    def node_layers(self) -> tuple[str, ...]:
        """Those that the run analyses, first to last; raises UserError."""
        try:
            return self.select_node_layers(self.settings.node_layers)
        except ValueError as error:
            raise UserError(f"analysis.node_layers={error}") from error

    def select_node_layers(self, chosen: Sequence[str] | None) -> tuple[str, ...]:
        """What names and patterns choose, by default all. Raises ValueError (see `select_names`)."""
        return self.all_node_layers if chosen is None else select_names(chosen, self.all_node_layers)

    @property
    @abstractmethod
    def all_node_layers(self) -> tuple[str, ...]:
        """Every node layer that the model can be analysed at, first to last."""

    @abstractmethod
    def split_sizes(self) -> tuple[int, int]:
        """Examples of the training split, which bases are fitted on, and of the test split; known without loading."""

    def check(self) -> None:
        """Raises UserError where the model or its data cannot be had; before any run starts."""

    @cached_property
    def depends_on(self) -> dict[str, Any]:
        """What the model and its data depend on, beside code and the seed: identifies them in the cache, as JSON."""
        return self.model.trained_as()

    @property
    def weights_source(self) -> dict[str, Any] | None:
        """Where weights come from that are had by a name, and so are copied neither into runs nor into the cache.

        As JSON: the name, the revision, hashes of files. None for weights of any other origin.
        """
        return None

    def kept_files(self) -> tuple[str, ...]:
        """What is kept between runs beside finished stages and was used, as paths below the cache."""
        return ()

    def source_hash(self) -> str:
        """Of the files beside the room's own."""
        folder = Path(inspect.getfile(type(self))).parent
        return files_hash(sorted(folder.glob("*.py")), folder)

    def read_checkpoint(self) -> ModelFile:
        """The model of `model.checkpoint`; raises UserError."""
        assert self.model.checkpoint is not None
        try:
            return self.load(Path(self.model.checkpoint))
        except CheckpointError as error:
            raise UserError(f"model.checkpoint={error}") from error

    def load(self, path: Path) -> ModelFile:
        """From a checkpoint; raises CheckpointError."""
        raise CheckpointError(f"{path}: model={self.model.kind} has no checkpoints; expected null")

    @abstractmethod
    def initial(self) -> ModelFile:
        """Untrained weights, for checks before training."""

    def untrained(self) -> ModelFile:
        """Weights as they are before training: those of `model.randomize=weights`."""
        return self.initial()

    @abstractmethod
    def train(self, device: torch.device, state: Path, progress: Progress) -> Trained:
        """Train from scratch with the run's seed, or go on from `state`, the file of an interrupted training."""

    @abstractmethod
    def chain(self, file: ModelFile, dtype: torch.dtype, device: torch.device) -> Chain:
        """The model as sections between the node layers that the run analyses."""

    def chains(self, file: ModelFile, device: torch.device) -> Callable[[torch.dtype], Chain]:
        """`chain` by its dtype, each built once."""
        return cache(lambda dtype: self.chain(file, dtype, device))

    @abstractmethod
    def analysed(self, file: ModelFile, device: torch.device) -> AnalysedModel:
        """The model with its data, ready for the pipeline; its chain is that of `chains`."""


def room_of(settings: ModelSettings[Any]) -> Room[Any]:
    """The model itself, once for a run; raises UserError."""
    module, _, name = settings.model.room.partition(":")
    return getattr(import_module(module), name)(settings)
