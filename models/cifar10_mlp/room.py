"""The paper's MLP on images; the network lies in `models/vision/mlp.py`."""

from __future__ import annotations

import torch

from libcore.chain import Chain
from models.cifar10_mlp.schema import Schema
from models.vision.mlp import Mlp, chain_of, node_layers
from models.vision.room import ImageClassifierRoom
from models.weights import ModelFile


class Cifar10Mlp(ImageClassifierRoom[Schema]):
    """`model=cifar10_mlp`."""

    def network(self) -> Mlp:
        return Mlp(self.image_format, self.model.hidden_sizes)

    def grids(self) -> dict[str, tuple[int, int]]:
        return dict.fromkeys(node_layers(len(self.model.hidden_sizes)), (1, 1))

    def chain(self, file: ModelFile, dtype: torch.dtype, device: torch.device) -> Chain:
        return chain_of(file.tensors, dtype, device).restricted_to(self.node_layers)
