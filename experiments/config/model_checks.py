"""What a configuration can only be checked against with the models at hand: before any run starts."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch

from experiments.config.ablated import ablated
from experiments.config.schema import RunConfig
from experiments.config.scores import with_tolerances
from experiments.config.settings import fit_settings
from experiments.pipeline.tracking import check_tracking
from experiments.sweeps.objective import check_objective
from libcore.estimators import use_closed_form
from models.errors import UserError
from models.room import room_of


def check_runs(configs: Iterable[RunConfig]) -> None:
    """Raises UserError for the first run that could not be carried out."""
    checked: set[str] = set()
    for config in configs:
        check_tracking(config.tracking)
        resolve_device(config.device)
        # Runs that differ in nothing that the model depends on are checked once.
        if (settings := config.model_dump_json(exclude={"method", "tracking", "seed"})) not in checked:
            check_model(config)
        checked.add(settings)
        check_method(config)


def resolve_device(name: str) -> torch.device:
    """The device by name; `auto` is a GPU where there is one: the first, or of several processes each its own."""
    of_process = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and of_process < torch.cuda.device_count() and of_process > 0:
        return torch.device("cuda", of_process)
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name}: this machine has {torch.cuda.device_count()} CUDA devices; expected cpu or auto"
        )
    return torch.device(name)


def check_method(config: RunConfig) -> None:
    """Options that the method itself cannot be carried out with; raises UserError."""
    try:
        config.method.method.refuse(fit_settings(config), config.method.options)
    except ValueError as error:
        raise UserError(str(error)) from error


def check_model(config: RunConfig) -> None:
    """What only the model tells: node layers, checkpoint, data and their size, and whether there are closed forms."""
    room = room_of(config.model_settings)
    ablated(config, room.node_layers)  # raises UserError, as do the node layers
    file = room.read_checkpoint() if config.model.checkpoint is not None else None
    room.check()
    check_sizes(config, *room.split_sizes())
    check_objective(with_tolerances(config, room.score_name), room)
    if config.analysis.estimator == "closed_form":
        chain = room.chain(file or room.initial(), torch.float32, torch.device("cpu"))
        for section in chain.sections:
            try:
                use_closed_form(section, config.analysis.estimator)
            except ValueError as error:
                raise UserError(f"analysis.estimator={config.analysis.estimator}: {error}") from error


def check_sizes(config: RunConfig, n_train: int, n_test: int) -> None:
    """Raises UserError for more examples than there are, or too few for halves."""
    wanted = (("n_examples", "training", n_train), ("n_test_examples", "test", n_test))
    for key, split, available in wanted:
        n = getattr(config.analysis, key)
        if n is not None and n > available:
            raise UserError(f"analysis.{key}={n}: the {split} split has {available}; expected at most that")
    n_fitted = config.analysis.n_examples or n_train
    if config.analysis.half is not None and n_fitted < 2:
        raise UserError(f"analysis.half={config.analysis.half}: a single example has no halves; expected null")
    n_fitted //= 1 if config.analysis.half is None else 2
    if (n := config.analysis.n_edge_examples) is not None and n > n_fitted:
        raise UserError(f"analysis.n_edge_examples={n}: the basis is fitted on {n_fitted}; expected at most that")
