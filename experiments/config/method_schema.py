"""The method's part of a configuration, checked by the signature of the method's own function.

Keys beside its keyword arguments: `name`; `function=package.module:function` for one from outside; `label`, what tables
and figures call it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Optional, get_type_hints

from pydantic import Field, create_model

from libcore.method_options import with_paths
from libcore.methods import METHODS, Method, UnknownMethod, method_at
from libcore.names import nearest
from models.errors import UserError
from models.imported_sources import look_in_current_folder
from models.schema import Name, PathText, Strict

Text = Annotated[str, Field(min_length=1)]
OWN_KEYS = ("name", "function", "label")
"""What is not an option of the method's function."""


class MethodPart(Strict):
    """A method and its options; every method's part derives from it."""

    name: Name

    @property
    def method(self) -> Method:
        """What carries it out."""
        return method_of(self.name, getattr(self, "function", None))

    @property
    def title(self) -> str:
        """What it is called in tables and figures."""
        return vars(self).get("label") or self.method.label

    @property
    def options(self) -> dict[str, Any]:
        """The function's keyword arguments, paths as such."""
        given = {key: value for key, value in self.model_dump().items() if key not in OWN_KEYS}
        return with_paths(self.method.fit, given)

    @property
    def files(self) -> dict[str, Path]:
        """Files that the method reads, by option."""
        return {key: value for key, value in self.options.items() if isinstance(value, Path)}

    @property
    def module(self) -> str:
        """Where its function is defined."""
        return inspect.unwrap(self.method.fit).__module__


def method_of(name: str, function: str | None) -> Method:
    """By name, or by its function's address, which is looked for in the current folder too; raises UserError."""
    try:
        if function is None:
            return METHODS[name]
    except UnknownMethod as error:
        raise UserError(f"method.name={error}") from error
    look_in_current_folder()
    try:
        return method_at(function, name)
    except UnknownMethod as error:
        raise UserError(f"method.function={error}") from error


def validated_method(part: Any) -> MethodPart:
    """The method's part of a configuration.

    Raises:
        UserError: there is no such method.
        ValueError: no mapping; as `pydantic.ValidationError` for options that the method has not.
    """
    if isinstance(part, MethodPart):
        return part
    if not isinstance(part, Mapping):
        raise ValueError("expected the keys of a method")
    if not isinstance(part.get("name"), str):
        raise UserError(f"method.name={part.get('name')}: expected one of {', '.join(METHODS)}")
    method = method_of(part["name"], part.get("function"))
    if part.get("function") is not None and not part.get("label"):
        # Told in the run's own configuration, since a report may be made where the function is not to be found.
        part = {**part, "label": method.label}
    schema = schema_of(method, tuple(key for key in OWN_KEYS[1:] if key in part))
    for key in part:
        if key not in schema.model_fields:
            names = [f"method.{name}" for name in schema.model_fields]
            raise UserError(
                f"unknown configuration key method.{key}{nearest(f'method.{key}', names)}; --help lists all"
            )
    return schema.model_validate(part)


@cache
def schema_of(method: Method, own_keys: tuple[str, ...]) -> type[MethodPart]:
    """What may be written of a method: its function's keyword arguments, and what else is there."""
    fields: dict[str, Any] = {key: (Optional[Text], ...) for key in own_keys}  # noqa: UP045
    hints = get_type_hints(method.fit, include_extras=True)
    for name, parameter in method.options.items():
        hint = PathText if hints.get(name) is Path else hints.get(name, Any)
        fields[name] = (hint, ... if parameter.default is parameter.empty else parameter.default)
    return create_model(f"{method.name}Part", __base__=MethodPart, **fields)
