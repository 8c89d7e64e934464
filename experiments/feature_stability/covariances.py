"""Joint covariances of two runs' features: from their Grams where the weights are the same, else from activations."""

from __future__ import annotations

import torch

from experiments.config.model_checks import resolve_device
from experiments.feature_stability.compared_runs import ComparedRun
from libcore.stability.joint_covariance import JointCovariance, JointMoments
from models.analysed import AnalysedModel
from models.errors import UserError

AT_A_TIME = 64
"""Inputs that go through both models at once."""
Covariances = dict[str, JointCovariance]
"""By node layer, of all features, constants included."""


def covariances_by_gram(first: ComparedRun, second: ComparedRun) -> Covariances:
    """Of one model's features: over the data that either basis was fitted on, each example counting the same."""
    found: Covariances = {}
    for layer in first.graph.node_layers:
        one, other = first.graph.statistics[layer], second.graph.statistics[layer]
        if one.gram.shape != other.gram.shape:
            raise UserError(
                f"{second.directory}: {len(other.gram)} coordinates at {layer}; expected {len(one.gram)}, as in "
                f"{first.directory}"
            )
        gram = (one.count * one.gram.double() + other.count * other.gram.double()) / (one.count + other.count)
        found[layer] = JointCovariance.of_bases(gram, first.graph.bases[layer], second.graph.bases[layer])
    return found


def covariances_by_activations(first: ComparedRun, second: ComparedRun, n_examples: int) -> Covariances:
    """Of two models' features, on the first examples of the first run's training split.

    Raises UserError for models that do not take the same inputs.
    """
    models = analysed(first), analysed(second)
    chains = [model.chain(torch.float64) for model in models]
    inputs, others = (model.fit_inputs(n_examples) for model in models)
    if inputs.shape[1:] != others.shape[1:] or inputs.dtype != others.dtype:
        raise UserError(
            f"{second.directory}: inputs of shape {list(others.shape[1:])}; expected {list(inputs.shape[1:])}, as in "
            f"{first.directory}"
        )
    bases = [
        {layer: basis.to(device=inputs.device, dtype=torch.float64) for layer, basis in run.graph.bases.items()}
        for run in (first, second)
    ]
    moments = {layer: JointMoments(*(of[layer].n_features for of in bases)) for layer in first.graph.node_layers}
    with torch.no_grad():
        for some in inputs.split(AT_A_TIME):
            passes = [chain.activations(some) for chain in chains]
            for layer, *activations in zip(moments, *passes, strict=True):
                values = [of[layer].features(one) for of, one in zip(bases, activations, strict=True)]
                if values[0].shape[:2] != values[1].shape[:2]:
                    raise UserError(
                        f"{layer}: {values[0].shape[1]} positions in {first.directory}, {values[1].shape[1]} in "
                        f"{second.directory}; expected as many"
                    )
                moments[layer].add(*values)
    return {layer: of_layer.covariance() for layer, of_layer in moments.items()}


def analysed(run: ComparedRun) -> AnalysedModel:
    """The run's model with its data; raises UserError where these are no longer to be had."""
    return run.room.analysed(run.model, resolve_device("auto"))
