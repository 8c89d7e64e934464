"""Node and edge ablation: how many features, and how many edges, the model's score needs (METHOD.md 4)."""

from libcore.ablation.by_example import ExampleAblations, ExampleCurve, ablate_by_example, resampled_needed
from libcore.ablation.edge import edge_ablation, smallest_kept_edge, strongest_edges
from libcore.ablation.evaluation import (
    AblationCurve,
    EvaluationData,
    accuracy,
    cross_entropy,
    is_within,
    unablated_score,
)
from libcore.ablation.node import node_ablation
from libcore.ablation.whole_model import Ablated, Ablations, ablate, ablation_steps

__all__ = [
    "Ablated",
    "AblationCurve",
    "Ablations",
    "EvaluationData",
    "ExampleAblations",
    "ExampleCurve",
    "ablate",
    "ablate_by_example",
    "ablation_steps",
    "accuracy",
    "cross_entropy",
    "edge_ablation",
    "is_within",
    "node_ablation",
    "resampled_needed",
    "smallest_kept_edge",
    "strongest_edges",
    "unablated_score",
]
