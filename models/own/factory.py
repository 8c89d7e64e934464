"""`model.factory=package.module:function`: the function, and whether it takes the keys beside it."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, field_validator, model_validator

from libcore.messages import one_line
from libcore.names import nearest
from models.content_hashes import PROJECT
from models.errors import UserError
from models.imported_sources import LIBRARIES, PACKAGES, look_in_current_folder
from models.schema import ModelSchema, Name

OTHERS = ("<", *(str(PROJECT / package) for package in PACKAGES), *LIBRARIES)
"""How the names of files begin that are not the user's: code without a file, the project, Python and its libraries."""


class FactorySchema(ModelSchema):
    """A model that a function of the user's makes; all other keys are the function's own parameters."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    room: ClassVar[str] = "models.own.room:OwnRoom"
    randomizations: ClassVar[tuple[str, ...]] = ()

    kind: Name
    checkpoint: str | None = None
    factory: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What the configuration gives the function."""
        return dict(self.model_extra or {})

    @field_validator("checkpoint")
    @classmethod
    def loads_its_own_weights(cls, checkpoint: str | None) -> None:
        """Which file they are in is a parameter of the function."""
        if checkpoint is not None:
            raise ValueError("the function of model.factory loads its own weights; expected null")

    @model_validator(mode="after")
    def takes_the_arguments(self) -> FactorySchema:
        """Raises UserError for keys that are no parameters, and for parameters that have no value."""
        parameters = parameters_of(self.factory)
        takes = f"{self.factory} takes {', '.join(parameters) or 'nothing'}"
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            for name in self.arguments:
                if name not in parameters:
                    hint = nearest(f"model.{name}", [f"model.{other}" for other in parameters])
                    raise UserError(f"unknown configuration key model.{name}{hint}; {takes}")
        variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        for name, parameter in parameters.items():
            has_value = parameter.default is not parameter.empty or parameter.kind in variable
            if not (has_value or name in self.arguments or name == "seed"):
                raise UserError(f"configuration key model.{name} is missing; {takes}")
        return self

    def takes_seed(self) -> bool:
        """Whether the function takes the run's seed."""
        return "seed" in parameters_of(self.factory) and "seed" not in self.arguments


def imported_function(address: str) -> Callable[..., Any]:
    """The function at `package.module:function`, looked for in the current folder as well. Raises UserError."""
    option = f"model.factory={address}"
    module_name, _, name = address.partition(":")
    if not (module_name and name):
        raise UserError(f"{option}: expected package.module:function")
    look_in_current_folder()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module runs into
        raise UserError(f"{option}: {module_name} cannot be imported: {error_and_place(error)}") from error
    if not callable(function := getattr(module, name, None)):
        functions = [other for other, value in vars(module).items() if callable(value)]
        raise UserError(f"{option}: {module_name} has no function {name}{nearest(name, functions)}")
    return function


def parameters_of(address: str) -> dict[str, inspect.Parameter]:
    """The function's parameters by name; raises UserError."""
    function = imported_function(address)
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError) as error:
        raise UserError(f"model.factory={address}: its parameters are not known ({one_line(error)})") from error


def error_and_place(error: Exception) -> str:
    """`ValueError: what it says (my_models.py, line 7)`: the last line of the user's own on the way to it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OTHERS)]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {one_line(error)}{place}"
