"""What the user gives to the benchmark: where data sets, checkpoints and models lie. Nothing is needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from experiments.config.composition import config_of
from experiments.config.model_checks import resolve_device
from experiments.config.schema import RunConfig
from models.errors import UserError
from models.room import Room, room_of


@dataclass(frozen=True)
class Sources:
    """Paths by what they are of.

    Attributes:
        checkpoints: by model.
        cifar: folder of CIFAR-10; None for random images.
        stories: folder or hub name of a pretrained decoder; None for random weights.
        text: of the pretrained decoder; None for the project's default.
        output_directory: where finished stages are kept.
        device: `auto`, `cpu`, `cuda`, …
    """

    checkpoints: dict[str, str] = field(default_factory=dict)
    cifar: str | None = None
    stories: str | None = None
    text: str | None = None
    output_directory: str = "outputs"
    device: str = "auto"

    def config(self, model: str, *overrides: str) -> RunConfig:
        """The configuration of a run of this model; raises UserError."""
        given = [f"model={model}", f"device={self.device}", f"output_directory={self.output_directory}", *overrides]
        if model in self.checkpoints:
            given.append(f"model.checkpoint={self.checkpoints[model]}")
        return config_of(given)

    def room(self, config: RunConfig) -> Room[Any]:
        """The model's room, its device and checkpoint checked; raises UserError."""
        resolve_device(config.device)
        room = room_of(config.model_settings)
        if config.model.checkpoint is not None:
            room.read_checkpoint()
        return room


def checkpoints_of(arguments: list[str], models: tuple[str, ...]) -> dict[str, str]:
    """`MODEL=PATH`, several of them; raises UserError for another form or model."""
    found = {}
    for argument in arguments:
        model, equals, path = argument.partition("=")
        if not (equals and path) or model not in models:
            raise UserError(f"--checkpoint {argument}: expected MODEL=PATH with a model of {', '.join(models)}")
        found[model] = path
    return found
