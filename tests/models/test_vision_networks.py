"""Image classifiers: the chain of sections is the network, and checkpoints keep it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from libcore.sections import ClosedForm
from models.cifar10_cnn import network as cnn
from models.cifar10_cnn import sections as cnn_sections
from models.vision import mlp
from models.vision.images import FORMATS
from models.vision.model import load_weights, weights_of
from models.weights import CheckpointError

CPU = torch.device("cpu")


def random_images(dataset: str, n: int = 5) -> torch.Tensor:
    form = FORMATS[dataset]
    generator = torch.Generator().manual_seed(0)
    shape = (n, form.channels, form.height, form.width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def random_cnn(dataset: str, channels: tuple[int, ...], pooling: str) -> cnn.Cnn:
    """With running moments, scales and shifts as after a training."""
    torch.manual_seed(1)
    network = cnn.Cnn(FORMATS[dataset], channels, pooling).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return network


@pytest.mark.parametrize("dataset", ["cifar10", "digits"])
@pytest.mark.parametrize("hidden_sizes", [(50, 50), (7,), (6, 5, 4)])
def test_mlp_chain_is_the_network(dataset, hidden_sizes):
    torch.manual_seed(0)
    network = mlp.Mlp(FORMATS[dataset], hidden_sizes)
    images = random_images(dataset)
    chain = mlp.chain_of(weights_of(network), torch.float64, CPU)
    assert chain.node_layers == mlp.node_layers(len(hidden_sizes))
    logits = chain.output_from(chain.activation(images, 0), 0)[:, 0]
    torch.testing.assert_close(logits, network.double()(images.double() / 255), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize(("dataset", "channels"), [("cifar10", (4, 5, 6)), ("digits", (4, 5)), ("digits", (3,))])
def test_cnn_chain_is_the_network(dataset, channels, pooling):
    network, images = random_cnn(dataset, channels, pooling), random_images(dataset)
    weights = weights_of(network)
    chain = cnn_sections.chain_of(weights, FORMATS[dataset], channels, pooling, torch.float64, CPU)
    network.double()
    x = images.double() / 255
    for index, block in enumerate(network.blocks):
        activation = chain.activation(images, index)
        torch.testing.assert_close(activation[..., :-1], x.flatten(2).transpose(1, 2), rtol=1e-12, atol=1e-12)
        assert (activation[..., -1] - 1).abs().max() < 1e-12
        x = block(x)
    logits = chain.output_from(chain.activation(images, 0), 0)[:, 0]
    torch.testing.assert_close(logits, network(images.double() / 255), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_every_block_is_a_section_with_a_closed_form_unless_it_takes_maxima(pooling):
    weights = weights_of(random_cnn("cifar10", (4, 5, 6), pooling))
    chain = cnn_sections.chain_of(weights, FORMATS["cifar10"], (4, 5, 6), pooling, torch.float64, CPU)
    grids = cnn_sections.grids(FORMATS["cifar10"], 3)
    images = random_images("cifar10", 1)
    for index, layer in enumerate(chain.node_layers):
        assert chain.activation(images, index).shape[1] == grids[layer][0] * grids[layer][1]
    closed = [isinstance(section, ClosedForm) for section in chain.sections]
    assert closed == [pooling == "average" or index % 2 == 1 for index in range(6)] + [True]


def test_scaling_the_activation_to_zero_scales_the_biases_too():
    """What integrated gradients need of every section: zero in, zero out."""
    weights = weights_of(random_cnn("digits", (4, 5), "average"))
    chain = cnn_sections.chain_of(weights, FORMATS["digits"], (4, 5), "average", torch.float64, CPU)
    for index, section in enumerate(chain.sections):
        zero = torch.zeros_like(chain.activation(random_images("digits", 2), index))
        assert section(zero).abs().max() == 0


def test_checkpoints_load_and_save(tmp_path):
    network = random_cnn("digits", (4, 5), "average")
    weights = weights_of(network)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "weights.safetensors")
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    other = cnn.Cnn(FORMATS["digits"], (4, 5), "average")
    for name in ("weights.safetensors", "weights.pt"):
        loaded = load_weights(tmp_path / name, other)
        assert set(loaded) == set(weights)
        assert all(torch.equal(loaded[key], weights[key]) for key in weights)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    torch.save(random_cnn("digits", (4, 5), "average").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(
        CheckpointError, match=r"blocks\.0\.conv\.weight .*expected \(6, 1, 3, 3\), found \(4, 1, 3, 3\)"
    ):
        load_weights(tmp_path / "weights.pt", cnn.Cnn(FORMATS["digits"], (6, 5), "average"))


def test_a_running_variance_below_zero_is_refused(tmp_path):
    weights = random_cnn("digits", (4, 5), "average").state_dict()
    weights["blocks.1.norm2.running_var"][2] = -0.1
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"blocks\.1\.norm2\.running_var holds numbers below zero"):
        load_weights(tmp_path / "weights.pt", cnn.Cnn(FORMATS["digits"], (4, 5), "average"))
