"""The Local Interaction Basis: a module in, its interaction graph out.

    from libcore import Chain, InteractionGraph, ablate, accuracy, fit

    chain = Chain.from_module(net, example)             # sections between the node layers of a network
    graph = fit(chain, inputs, method="lib")            # statistics, bases, edges
    graph.bases["0"].to_basis, graph.edges["0"]         # features, squared interaction strengths
    ablate(graph, chain, accuracy(test_inputs, labels)) # how many features and edges the network needs
    graph.save("graph.safetensors")

`methods/lib.py` is the algorithm box of the paper; `sections/` holds what is known in closed form, `estimators/` what
differentiates the rest. Names are imported when they are used first.
"""

# pyright: reportUnsupportedDunderAll=false
from __future__ import annotations

from importlib import import_module
from typing import Any

HOMES = {
    "Ablations": "libcore.ablation",
    "Basis": "libcore.basis",
    "Chain": "libcore.chain",
    "EvaluationData": "libcore.ablation",
    "FitSettings": "libcore.fit_settings",
    "InteractionGraph": "libcore.graph",
    "METHODS": "libcore.methods",
    "Truncation": "libcore.eigen",
    "ablate": "libcore.ablation",
    "accuracy": "libcore.ablation",
    "find_communities": "libcore.modularity",
    "fit": "libcore.fitting",
    "interaction_edges": "libcore.graph",
    "method": "libcore.methods",
}
"""Where each name of the front door lives."""

__all__ = [
    "METHODS",
    "Ablations",
    "Basis",
    "Chain",
    "EvaluationData",
    "FitSettings",
    "InteractionGraph",
    "Truncation",
    "ablate",
    "accuracy",
    "find_communities",
    "fit",
    "interaction_edges",
    "method",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'libcore' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
