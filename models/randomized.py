"""Controls: a model whose weights hold nothing that it has learned, of the same shapes and sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor

from models.weights import ModelFile

CONVOLUTION_DIMENSIONS = 4


def shuffled(file: ModelFile, seed: int) -> ModelFile:
    """The entries of every matrix in another order, drawn by the seed; vectors (biases, gains, moments) as they are.

    A stack of matrices, one per head, is shuffled within each of them, a convolution's kernel as a whole.
    """
    return redrawn(file, seed, shuffled_matrices)


def gaussian(file: ModelFile, seed: int) -> ModelFile:
    """The entries of every matrix drawn anew from a normal distribution of that matrix's mean square; vectors as they
    are."""
    return redrawn(file, seed, gaussian_matrices)


def redrawn(file: ModelFile, seed: int, of_matrices: Callable[[Tensor, Generator], Tensor]) -> ModelFile:
    """Tensors in the order of their names, one generator for all."""
    generator = Generator().manual_seed(seed)
    tensors = dict(file.tensors)
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.ndim >= 2 and tensor.is_floating_point() and not is_bias(name):
            matrices = tensor.flatten(1)[None] if tensor.ndim >= CONVOLUTION_DIMENSIONS else tensor
            flat = matrices.reshape(-1, matrices.shape[-2:].numel()).cpu()
            tensors[name] = of_matrices(flat, generator).to(tensor).view_as(tensor)
    return replace(file, tensors=tensors)


def is_bias(name: str) -> bool:
    """`b_Q`, `bias`: per head, biases have two dimensions too."""
    return name.rpartition(".")[2].startswith("b")


def shuffled_matrices(flat: Tensor, generator: Generator) -> Tensor:
    """`[matrix, entry]`."""
    orders = [torch.randperm(flat.shape[1], generator=generator) for _ in flat]
    return flat.gather(1, torch.stack(orders))


def gaussian_matrices(flat: Tensor, generator: Generator) -> Tensor:
    """`[matrix, entry]`."""
    deviation = flat.double().square().mean(1, keepdim=True).sqrt()
    return torch.randn(flat.shape, generator=generator, dtype=torch.float64) * deviation


def shuffled_labels(labels: Tensor, seed: int) -> Tensor:
    """Each example has another one's label: nothing is left to learn but the examples themselves."""
    return labels[torch.randperm(len(labels), generator=Generator().manual_seed(seed)).to(labels.device)]
