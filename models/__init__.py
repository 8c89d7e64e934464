"""What is analysed: one folder a model, found by its kind when a run asks for it.

A model is a folder `models/<kind>/` with a `schema.py`, or an entry point of the group `local_interaction_basis.models`
that an installed package adds: its name is the kind, its value the `module:class` of a `ModelSchema`. A function of the
user's own is a model as well (`model.factory=package.module:function`). Nothing is imported before it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from libcore.messages import one_line
from libcore.names import nearest
from models.errors import UserError
from models.schema import ModelSchema

ENTRY_POINTS = "local_interaction_basis.models"


def model_kinds() -> dict[str, str]:
    """`module:class` of every model's schema, by kind; a model of the project goes before an added one of its name."""
    return dict(kinds_on(tuple(sys.path)))


@cache
def kinds_on(path: tuple[str, ...]) -> Mapping[str, str]:
    """`model_kinds` as long as Python looks for packages in the same folders: looking through them takes a while."""
    added = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    folders = sorted(file.parent.name for file in Path(__file__).parent.glob("*/schema.py"))
    return added | {kind: f"models.{kind}.schema:Schema" for kind in folders}


def schema_of(kind: str) -> type[ModelSchema]:
    """The schema of a kind of model. Raises UserError for a kind that there is not, or that cannot be imported."""
    kinds = model_kinds()
    if kind not in kinds:
        raise UserError(f"model.kind={kind}: no such model{nearest(kind, kinds)}; expected one of {', '.join(kinds)}")
    module, _, name = kinds[kind].partition(":")
    try:
        schema = getattr(import_module(module), name)
    except Exception as error:  # whatever another package's code runs into
        raise UserError(f"model.kind={kind}: {kinds[kind]} cannot be imported ({one_line(error)})") from error
    if not (isinstance(schema, type) and issubclass(schema, ModelSchema)):
        raise UserError(f"model.kind={kind}: {kinds[kind]} is no schema; expected a class of models.schema.ModelSchema")
    return schema


def validated_model(part: Any) -> ModelSchema:
    """The model's part of a configuration by the schema of its kind.

    Raises:
        UserError: there is no such kind, or its code cannot be used.
        ValueError: no mapping; as `pydantic.ValidationError` for values that the schema refuses.
    """
    if isinstance(part, ModelSchema):
        return part
    if not isinstance(part, Mapping):
        raise ValueError("expected the keys of a model")
    if "kind" not in part:
        raise UserError("configuration key model.kind is missing; --help lists all")
    if part.get("factory") is not None:
        from models.own.factory import FactorySchema

        if part["kind"] in model_kinds():
            raise UserError(f"model.kind={part['kind']}: is another model; expected a name of its own")
        return FactorySchema.model_validate(part)
    return schema_of(str(part["kind"])).model_validate(part)
