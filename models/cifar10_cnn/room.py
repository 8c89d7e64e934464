"""The convolutional network on images."""

from __future__ import annotations

import torch

from libcore.chain import Chain
from models.cifar10_cnn.network import Cnn
from models.cifar10_cnn.schema import Schema
from models.cifar10_cnn.sections import chain_of, grids
from models.vision.room import ImageClassifierRoom
from models.weights import ModelFile


class Cifar10Cnn(ImageClassifierRoom[Schema]):
    """`model=cifar10_cnn`."""

    def network(self) -> Cnn:
        return Cnn(self.image_format, self.model.channels, self.model.pooling)

    def grids(self) -> dict[str, tuple[int, int]]:
        return grids(self.image_format, len(self.model.channels))

    def chain(self, file: ModelFile, dtype: torch.dtype, device: torch.device) -> Chain:
        channels, pooling = self.model.channels, self.model.pooling
        chain = chain_of(file.tensors, self.image_format, channels, pooling, dtype, device)
        return chain.restricted_to(self.node_layers)
