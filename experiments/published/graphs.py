"""Interaction graphs as the paper's public code writes them, in our names: `*_rib_graph.pt`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from libcore.messages import one_line
from libcore.regular_files import refuse_irregular
from models.errors import UserError
from models.weights import UNREADABLE, CheckpointError, independent

SUFFIX = "_rib_graph.pt"
METHODS = {"jacobian": "lib", "svd": "pca", "neuron": "neuron"}
"""Of its `basis_formula`; another one keeps its name, without what a file's name cannot have."""
MODELS = {"modular_arithmetic": "modular_addition"}
"""Of its data set's type; another one keeps its name."""
MATRICES = {"C": "to_basis", "C_pinv": "from_basis", "Lambda": "importance"}


@dataclass(frozen=True)
class PublishedGraph:
    """One graph.

    Attributes:
        name: the experiment's, which its other files begin with.
        model: ours.
        method: ours.
        seed: of the model: that in the experiment's name, or the configuration's.
        checkpoint: as the configuration names it; None where the weights are not a file.
        layers: our name by theirs.
        tensors: by our names, as in `graph.safetensors`.
    """

    name: str
    model: str
    method: str
    seed: int
    checkpoint: str | None
    layers: dict[str, str]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> PublishedGraph:
        """Without carrying out code in it. Raises UserError for a file that is none, by what is missing."""
        try:
            refuse_irregular(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
        except UNREADABLE as error:
            raise UserError(f"{path}: not readable without running code in it; expected a published graph") from error
        try:
            graph = cls.of(content)
            return replace(graph, tensors=independent(graph.tensors, path))
        except CheckpointError as error:
            raise UserError(str(error)) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: {one_line(error)} is missing, or of another kind; expected a published graph"
            ) from error

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> PublishedGraph:
        """From what the file holds; raises KeyError, TypeError or AttributeError for something else."""
        config, name = content["config"], content["exp_name"]
        layers = {theirs: our_layer(theirs, content["ml_model_config"]) for theirs in config["node_layers"]}
        data, formula = str(config["dataset"]["dataset_type"]), str(config["basis_formula"])
        in_name = re.search(r"seed(\d+)", name)
        return cls(
            name,
            MODELS.get(data, data),
            METHODS.get(formula, re.sub(r"[^\w.-]+", "_", formula).strip("_")),
            int(in_name[1]) if in_name else int(config["seed"]),
            config.get("tlens_model_path") or config.get("mlp_path"),
            layers,
            dict(tensors_of(content, layers)),
        )


def tensors_of(content: Mapping[str, Any], layers: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    """Moments, bases and edges; a layer in its own coordinates has no basis there."""
    for kind, by_layer in (("mean", content["mean_vectors"]), ("gram", content["gram_matrices"])):
        for layer, tensor in (by_layer or {}).items():
            yield f"{kind}/{layers[layer]}", tensor
    for rotation in content["interaction_rotations"]:
        for theirs, ours in MATRICES.items():
            if rotation[theirs] is not None:
                yield f"{ours}/{layers[rotation['node_layer']]}", rotation[theirs]
    for edges in content["edges"]:
        yield f"edges/{layers[edges['in_node_layer']]}", edges["E_hat"]


def our_layer(theirs: str, model: Mapping[str, Any]) -> str:
    """TransformerLens hook names: before attention, before the MLP, after the last block; others as they are."""
    kind, _, number = theirs.partition(".")
    if kind in ("ln1", "ln2") and number.isdigit():
        return f"blocks.{number}.hook_resid_{'pre' if kind == 'ln1' else 'mid'}"
    if theirs in ("unembed", "ln_final"):
        return f"blocks.{model['n_layers'] - 1}.hook_resid_post"
    return theirs
