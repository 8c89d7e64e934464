"""A metric's key in its parts, and the order that metrics stand in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

TOTAL = "total"
NEEDED = re.compile(r"(?P<kind>[^/]+/needed(?:_low|_high)?)_(?P<tolerance>\d+(?:\.\d+)?)(?:/(?P<layer>.+))?")
WITHOUT_LAYER = ("score", "graph", "time", "memory", "estimate")
"""Sections whose second part says what was measured, not where."""


@dataclass(frozen=True)
class MetricKey:
    """`edges/needed_0.001/layers.0` as `edges/needed`, 0.001 and `layers.0`.

    Attributes:
        kind: what was measured.
        tolerance: at which a count is needed; None for what is no needed count.
        layer: node layer, or `total`; None for what is of the whole model.
    """

    kind: str
    tolerance: float | None
    layer: str | None

    @property
    def is_whole(self) -> bool:
        """Whether it is of the whole model: a total, or without a layer."""
        return self.layer in (None, TOTAL)


def parse_metric(name: str) -> MetricKey:
    """Any key; one of an unknown form is a kind by itself, without tolerance and layer."""
    if (needed := NEEDED.fullmatch(name)) is not None:
        return MetricKey(needed["kind"], float(needed["tolerance"]), needed["layer"])
    section, *parts = name.split("/", 2)
    if section in WITHOUT_LAYER or len(parts) < 2:
        return MetricKey(name, None, None)
    return MetricKey(f"{section}/{parts[0]}", None, parts[1])


def plain(tolerance: float) -> str:
    """`0.001`, not `1e-03`: how metric keys and files write a tolerance."""
    return f"{tolerance:.12f}".rstrip("0").rstrip(".")


def tolerance_of(name: str, kind: str) -> float | None:
    """The tolerance in a metric's key, where it is of a needed count of this kind, `features` or `edges`."""
    parsed = parse_metric(name)
    return parsed.tolerance if parsed.kind == f"{kind}/needed" else None


def is_interval_end(name: str) -> bool:
    """Whether a metric is the lower or upper end of a needed count's interval over test examples."""
    return parse_metric(name).kind.endswith(("/needed_low", "/needed_high"))


def in_order(names: Iterable[str]) -> list[str]:
    """By metric, tightest tolerance first, then node layers from first to last and the total at the end."""
    return sorted(
        names, key=lambda name: (name.rpartition("/")[0], name.endswith(f"/{TOTAL}"), layer_order(name), name)
    )


IN_BLOCK = (
    "hook_resid_pre",
    "ln1.hook_scale",
    "ln1.hook_normalized",
    "hook_resid_mid",
    "ln2.hook_scale",
    "ln2.hook_normalized",
    "mlp.hook_post",
    "hook_resid_post",
)
AFTER_BLOCKS = ("ln_final.hook_scale", "ln_final.hook_normalized", "output")
"""Node layers of transformers in the order of their computation."""


def layer_order(name: str) -> tuple[str, int, str]:
    """Node layers sort by block and place in it; what comes after the last block is last."""
    layer = name.rpartition("/")[2]
    if layer in AFTER_BLOCKS:
        return "~", AFTER_BLOCKS.index(layer), layer
    inside = re.fullmatch(r"(blocks\.\d+)\.(.+)", layer)
    block, place = (inside[1], inside[2]) if inside is not None and inside[2] in IN_BLOCK else (layer, IN_BLOCK[-1])
    return re.sub(r"\d+", lambda digits: digits[0].zfill(6), block), IN_BLOCK.index(place), layer
