"""What a vision model's features respond to: labels and pictures from the images at both ends of each feature.

Both share one search of the images (`models/top_examples.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn import functional

from libcore.basis import Basis
from libcore.chain import Chain
from models.analysed import CONSTANT, QUANTILES, ExampleImage, FeaturePicture, is_neuron_basis
from models.quantile_examples import rows_at_quantiles
from models.top_examples import Extremes, TopExamples, highest_positions, top_examples

N_EXAMPLES = 8
"""Images at either end of a feature, or all where there are fewer."""
PICTURED_EXAMPLES = 10_000
"""Only the first so many images are searched: enough for telling ones at both ends, in seconds."""
PICTURED_FEATURES = 64
"""Features of each node layer, the constant included, that pictures are made of."""
POOLED_EXAMPLES = 256
"""Images, the first ones, from which those at quantiles are taken: so few that a page can embed each once."""
N_AT_QUANTILE = 4
"""Images at each quantile."""
COMMON_EXAMPLES = 24
"""Images, the first ones, on which every feature's activation is kept."""
PATCH_SIZE = 8
"""Pixels along the side of a patch that shows a colour."""

Box = tuple[int, int, int, int]


def class_labels(
    classes: Int64[Tensor, "feature n"], class_names: tuple[str, ...], basis: Basis, is_last: bool
) -> list[str]:
    """A short name for every feature, from the classes of its highest examples: `ship 6/8`.

    Of classes that are equally common the one that comes first along the examples is named. Logits in the neuron basis
    bear their class's name, and the constant feature its own.
    """
    if is_last and is_neuron_basis(basis) and basis.n_features == len(class_names):
        return list(class_names)
    n = classes.shape[1]
    frequency = functional.one_hot(classes, len(class_names)).sum(1).gather(1, classes)
    commonest = (frequency * n - torch.arange(n)).argmax(1, keepdim=True)
    named = zip(classes.gather(1, commonest)[:, 0].tolist(), frequency.gather(1, commonest)[:, 0].tolist(), strict=True)
    labels = [f"{class_names[index]} {count}/{n}" for index, count in named]
    return [CONSTANT, *labels[1:]] if basis.has_constant else labels


def at_quantiles(pooled: Extremes) -> list[Extremes]:
    """By `QUANTILES`, the examples whose activation lies there."""
    return [
        Extremes(*(entries.gather(1, rows) for entries in (pooled.values, pooled.examples, pooled.positions)))
        for rows in rows_at_quantiles(pooled.values.T, QUANTILES, N_AT_QUANTILE)
    ]


def position_box(position: int, grid: tuple[int, int], height: int, width: int) -> Box | None:
    """Top, left, bottom, right of the pixels that a position on a grid `(rows, columns)` covers; None on a 1 × 1 grid.

    Pixels that a grid line cuts belong to both sides, so that a box is never empty.
    """
    rows, columns = grid
    if rows * columns == 1:
        return None
    row, column = divmod(position, columns)
    bottom, right = -(-(row + 1) * height // rows), -(-(column + 1) * width // columns)
    return row * height // rows, column * width // columns, bottom, right


def direction_images(basis: Basis, grid: tuple[int, int], image_shape: torch.Size, n: int) -> Tensor | None:
    """The first `n` features as images `[feature, height, width, 3]`, where coordinates are pixels; else None.

    Drawn is the row of `from_basis`: what one unit of the feature adds to the image. Grey 128 is zero, the largest
    magnitude is black or white. Where every pixel is a position, that is a colour: a uniform patch shows it.

    Args:
        basis: of the first node layer.
        grid: the layer's positions.
        image_shape: channels, height, width.
        n: how many features.
    """
    channels, height, width = image_shape
    rows = basis.from_basis[:n, : basis.from_basis.shape[1] - basis.has_constant].cpu()
    if grid == (1, 1) and rows.shape[1] == image_shape.numel():
        drawn = rows.unflatten(1, image_shape)
    elif grid == (height, width) and rows.shape[1] == channels:
        drawn = rows[:, :, None, None].expand(-1, -1, PATCH_SIZE, PATCH_SIZE)
    else:
        return None
    magnitude = drawn.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(drawn.dtype).tiny)
    return colour_images((128 + 127.5 * drawn / magnitude).round().clamp(0, 255).to(torch.uint8))


def colour_images(
    images: UInt8[Tensor, "*example channel height width"],
) -> UInt8[Tensor, "*example height width 3"]:
    """Images as they are drawn: channels last, grey ones with three equal channels."""
    return images.movedim(-3, -1).expand(*images.shape[:-3], *images.shape[-2:], 3)


@dataclass(frozen=True, eq=False)
class PicturedFeatures:
    """The images that features are labelled and pictured with.

    Attributes:
        images: with one channel or three, as the chain takes them; the first `PICTURED_EXAMPLES` are searched.
        labels: class of each image.
        class_names: by class.
        grids: rows and columns of each node layer's positions, the input's first; (1, 1) where one stands for the whole
            image.
        memory_budget: bytes that one chunk's activations may take.

    Raises ValueError for a channel count that is no colour and for labels without a class name.
    """

    images: UInt8[Tensor, "example channel height width"]
    labels: Int64[Tensor, " example"]
    class_names: tuple[str, ...]
    grids: dict[str, tuple[int, int]]
    memory_budget: int = 128 * 2**20
    _known: list[tuple[Chain, dict[str, Basis], dict[str, TopExamples]]] = field(
        default_factory=list, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if self.images.shape[1] not in (1, 3):
            raise ValueError(f"images with {self.images.shape[1]} channels; expected 1 (grey) or 3 (red, green, blue)")
        if not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.class_names):
            raise ValueError(
                f"labels from {int(self.labels.min())} to {int(self.labels.max())} for {len(self.class_names)} class "
                "names; expected numbers of classes, from 0"
            )

    def label_features(self, chain: Chain, bases: dict[str, Basis]) -> dict[str, list[str]]:
        """A name for every kept feature of every node layer."""
        labels = self.labels.cpu()
        return {
            layer: class_labels(
                labels[top.highest.examples], self.class_names, bases[layer], layer == chain.node_layers[-1]
            )
            for layer, top in self.top_examples(chain, bases).items()
        }

    def picture_features(self, chain: Chain, bases: dict[str, Basis]) -> dict[str, list[FeaturePicture]]:
        """Pictures of each node layer's first `PICTURED_FEATURES` features.

        The constant feature, equal on all images, has none at either end. Raises ValueError if a node layer has no grid
        or one of another number of positions.
        """
        self._refuse_other_grids(chain)
        first = next(iter(self.grids))  # the layer whose coordinates are pixels, whichever layers are analysed
        pooled = highest_positions(chain, bases, self.images[:POOLED_EXAMPLES], self.memory_budget)
        pictures = {}
        for layer, top in self.top_examples(chain, bases).items():
            basis, grid = bases[layer], self.grids[layer]
            highest, lowest = self._example_images(top.highest, grid), self._example_images(top.lowest, grid)
            drawn = direction_images(basis, grid, self.images.shape[1:], len(highest)) if layer == first else None
            directions = [None] * len(highest) if drawn is None else list(drawn)
            at = [self._example_images(one, grid) for one in at_quantiles(pooled[layer])]
            common = self._example_images(pooled[layer].first(COMMON_EXAMPLES), grid)
            parts = zip(highest, lowest, directions, zip(*at, strict=True), common, strict=True)
            pictures[layer] = [FeaturePicture(*of_feature) for of_feature in parts]
            if basis.has_constant:
                pictures[layer][0] = FeaturePicture((), (), directions[0])
        return pictures

    def top_examples(self, chain: Chain, bases: dict[str, Basis]) -> dict[str, TopExamples]:
        """`top_examples` on these images, on the CPU; computed once for the same chain and bases."""
        for known_chain, known_bases, found in self._known:
            if known_chain is chain and all(known_bases.get(layer) is bases[layer] for layer in chain.node_layers):
                return found
        searched = self.images[:PICTURED_EXAMPLES]
        found = {
            layer: top.cpu()
            for layer, top in top_examples(chain, bases, searched, N_EXAMPLES, self.memory_budget).items()
        }
        self._known[:] = [(chain, dict(bases), found)]
        return found

    def _example_images(self, extremes: Extremes, grid: tuple[int, int]) -> list[tuple[ExampleImage, ...]]:
        """The first features' examples as images."""
        examples = extremes.examples[:PICTURED_FEATURES]
        positions, values = (each[:PICTURED_FEATURES].tolist() for each in (extremes.positions, extremes.values))
        images = colour_images(self.images[examples.to(self.images.device)].cpu())
        classes = self.labels.cpu()[examples].tolist()
        height, width = self.images.shape[2:]
        return [
            tuple(
                ExampleImage(image, value, self.class_names[of_class], position_box(position, grid, height, width))
                for image, value, of_class, position in zip(*of_feature, strict=True)
            )
            for of_feature in zip(images, values, classes, positions, strict=True)
        ]

    def _refuse_other_grids(self, chain: Chain) -> None:
        for index, layer in enumerate(chain.node_layers):
            n_positions = chain.activation(self.images[:1], index).shape[1]
            grid = self.grids.get(layer)
            if grid is None or grid[0] * grid[1] != n_positions:
                raise ValueError(f"{layer}: grid {grid}; expected rows and columns of its {n_positions} positions")
