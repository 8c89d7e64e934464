"""A method's options as its function's annotations promise them: named choices, and paths."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from libcore.names import nearest, refuse_other


def options_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Its keyword arguments."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def refuse_options(method: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raises ValueError for options that the function has not, lacks, or knows no such choice or path of."""
    options, hints = options_of(function), hints_of(function)
    for name in given:
        if name not in options:
            expected = ", ".join(options) or "none"
            raise ValueError(f"{name}: method {method} has no such option{nearest(name, options)}; expected {expected}")
    for name, parameter in options.items():
        if name not in given:
            if parameter.default is parameter.empty:
                raise ValueError(f"{name}: method {method} needs it; expected {name}=")
        elif get_origin(hints.get(name)) is Literal:
            refuse_other(name, given[name], get_args(hints[name]))
        elif hints.get(name) is Path and not isinstance(given[name], (str, Path)):
            raise ValueError(f"{name}={given[name]!r}: method {method} reads a file; expected its path")


def with_paths(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The same options; a string where the function asks for a path becomes one."""
    hints = hints_of(function)
    return {
        name: Path(value) if hints.get(name) is Path and isinstance(value, str) else value
        for name, value in given.items()
    }


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations as types; none where they name what cannot be found from the function's module."""
    try:
        return get_type_hints(function)
    except (NameError, AttributeError, TypeError):
        return {}
