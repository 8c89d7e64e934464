"""A configuration beside the memory that there is, before anything is allocated."""

from __future__ import annotations

from typing import Any

from experiments.config.schema import RunConfig
from models.errors import UserError
from models.memory import in_words, machine_memory


def refuse_too_large(config: RunConfig) -> None:
    """Raises UserError for sizes that need more memory than this machine has, with the key that is to blame."""
    memory = machine_memory()
    if memory is None:
        return
    has = f"this machine has {in_words(memory)}"
    if config.analysis.memory_bytes > memory:
        raise UserError(f"analysis.memory_budget={config.analysis.memory_budget}: {has}; expected a part of it")
    needs = list(config.model.memory_needs())
    if (total := sum(need.n_bytes for need in needs)) > memory:
        most = max(needs, key=lambda need: need.n_bytes)
        key = max(most.keys, key=lambda key: magnitude(getattr(config.model, key)))
        raise UserError(
            f"model.{key}={getattr(config.model, key)}: the run needs at least {in_words(total)} of memory, "
            f"{in_words(most.n_bytes)} of it for {most.what}; {has}"
        )


def magnitude(value: Any) -> int:
    """Of a number, or the largest of several."""
    return max(value) if isinstance(value, list) else int(value)
