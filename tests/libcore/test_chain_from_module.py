"""`Chain.from_module` against chains made by hand, its choice of node layers, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from own_networks import (
    POSITIONS,
    TOKENS,
    Attention,
    EinsumAttention,
    Transformer,
    embedded,
    sections_by_hand,
    with_random_weights,
)
from tiny_models import AMPLE, largest_difference, stream_of
from torch import Tensor, nn
from torch.nn import functional

from libcore.basis import identity_basis
from libcore.chain import Chain
from libcore.eigen import RELATIVE
from libcore.estimators import edges, jacobian_gram
from libcore.methods.lib import lib_basis
from libcore.quadrature import GRADIENT
from libcore.sections import ClosedForm
from libcore.statistics import chain_statistics
from models.cifar10_cnn import network as cnn
from models.cifar10_cnn import sections as cnn_sections
from models.vision import mlp
from models.vision.images import ImageFormat

FORMAT = ImageFormat(channels=2, height=4, width=4, n_classes=3, n_train=1, n_test=1)
CHANNELS = (2, 3)


def images(n: int = 4) -> Tensor:
    return torch.randint(0, 256, (n, 2, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def pixels(n: int = 4) -> Tensor:
    return images(n).double() / 255


def tokens(n: int = 6) -> Tensor:
    return torch.randint(0, TOKENS, (n, POSITIONS), generator=torch.Generator().manual_seed(0))


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in module.state_dict().items() if "num_batches" not in name}


def assert_same(chain: Chain, expected: Chain, inputs: Tensor, inputs_by_hand: Tensor) -> None:
    """Activations, and from the last node layer to the first Jacobian Grams, LIB's importances and edges."""
    statistics = chain_statistics(chain, inputs, AMPLE), chain_statistics(expected, inputs_by_hand, AMPLE)
    activations = list(expected.activations(inputs_by_hand))
    for found, by_hand in zip(chain.activations(inputs), activations, strict=True):
        assert largest_difference(found, by_hand) < 1e-12
    after = identity_basis(torch.ones(activations[-1].shape[-1], dtype=torch.float64), has_constant=False)
    for index in reversed(range(len(chain.sections))):
        sections, stream = (chain.sections[index], expected.sections[index]), stream_of(activations[index])
        grams = [jacobian_gram(section, stream, after, GRADIENT) for section in sections]
        assert largest_difference(*grams) < 1e-12
        bases = [
            lib_basis(of_chain[layers[index]], gram, RELATIVE, torch.float64)
            for of_chain, layers, gram in zip(statistics, (chain.node_layers, expected.node_layers), grams, strict=True)
        ]
        # Fewer samples than coordinates: how many directions beyond the rank are above the cut is round-off's choice.
        n_whitened = min(len(basis.importance) for basis in bases)
        assert largest_difference(*(basis.importance[:n_whitened] for basis in bases)) < 1e-12
        assert all((basis.importance[n_whitened:] < 1e-12 * basis.importance[1]).all() for basis in bases)
        strengths = [edges(section, stream, bases[1], after, GRADIENT) for section in sections]
        assert largest_difference(*strengths) < 1e-12
        after = bases[1]


def test_mlp_by_hand() -> None:
    module = with_random_weights(mlp.Mlp(FORMAT, (6, 5)))
    chain = Chain.from_module(module, pixels())
    by_hand = mlp.chain_of(weights_of(module), torch.float64, torch.device("cpu"))
    assert chain.node_layers == ("layers.0", "layers.1", "layers.2", "output") == by_hand.node_layers
    assert all(type(one) is type(two) for one, two in zip(chain.sections, by_hand.sections, strict=True))
    assert_same(chain, by_hand, pixels(), images())


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_cnn_by_hand(pooling: str) -> None:
    module = with_random_weights(cnn.Cnn(FORMAT, CHANNELS, pooling))
    chain = Chain.from_module(module, pixels())
    by_hand = cnn_sections.chain_of(weights_of(module), FORMAT, CHANNELS, pooling, torch.float64, torch.device("cpu"))
    # By hand, `readout` is what the last block returns; here, what the submodule of that name reads.
    assert chain.node_layers == ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "readout", "output")
    kept = ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "output")
    closed = [isinstance(section, ClosedForm) for section in chain.sections[:3]]
    assert closed == ([True] * 3 if pooling == "average" else [False, True, False])
    assert module.training
    assert_same(chain.restricted_to(kept), by_hand.restricted_to(kept), pixels(), images())


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("attention", [Attention, EinsumAttention])
def test_transformer_block_by_hand(norm: type[nn.Module], attention: type[nn.Module]) -> None:
    module = with_random_weights(Transformer(norm, attention))
    layers = ("blocks.0", "blocks.0.norm2", "norm", "output")
    chain = Chain.from_module(module, tokens(), layers)
    by_hand = Chain(layers, sections_by_hand(module), lambda inputs: embedded(module, inputs), last_has_constant=False)
    assert [isinstance(section, ClosedForm) for section in chain.sections] == [False, True, True]
    assert_same(chain, by_hand, tokens(4), tokens(4))
    assert Chain.from_module(module, tokens()).node_layers == ("blocks.0", "blocks.0.norm2", "norm", "head", "output")


@pytest.mark.parametrize("last", ["norm", "head"])
def test_a_chain_that_ends_before_the_output(last: str) -> None:
    module = with_random_weights(Transformer())
    chain = Chain.from_module(module, tokens(), ["blocks.0", last])
    assert chain.has_constant(last)
    assert chain.tail is not None
    activation = chain.activation(tokens(3), 1)
    assert largest_difference(chain.output_from(activation, 1), module.eval()(tokens(3))) < 1e-12


def test_example_and_mode_do_not_matter() -> None:
    module = with_random_weights(Transformer())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    chain = Chain.from_module(module, tokens(1))
    other = Chain.from_module(module, tokens(6)[3:])
    for one, two in zip(chain.activations(tokens(6)), other.activations(tokens(6)), strict=True):
        assert largest_difference(one, two) < 1e-14
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    shorter = chain.output_from(chain.activation(tokens(2)[:, :3], 0), 0)
    assert largest_difference(shorter, module.eval()(tokens(2)[:, :3])) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype(dtype: torch.dtype) -> None:
    module = with_random_weights(Transformer()).float()
    chain = Chain.from_module(module, tokens(), dtype=dtype)
    assert {activation.dtype for activation in chain.activations(tokens())} == {dtype}
    assert chain.activation(tokens(), 0).shape == (6, POSITIONS, 7)
    assert next(Chain.from_module(module, tokens()).activations(tokens())).dtype == torch.float32


def sequential() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


class Gains(nn.Module):
    """A function of one weight, which is no submodule's."""

    def __init__(self, function) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.recurrent = nn.LSTM(3, 3, batch_first=True)
        self.function = function
        self.weight = nn.Parameter(torch.randn(3))
        self.pairs = nn.Parameter(torch.randn(4, 4))
        self.register_buffer("causal", torch.full((4, 4), -torch.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, self.inner(x))


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (sequential(), ("0", "2", "4", "output")),
        (
            nn.Sequential(
                nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
            ),
            ("0", "1", "1.2", "output"),
        ),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)), ("0", "3", "output")),
        (nn.Tanh(), ("input", "output")),
        (nn.Linear(3, 2), ("input", "output")),
    ],
)
def test_node_layers_by_default(net: nn.Module, expected: tuple[str, ...]) -> None:
    assert Chain.from_module(net.double(), torch.randn(4, 3, dtype=torch.float64)).node_layers == expected


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["blocks.0.attention", "output"], "'blocks.0.attention'.*beside it.*such as 'blocks.0'"),
        (["blocks.0.mlp", "output"], "'blocks.0.mlp'.*beside it.*such as 'blocks.0.norm2'"),
        (["blocks.O", "output"], "'blocks.O' is no submodule; did you mean 'blocks.0'"),
        (["blocks", "output"], "'blocks' is not called as a submodule; did you mean 'blocks.0'"),
        (["head", "norm", "output"], "'norm' comes before 'head'; expected the module's order"),
        (["blocks.0", "blocks.0.norm1", "output"], "'blocks.0' and 'blocks.0.norm1' are the same activation"),
        (["output", "head"], "'output' is the module's output; expected it last"),
        (["head"], "expected two or more"),
        (["embedding", "output"], "'embedding' reads integers.*such as 'blocks.0'"),
        (["input", "output"], "'input' reads integers.*such as 'blocks.0'"),
    ],
)
def test_node_layers_that_cannot_be(layers: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Chain.from_module(with_random_weights(Transformer()), tokens(), layers)
    assert "\n" not in str(error.value)


def cat_bias(m: Gains, x: Tensor) -> Tensor:
    return torch.cat([x, m.weight.expand_as(x)], dim=-1)


REFUSED = {
    "adds a number": (lambda m, x: torch.sin(x) + 1.0, (4, 3), "add of the plain number 1, which may be a bias"),
    "subtracts from a number": (lambda m, x: 1 - torch.sin(x), (4, 3), "rsub of the plain number 1"),
    "concatenation": (cat_bias, (4, 3), "cat of the activation with a parameter or buffer"),
    "stacked": (lambda m, x: torch.stack([x, m.weight.expand_as(x)], 1), (4, 3), "stack of the activation with"),
    "relative positions": (
        lambda m, x: (x @ x.mT + m.pairs).softmax(-1) @ x,
        (4, 3),
        "add adds a constant where several positions meet",
    ),
    "bias on a flipped sum": (
        lambda m, x: torch.sin(x + x.flip(1)) + m.weight,
        (4, 3),
        "add adds a constant where several positions meet",
    ),
    "half a mask": (lambda m, x: (x @ x.mT + m.causal + m.pairs).softmax(-1) @ x, (4, 3), "several positions meet"),
    "mask and bias": (
        lambda m, x: (x @ x.mT + (m.causal + m.pairs)).softmax(-1) @ x,
        (4, 3),
        "both finite and infinite",
    ),
    "masked to a number": (lambda m, x: torch.where(m.weight > 0, x, 0.5), (4, 3), "where with a finite number"),
    "threshold": (lambda m, x: torch.maximum(x, m.weight), (4, 3), "maximum takes a parameter or buffer"),
    "unknown operation": (lambda m, x: torch.fft.rfft(x).abs(), (4, 3), "fft_rfft is an operation of which"),
    "sorted": (lambda m, x: x.sort(-1)[0], (4, 3), "sort is an operation of which"),
    "padded with numbers": (lambda m, x: functional.pad(x, (1, 1), value=2.0), (4, 3), "pad with 2"),
    "weights of the activation": (lambda m, x: functional.linear(x, x[0]), (4, 3), "linear with weights that depend"),
    "recurrent": (lambda m, x: m.recurrent(x)[0], (4, 3), "lstm is an operation of which"),
    "a hidden derivative": (lambda m, x: x.detach() + x, (4, 3), "detach is an operation of which"),
    "other examples": (lambda m, x: x - x.mean(0, keepdim=True), (4, 3), "depends on the others in the batch"),
    "a tuple": (lambda m, x: (x, x), (4, 3), "does not return a tensor"),
    "control flow at the root": (
        lambda m, x: x if x.sum() > 0 else -x,
        (4, 3),
        "Gains.forward cannot be traced by torch.fx",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    function, shape, message = REFUSED[name]
    net = Gains(function) if "at the root" in name else nn.Sequential(nn.Linear(3, 3), Gains(function))
    with pytest.raises(ValueError, match=message) as error:
        Chain.from_module(net.double(), torch.randn(3, *shape, dtype=torch.float64))
    assert "\n" not in str(error.value)


def test_pairs_of_positions_are_no_node_layer() -> None:
    net = nn.Sequential(nn.Linear(3, 3), Gains(lambda m, x: x @ x.mT), nn.Linear(4, 2)).double()
    with pytest.raises(ValueError, match="returns numbers about pairs of positions"):
        Chain.from_module(net, torch.randn(2, 4, 3, dtype=torch.float64))


class Compiled(nn.Module):
    """Calls a function inside which no torch operation can be seen."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 1e9 else x + self.function(x)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_compiled_submodule_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Linear(3, 4), torch.jit.script(nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"^1: compiled by torch\.jit, whose biases cannot be folded$"):
        Chain.from_module(net, torch.zeros(1, 3))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
def test_functions_that_cannot_be_looked_into_are_refused() -> None:
    function = torch.jit.trace(lambda x: 2 * x + torch.ones(3), torch.zeros(1, 3))
    example = torch.randn(2, 3, dtype=torch.float64)

    def calling(x: Tensor) -> Tensor:
        return function(x)

    net = nn.Sequential(nn.Linear(3, 3), Compiled(calling)).double()
    with pytest.raises(ValueError, match="1: add of what depends on the activation through a function whose biases"):
        Chain.from_module(net, example)
    with pytest.raises(ValueError, match="Compiled cannot be copied"):
        Chain.from_module(Compiled(function), example)


class Preactivated(nn.Module):
    """Works on its residual stream in place, which is seen only where it runs as it was written."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.second(self.relu(x))


def test_a_chain_that_is_not_the_module_is_refused() -> None:
    module, example = with_random_weights(Preactivated()), torch.randn(5, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"output: the chain is off by .* on the example"):
        Chain.from_module(module, example, ["input", "output"])
    net = sequential().double()
    chain = Chain.from_module(net, example)
    activations = dict(zip(chain.node_layers, chain.activations(example), strict=True))
    own = {layer: value[..., :-1] if chain.has_constant(layer) else value for layer, value in activations.items()}
    chain.compare(example, own)
    with pytest.raises(ValueError, match="2: the chain is off by"):
        chain.compare(example, own | {"2": own["2"] + 1e-6, "4": own["4"] + 1.0})


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(3), r"example_inputs \[3\]; expected \[batch, ...\]"),
        (torch.zeros(2, 5), r"Sequential on an example \(2, 5\) of torch.float32: mat1 and mat2"),
    ],
)
def test_examples_that_are_none(example: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chain.from_module(sequential(), example)
