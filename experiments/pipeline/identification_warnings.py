"""What can't be trusted of a basis, said in the log: one line for each node layer and kind."""

from __future__ import annotations

import logging
from typing import Any

import torch

from libcore.identification import HIGHER_CUT, IDENTIFIED

log = logging.getLogger(__name__)


def warn_of(layer: str, found: dict[str, Any], dtype: str) -> None:
    """`found` is what the identification stage has of the layer; nothing is said of what is as it should be."""
    for line in warnings_of(found, dtype):
        log.warning("%s: %s", layer, line)


def warnings_of(found: dict[str, Any], dtype: str) -> list[str]:
    """One line for each kind of doubt."""
    kinds = (nothing_varies(found, dtype), too_few(found), rounding_noise(found, dtype), moved(found, dtype))
    return [line for line in (*kinds, unlike_halves(found)) if line is not None]


def nothing_varies(found: dict[str, Any], dtype: str) -> str | None:
    """A layer whose only feature is the constant."""
    if found["varying"]:
        return None
    again = found.get("kept_again", 0) - (found["kept"] - found["varying"])
    beside = f", where float64 tells {again} apart" if dtype != "float64" and again > 0 else ""
    return f"no feature but the constant: {dtype} tells no direction from one that does not vary{beside}"


def too_few(found: dict[str, Any]) -> str | None:
    """Fewer activations than dimensions."""
    if found["activations"] > found["dimensions"]:
        return None
    return (
        f"{found['activations']} activations for {found['dimensions']} dimensions: at most "
        f"{found['activations'] - 1} directions can be seen to vary, whatever the model does"
    )


def rounding_noise(found: dict[str, Any], dtype: str) -> str | None:
    """A feature whose value is rounding."""
    noise = found["condition"] * torch.finfo(getattr(torch, dtype)).eps
    if noise <= IDENTIFIED:
        return None
    return (
        f"the worst feature is read from terms {found['condition']:.1e} times its own size: "
        f"{dtype} leaves an error of {min(noise, 1.0):.1e} in it"
    )


def moved(found: dict[str, Any], dtype: str) -> str | None:
    """Features that rounding moves."""
    if "identified" not in found or found["identified"] == found["kept"]:
        return None
    in_groups = found["identified_in_groups"] - found["identified"]
    grouped = f", {in_groups} more as subspaces" if in_groups else ""
    against = (
        f"moments are rounded anew and the cut is {HIGHER_CUT:g} times as high"
        if dtype == "float64"
        else "they are fitted in float64"
    )
    kept = "as many" if found["kept_again"] == found["kept"] else f"{found['kept_again']}"
    return (
        f"{found['identified']} of {found['kept']} features are identified{grouped}; the others move by more than "
        f"{IDENTIFIED:g} if {against}, which keeps {kept} ({100 * found['importance_identified']:.4g} % of the "
        "importance is identified)"
    )


def unlike_halves(found: dict[str, Any]) -> str | None:
    """Leading features that the other half of the data does not have."""
    n, n_found = found.get("compared_in_halves", 0), found.get("found_in_halves", 0)
    if n_found == n:
        return None
    return f"{n_found} of the first {n} features are found on both halves of the data"
