"""Image classifiers from their configuration: data, network, training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.config.model_configs import Cifar10CnnConfig, Cifar10MlpConfig
from experiments.config.schema import RunConfig
from experiments.model_families.family import Trained, Weights
from experiments.model_families.node_layers import select_node_layers
from experiments.pipeline.cache import stage_key
from experiments.pipeline.console import progress_bar
from libcore.chain import Chain
from models.analysed import AnalysedModel
from models.errors import UserError
from models.vision import cnn, cnn_sections, mlp
from models.vision.images import FORMATS, DatasetError, ImageDataset, check_available, dataset_hash, load_images
from models.vision.model import analysed, load_weights, weights_of
from models.vision.training import EpochResult, TrainingSettings, train

READERS = ("models.vision.cifar10_parquet", "models.vision.cifar10_torchvision", "models.vision.digits")
"""Modules whose change makes decoded images stale."""

ImageClassifierConfig = Cifar10MlpConfig | Cifar10CnnConfig


def part_of(config: RunConfig) -> ImageClassifierConfig:
    """The model's own part of the configuration."""
    assert isinstance(config.model, ImageClassifierConfig)
    return config.model


@contextmanager
def user_errors() -> Iterator[None]:
    """What is wrong with a data set is the user's to mend."""
    try:
        yield
    except DatasetError as error:
        raise UserError(str(error)) from error


def load_dataset(config: RunConfig) -> ImageDataset:
    """The run's images; decoded ones are kept beside the finished stages."""
    cache = Path(config.output_directory) / "cache" / "images" / stage_key({}, READERS)
    with user_errors():
        return load_images(part_of(config).dataset, Path(config.data.root), cache)


class ImageClassifierFamily(ABC):
    """What the MLP and the CNN have in common: all but the network itself."""

    training_code: tuple[str, ...] = (
        "models.vision.mlp",
        "models.vision.cnn",
        "models.vision.training",
        "models.training_state",
        *READERS,
    )
    seeded = True
    score_name = "accuracy"

    @abstractmethod
    def network(self, config: RunConfig) -> nn.Module:
        """The network with its initial weights."""

    @abstractmethod
    def grids(self, config: RunConfig) -> dict[str, tuple[int, int]]:
        """Rows and columns of every node layer's positions."""

    @abstractmethod
    def chain(self, config: RunConfig, weights: Weights, dtype: torch.dtype, device: torch.device) -> Chain:
        """The model as sections between the node layers that the run analyses."""

    def node_layers(self, config: RunConfig) -> tuple[str, ...]:
        return select_node_layers(config.analysis.node_layers, tuple(self.grids(config)))

    def split_sizes(self, config: RunConfig) -> tuple[int, int]:
        image_format = FORMATS[part_of(config).dataset]
        return image_format.n_train, image_format.n_test

    def check_data(self, config: RunConfig) -> None:
        with user_errors():
            check_available(part_of(config).dataset, Path(config.data.root))

    def depends_on(self, config: RunConfig) -> dict[str, Any]:
        with user_errors():
            data = dataset_hash(part_of(config).dataset, Path(config.data.root))
        return config.model.model_dump(exclude={"checkpoint"}) | {"data": data}

    def load(self, config: RunConfig, path: Path) -> Weights:
        return load_weights(path, self.network(config))

    def initial(self, config: RunConfig) -> Weights:
        return weights_of(self.network(config))

    def train(self, config: RunConfig, device: torch.device, state: Path) -> Trained:
        """Train with a progress bar of loss and test accuracy."""
        settings = TrainingSettings(**part_of(config).training.model_dump())
        dataset, network = load_dataset(config), self.network(config)
        steps = settings.epochs * (len(dataset.train) // min(settings.batch_size, len(dataset.train)))
        with progress_bar("training", steps) as advance:

            def show(step: int, result: EpochResult | None) -> None:
                advance(step, "" if result is None else f"loss {result.loss:.3f}  test {result.test_accuracy:.4f}")

            history = train(network, settings, dataset.train, dataset.test, config.seed, device, state, show)
        last = history[-1]
        if not all(weight.isfinite().all() for weight in weights_of(network).values()):
            state.unlink(missing_ok=True)
            raise UserError(
                f"model.training.learning_rate={settings.learning_rate}: training diverged; expected a smaller one"
            )
        return Trained(
            weights_of(network),
            {
                "history": [[result.epoch, result.loss, result.test_accuracy] for result in history],
                "reached_target": True,
                "summary": f"{last.epoch} epochs, loss {last.loss:.3f}, test accuracy {last.test_accuracy:.4f}",
            },
        )

    def analysed(self, config: RunConfig, weights: Weights, device: torch.device) -> AnalysedModel:
        return analysed(
            lambda dtype: self.chain(config, weights, dtype, device),
            load_dataset(config),
            self.grids(config),
            device,
            config.analysis.memory_bytes,
        )


class MlpFamily(ImageClassifierFamily):
    """`model=cifar10_mlp`."""

    def network(self, config: RunConfig) -> mlp.Mlp:
        assert isinstance(config.model, Cifar10MlpConfig)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return mlp.Mlp(FORMATS[config.model.dataset], config.model.hidden_sizes)

    def grids(self, config: RunConfig) -> dict[str, tuple[int, int]]:
        assert isinstance(config.model, Cifar10MlpConfig)
        return dict.fromkeys(mlp.node_layers(len(config.model.hidden_sizes)), (1, 1))

    def chain(self, config: RunConfig, weights: Weights, dtype: torch.dtype, device: torch.device) -> Chain:
        return mlp.chain_of(weights, dtype, device).restricted_to(self.node_layers(config))


class CnnFamily(ImageClassifierFamily):
    """`model=cifar10_cnn`."""

    def network(self, config: RunConfig) -> cnn.Cnn:
        assert isinstance(config.model, Cifar10CnnConfig)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return cnn.Cnn(FORMATS[config.model.dataset], config.model.channels, config.model.pooling)

    def grids(self, config: RunConfig) -> dict[str, tuple[int, int]]:
        assert isinstance(config.model, Cifar10CnnConfig)
        return cnn_sections.grids(FORMATS[config.model.dataset], len(config.model.channels))

    def chain(self, config: RunConfig, weights: Weights, dtype: torch.dtype, device: torch.device) -> Chain:
        assert isinstance(config.model, Cifar10CnnConfig)
        channels, pooling = config.model.channels, config.model.pooling
        chain = cnn_sections.chain_of(weights, FORMATS[config.model.dataset], channels, pooling, dtype, device)
        return chain.restricted_to(self.node_layers(config))
