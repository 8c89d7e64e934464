"""Whole numbers of a configuration have a range, and sizes that memory has no room for are refused before anything."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, get_args

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from running import TOY_MODELS, assert_says, config_of

from experiments.config import memory
from experiments.config.analysis_schema import bytes_of
from experiments.config.schema import RunConfig
from models import model_kinds
from models.errors import UserError
from models.memory import in_words, machine_memory

LARGE = 10**9
FREE = {"analysis.memory_budget", "analysis.disk_budget"}
"""Beside a text; compared with memory by itself."""


def annotations_of(field: FieldInfo) -> Iterator[tuple[Any, list[Any]]]:
    """Every type within a field's annotation with what is said of it."""
    pending = [(field.annotation, list(field.metadata))]
    while pending:
        kind, said = pending.pop()
        if hasattr(kind, "__metadata__"):
            pending.append((kind.__origin__, [*said, *kind.__metadata__]))
        elif get_args(kind):
            pending += [(part, said) for part in get_args(kind)]
        else:
            flat = [one for entry in said for one in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
            yield kind, flat


def whole_numbers(schema: type[BaseModel], prefix: str) -> Iterator[tuple[str, list[Any]]]:
    for name, field in schema.model_fields.items():
        for kind, said in annotations_of(field):
            if kind is int:
                yield f"{prefix}{name}", said
            elif isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not schema:
                yield from whole_numbers(kind, f"{prefix}{name}.")


def schemas() -> dict[str, type[BaseModel]]:
    return {"": RunConfig} | {f"{kind}: ": import_module(f"models.{kind}.schema").Schema for kind in model_kinds()}


def test_every_whole_number_has_a_range() -> None:
    found = {key: said for prefix, schema in schemas().items() for key, said in whole_numbers(schema, prefix)}
    assert {"modular_addition: d_mlp", "analysis.probes.n", "small_transformer: training.steps", "threads"} <= set(
        found
    )
    assert "cifar10_mlp: hidden_sizes" in found
    for key, said in found.items():
        has = {kind: any(isinstance(one, kind) for one in said) for kind in (Ge, Gt, Le, Lt)}
        assert key in FREE or ((has[Ge] or has[Gt]) and (has[Le] or has[Lt])), key


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("modular_addition", "modulus"),
        ("modular_addition", "d_model"),
        ("modular_addition", "n_heads"),
        ("modular_addition", "d_head"),
        ("modular_addition", "d_mlp"),
        ("small_transformer", "d_model"),
        ("small_transformer", "n_heads"),
        ("small_transformer", "d_head"),
        ("small_transformer", "d_mlp"),
        ("small_transformer", "sequence_length"),
        ("block_diagonal_mlp", "n_outputs_per_block"),
        ("pretrained_transformer", "sequence_length"),
    ],
)
def test_a_size_that_memory_has_no_room_for_is_named(kind: str, key: str) -> None:
    with pytest.raises(UserError) as error:
        config_of(f"model={kind}", *TOY_MODELS[kind], f"model.{key}={LARGE}")
    assert_says(str(error.value), f"model.{key}={LARGE}: the run needs at least", "this machine has")


def test_what_is_needed_is_compared_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("model.modulus=101")
    needed = sum(need.n_bytes for need in config.model.memory_needs())
    monkeypatch.setattr(memory, "machine_memory", lambda: needed)
    overrides = ("model.modulus=101", "analysis.memory_budget=1MB")
    config_of(*overrides)
    monkeypatch.setattr(memory, "machine_memory", lambda: needed - 1)
    with pytest.raises(UserError, match=r"for bases of the node layers|for all pairs of numbers|for weights"):
        config_of(*overrides)
    monkeypatch.setattr(memory, "machine_memory", lambda: None)
    config_of(*overrides)


def test_many_wide_layers_are_counted_together() -> None:
    sizes = f"[{','.join(['8192'] * 100)}]"
    with pytest.raises(UserError, match=r"model.hidden_sizes=.* for bases of the node layers"):
        config_of("model=cifar10_mlp", f"model.hidden_sizes={sizes}")


def test_a_memory_budget_is_a_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bytes_of("9" * 400 + "GB") == -1
    monkeypatch.setattr(memory, "machine_memory", lambda: 2**30)
    with pytest.raises(UserError, match=r"analysis.memory_budget=2GB: this machine has 1 GB; expected a part of it"):
        config_of("analysis.memory_budget=2GB")


def test_sizes_in_words() -> None:
    assert [in_words(n) for n in (0, 1000, 1024, 3 * 2**29, 10**15)] == ["0 B", "1e+03 B", "1 kB", "1.5 GB", "909 TB"]
    assert (machine_memory() or 2**60) > 2**28
