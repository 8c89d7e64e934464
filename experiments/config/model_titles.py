"""What a model is called in directories, tracker and reports: by its kind, image classifiers by their data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

DEFAULT_DATA_SET = "cifar10"


def model_title(model: Mapping[str, Any]) -> str:
    """`modular_addition`, `cifar10_mlp`, `digits_mlp`: from the model's part of a configuration."""
    kind, data_set = str(model["kind"]), model.get("dataset")
    if isinstance(data_set, str) and kind.startswith(f"{DEFAULT_DATA_SET}_"):
        return f"{data_set}_{kind.removeprefix(f'{DEFAULT_DATA_SET}_')}"
    return kind


# For `hydra.run.dir`: ${model_title:${model}}
OmegaConf.register_new_resolver("model_title", model_title, replace=True)
