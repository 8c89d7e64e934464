"""What the MLP and the CNN have in common: images, training, score; all but the network itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from models.analysed import AnalysedModel
from models.content_hashes import stage_key
from models.divergence import refuse_diverged_weights
from models.errors import UserError
from models.randomized import shuffled_labels
from models.room import Progress, Room, Trained
from models.schema import ModelSettings
from models.training_state import TrainingEvaluation
from models.vision.configuration import ImageClassifierSchema
from models.vision.images import (
    FORMATS,
    DatasetError,
    ImageDataset,
    cached_images,
    check_available,
    dataset_hash,
    load_images,
)
from models.vision.model import analysed, load_weights, weights_of
from models.vision.training import TrainingSettings, train
from models.weights import ModelFile

READERS = ("models.vision.cifar10_parquet", "models.vision.cifar10_torchvision", "models.vision.digits")
"""Modules whose change makes decoded images stale."""

ImageSchemaT = TypeVar("ImageSchemaT", bound=ImageClassifierSchema)


@contextmanager
def user_errors() -> Generator[None, None, None]:
    """What is wrong with a data set is the user's to mend."""
    try:
        yield
    except DatasetError as error:
        raise UserError(str(error)) from error


class ImageClassifierRoom(Room[ImageSchemaT]):
    """Image classifiers, scored by accuracy."""

    reads_data = True
    shared_code = ("models.vision.mlp", "models.vision.training", "models.training_state", *READERS)

    def __init__(self, settings: ModelSettings[ImageSchemaT]) -> None:
        super().__init__(settings)
        self.image_format = FORMATS[settings.model.dataset]

    @abstractmethod
    def network(self) -> nn.Module:
        """The network, its weights drawn by torch's own generator."""

    @abstractmethod
    def grids(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of every node layer's positions."""

    @cached_property
    def decoded_images(self) -> Path:
        """The folder in which decoded images are kept."""
        return self.settings.cache / "images" / stage_key({}, READERS)

    @cached_property
    def dataset(self) -> ImageDataset:
        """The images; decoded ones are kept for other runs."""
        with user_errors():
            return load_images(self.model.dataset, self.settings.data_root, self.decoded_images)

    def kept_files(self) -> tuple[str, ...]:
        with user_errors():
            path = cached_images(self.model.dataset, self.settings.data_root, self.decoded_images)
        return () if path is None else (path.relative_to(self.settings.cache).as_posix(),)

    @property
    def all_node_layers(self) -> tuple[str, ...]:
        return tuple(self.grids())

    def split_sizes(self) -> tuple[int, int]:
        return self.image_format.n_train, self.image_format.n_test

    def check(self) -> None:
        with user_errors():
            check_available(self.model.dataset, self.settings.data_root)

    @cached_property
    def depends_on(self) -> dict[str, Any]:
        with user_errors():
            return super().depends_on | {"data": dataset_hash(self.model.dataset, self.settings.data_root)}

    def seeded_network(self) -> nn.Module:
        """The network with the initial weights of the run's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            return self.network()

    def load(self, path: Path) -> ModelFile:
        return ModelFile(load_weights(path, self.seeded_network()))

    def initial(self) -> ModelFile:
        return ModelFile(weights_of(self.seeded_network()))

    def train(self, device: torch.device, state: Path, progress: Progress) -> Trained:
        settings, network = TrainingSettings(**self.model.training.model_dump()), self.seeded_network()
        train_split, test_split = self.dataset.train, self.dataset.test
        if self.model.randomize == "labels":
            train_split = replace(train_split, labels=shuffled_labels(train_split.labels, self.settings.seed))
        n_steps = settings.epochs * (len(train_split) // min(settings.batch_size, len(train_split)))

        def show(step: int, last: TrainingEvaluation | None) -> None:
            progress(step, n_steps, last)

        history = train(network, settings, train_split, test_split, self.settings.seed, device, state, show)
        last, weights = history[-1], weights_of(network)
        refuse_diverged_weights(weights.values(), settings.learning_rate, state)
        record = {
            "history": [asdict(evaluation) for evaluation in history],
            "reached_target": True,
            "summary": f"{settings.epochs} epochs, loss {last.loss:.3f}, test accuracy {last.score:.4f}",
        }
        return Trained(ModelFile(weights), record)

    def analysed(self, file: ModelFile, device: torch.device) -> AnalysedModel:
        return analysed(self.chains(file, device), self.dataset, self.grids(), device, self.settings.memory_budget)
