"""From a model's configuration to the trained model: the one place where configuration and `models/` meet.

A model joins with a schema in `model_configs.py`, a YAML file in `conf/model/` and a family in `MODELS`.
"""

from __future__ import annotations

from experiments.model_families.block_diagonal_mlp import BlockDiagonalMlpFamily
from experiments.model_families.family import ModelFamily, Trained, Weights
from experiments.model_families.modular_addition import ModularAdditionFamily
from experiments.model_families.pretrained_transformer import PretrainedTransformerFamily
from experiments.model_families.small_transformer import SmallTransformerFamily
from experiments.model_families.vision import CnnFamily, MlpFamily

__all__ = ["MODELS", "ModelFamily", "Trained", "Weights"]

MODELS: dict[str, ModelFamily] = {
    "modular_addition": ModularAdditionFamily(),
    "cifar10_mlp": MlpFamily(),
    "cifar10_cnn": CnnFamily(),
    "block_diagonal_mlp": BlockDiagonalMlpFamily(),
    "small_transformer": SmallTransformerFamily(),
    "pretrained_transformer": PretrainedTransformerFamily(),
}
