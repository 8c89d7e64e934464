"""What a configuration can only be checked against with the models at hand: before any run starts."""

from __future__ import annotations

from pathlib import Path

import torch

from experiments.config.schema import RunConfig
from experiments.model_families import MODELS
from experiments.pipeline.tracking import check_tracking
from libcore.estimators import use_closed_form
from models.errors import UserError
from models.weights import CheckpointError


def check_runs(configs: list[RunConfig]) -> None:
    """Raises UserError for the first run that could not be carried out."""
    for config in configs:
        check_tracking(config.tracking)
        resolve_device(config.device)
        MODELS[config.model.kind].node_layers(config)  # raises UserError
        if config.model.checkpoint is not None:
            load_checkpoint(config)
        MODELS[config.model.kind].check_data(config)
        check_model(config)


def resolve_device(name: str) -> torch.device:
    """The device by name; `auto` is the first GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name}: this machine has {torch.cuda.device_count()} CUDA devices; expected cpu or auto"
        )
    return torch.device(name)


def load_checkpoint(config: RunConfig) -> dict[str, torch.Tensor]:
    """Weights of `model.checkpoint`, the error as one line that names the key."""
    assert config.model.checkpoint is not None
    try:
        return MODELS[config.model.kind].load(config, Path(config.model.checkpoint))
    except CheckpointError as error:
        raise UserError(f"model.checkpoint={error}") from error


def check_model(config: RunConfig) -> None:
    """What needs the model's sections and the size of its data: the estimator, and how many examples there are."""
    family = MODELS[config.model.kind]
    n_train, n_test = family.split_sizes(config)
    wanted = (("n_examples", "training", n_train), ("n_test_examples", "test", n_test))
    for key, split, available in wanted:
        n = getattr(config.analysis, key)
        if n is not None and n > available:
            raise UserError(f"analysis.{key}={n}: the {split} split has {available}; expected at most that")
    n_fitted = config.analysis.n_examples or n_train
    if config.analysis.half is not None and n_fitted < 2:
        raise UserError(f"analysis.half={config.analysis.half}: a single example has no halves; expected null")
    chain = family.chain(config, family.initial(config), torch.float32, torch.device("cpu"))
    for section in chain.sections:
        try:
            use_closed_form(section, config.analysis.estimator)
        except ValueError as error:
            raise UserError(f"analysis.estimator={config.analysis.estimator}: {error}") from error
