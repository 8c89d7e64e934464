"""The published CIFAR-10 checkpoint: the published code's result on the first 1,000 training images.

The published run sums edges in float32, which is what its edges differ by.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import RELATIVE, Truncation
from libcore.graph import interaction_edges
from libcore.methods import METHODS, FitSettings
from libcore.statistics import LayerStatistics, chain_statistics
from models.vision.cifar10_parquet import decoded, opened
from models.vision.images import FORMATS, LabelledImages
from models.vision.mlp import Mlp, chain_of, node_layers
from models.vision.model import load_weights

SHARED = Path(__file__).resolve().parents[3] / "shared"
REFERENCE, DATA = SHARED / "reference" / "cifar10_mlp", SHARED / "data" / "cifar10"
LAYERS = node_layers(2)
HIDDEN = LAYERS[1:3]

pytestmark = pytest.mark.skipif(
    not (REFERENCE.is_dir() and DATA.is_dir()), reason=f"the paper's artefacts and CIFAR-10 are not at {SHARED}"
)


@cache
def images() -> LabelledImages:
    path = DATA / "train.parquet"
    with opened(path, 50_000) as file:
        rows = next(file.iter_batches(1000)).to_pylist()
    encoded = [row["img"]["bytes"] for row in rows]
    return LabelledImages(decoded(path, encoded, FORMATS["cifar10"]), torch.tensor([row["label"] for row in rows]))


@cache
def chain() -> Chain:
    weights = load_weights(REFERENCE / "checkpoint.pt", Mlp(FORMATS["cifar10"], (50, 50)))
    return chain_of(weights, torch.float64, torch.device("cpu"))


@cache
def statistics() -> dict[str, LayerStatistics]:
    return chain_statistics(chain(), images().images, 128 * 2**20)


@cache
def fit(method: str, truncation: Truncation) -> tuple[dict[str, Basis], dict[str, Tensor]]:
    bases = METHODS[method](chain(), images().images, statistics(), FitSettings(truncation))
    return bases, interaction_edges(chain(), images().images, bases)


@cache
def published(method: str) -> dict[str, Tensor]:
    return load_file(REFERENCE / f"{method}_first1000.safetensors")


def relevant(method: str, layer: str) -> int:
    """How many features, the constant included, have more than 1e-6 of the largest importance in the published run."""
    if layer == "output":
        return 10
    importance = published(method)[f"importance/{layer}"]
    return 1 + int((importance[1:] > 1e-6 * importance[1:].max()).sum())


def test_accuracy():
    outputs = chain().activation(images().images, 3)[:, 0]
    assert (outputs.argmax(-1) == images().labels).double().mean() == 0.436


@pytest.mark.parametrize("layer", HIDDEN)
def test_means_and_grams(layer):
    for kind, value in (("mean", statistics()[layer].mean), ("gram", statistics()[layer].gram)):
        expected = published("lib")[f"{kind}/{layer}"]
        assert (value - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize("truncation", [Truncation("absolute", 1e-15), RELATIVE], ids=["published_cut", "our_cut"])
@pytest.mark.parametrize("layer", LAYERS[:3])
def test_importances(layer, truncation):
    n, expected = relevant("lib", layer), published("lib")[f"importance/{layer}"]
    importance = fit("lib", truncation)[0][layer].importance
    assert n > 10
    torch.testing.assert_close(importance[:n], expected[:n], rtol=1e-11, atol=0)


@pytest.mark.parametrize("layer", LAYERS[:3])
def test_edges(layer):
    rows, columns = relevant("lib", LAYERS[LAYERS.index(layer) + 1]), relevant("lib", layer)
    expected = published("lib")[f"edges/{layer}"][:rows, :columns]
    edges = fit("lib", RELATIVE)[1][layer][:rows, :columns]
    assert (edges - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize("layer", HIDDEN)
def test_pca_edges_of_hidden_layers(layer):
    """All features that vary: the published run keeps more directions, whose variance is round-off."""
    bases, edges = fit("pca", RELATIVE)
    rows, columns = edges[layer].shape
    expected = published("pca")[f"edges/{layer}"][:rows, :columns]
    assert bases[layer].n_features > 10
    assert (edges[layer] - expected).norm() < 1e-6 * expected.norm()
