"""Modules read into sections: the module itself, its biases folded, and closed forms equal to differentiation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_models import AMPLE, basis_of, largest_difference, random, stream_of
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.estimators import edges, jacobian_gram
from libcore.estimators.differentiation import exact_jacobian_gram
from libcore.from_module import section_of
from libcore.from_module.layouts import Layout
from libcore.quadrature import GRADIENT, Quadrature
from libcore.sections import AffineSection, ClosedForm, FunctionSection

RULE = Quadrature.of("gauss_legendre", 2)


class Residual(nn.Module):
    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Shortcut(nn.Module):
    """A convolution of stride 2 beside two convolutions, as where a residual network gets narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.beside = nn.Conv2d(2, 3, 1, stride=2)
        self.one, self.norm = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4)
        self.two = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.beside(x) + self.two(functional.relu(self.norm(self.one(x))))


class Written(nn.Module):
    """Torch's functions in an order of their own."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        for name, shape in zip("abc", shapes, strict=False):
            setattr(self, name, nn.Parameter(torch.empty(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Unpacking(nn.Module):
    """Iterates over a tensor, which `torch.fx` cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = iter(self.linear(x).unflatten(-1, (2, 3)).movedim(-2, 0))
        return gate.max(-1, keepdim=True).values * value.sigmoid()


class Branching(nn.Module):
    """What `torch.fx` cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.offset = nn.Parameter(torch.empty(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x) if x.sum() > 1e9 else torch.tanh(self.linear(x))
        for row in range(len(self.offset)):
            x = torch.sin(x + self.offset[row])
        return x


ACTIVATIONS = (
    nn.ReLU(inplace=True),
    nn.GELU(),
    nn.GELU(approximate="tanh"),
    nn.SiLU(),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.Softplus(beta=2.0),
    nn.ELU(),
    nn.LeakyReLU(0.2),
    nn.Hardtanh(),
    nn.Mish(),
)
VECTOR, POSITIONS, IMAGE = (3,), (4, 3), (2, 4, 6)
CLOSED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(3, 4), VECTOR),
    "a linear map without bias": (lambda: nn.Linear(3, 4, bias=False), VECTOR),
    "two linear maps": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Identity(), nn.Linear(4, 2)),
        VECTOR,
    ),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 5), nn.Sequential(nn.ReLU())), nn.Sequential(nn.Linear(5, 2))),
        VECTOR,
    ),
    "batch normalisation of a vector": (
        lambda: nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 2)),
        VECTOR,
    ),
    "MLP at positions": (lambda: nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 2)), POSITIONS),
    "residual MLP": (lambda: Residual(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 3)), POSITIONS),
    "LayerNorm": (lambda: nn.LayerNorm(3), POSITIONS),
    "RMSNorm, linear": (lambda: nn.Sequential(nn.RMSNorm(3, eps=1e-2), nn.Linear(3, 2)), POSITIONS),
    "pre-norm MLP, LayerNorm": (
        lambda: Residual(nn.LayerNorm(3), nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 3)),
        POSITIONS,
    ),
    "pre-norm MLP, RMSNorm": (
        lambda: Residual(nn.RMSNorm(3, eps=1e-2), nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 3)),
        POSITIONS,
    ),
    "matrices and biases by hand": (
        lambda: Written(lambda m, x: torch.relu(2 * (x @ m.a) - m.b) / 3 + (m.b - x) * m.c, (3, 3), (3,), (3,)),
        VECTOR,
    ),
    "in place": (lambda: Written(lambda m, x: (x @ m.a).add_(m.b).relu_(), (3, 4), (4,)), VECTOR),
    "convolution": (lambda: nn.Conv2d(2, 3, 3, padding=1), IMAGE),
    "convolution, stride": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), IMAGE),
    "convolution, dilation, groups": (lambda: nn.Conv2d(2, 4, 2, dilation=2, groups=2), IMAGE),
    "convolution, same": (lambda: nn.Conv2d(2, 3, 3, padding="same"), IMAGE),
    "convolution, batch normalisation": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2)),
        IMAGE,
    ),
    "average pooling": (lambda: nn.AvgPool2d(2), IMAGE),
    "average pooling, stride": (lambda: nn.Sequential(nn.Tanh(), nn.AvgPool2d(3, stride=1)), IMAGE),
    "one pixel": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)),
        IMAGE,
    ),
    "mean over pixels": (lambda: Written(lambda m, x: torch.tanh(x).mean((-1, -2)) @ m.a + m.b, (2, 3), (3,)), IMAGE),
    "flattened": (nn.Flatten, IMAGE),
    "flatten, linear": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(24, 2)),
        IMAGE,
    ),
    "pool, flatten, linear": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(18, 2)),
        IMAGE,
    ),
    "view": (lambda: Written(lambda m, x: x.view(x.size(0), -1) @ m.a, (48, 3)), IMAGE),
    "residual convolutions": (
        lambda: Residual(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1), nn.BatchNorm2d(2)),
        IMAGE,
    ),
    "shortcut": (Shortcut, IMAGE),
} | {
    f"activation {module}": (lambda module=module: nn.Sequential(nn.Linear(3, 4), module), VECTOR)
    for module in ACTIVATIONS
}
FUNCTIONS = ["relu", "gelu", "silu", "sigmoid", "tanh", "softplus", "elu", "mish"]
CLOSED |= {
    f"function {name}": (
        lambda name=name: Written(lambda m, x: getattr(functional, name)(x @ m.a + m.b), (3, 2), (2,)),
        VECTOR,
    )
    for name in FUNCTIONS
}
DIFFERENTIATED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "three layers": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)),
        VECTOR,
    ),
    "normalisation of a sum": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU()), POSITIONS),
    "control flow": (lambda: nn.Sequential(Branching(), nn.Linear(3, 2)), VECTOR),
    "max pooling": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)), IMAGE),
    "a convolution, dilated, that keeps the size": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding="same", dilation=2), nn.GroupNorm(2, 4)),
        IMAGE,
    ),
    "a convolution without padding": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, (1, 3), padding="valid"), nn.GroupNorm(2, 4)),
        IMAGE,
    ),
    "group normalisation": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)), IMAGE),
    "gated": (
        lambda: Written(lambda m, x: functional.silu(x @ m.a + m.b) * (x @ m.c), (3, 4), (4,), (3, 4)),
        POSITIONS,
    ),
    "PReLU": (lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU(4)), VECTOR),
    "addmm": (lambda: Written(lambda m, x: torch.addmm(m.b, x, m.a).sin(), (3, 4), (4,)), VECTOR),
    "einsum": (lambda: Written(lambda m, x: torch.einsum("...i,ij->...j", x, m.a) + m.b, (3, 4), (4,)), POSITIONS),
    "normalised by hand": (
        lambda: Written(lambda m, x: x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * m.a + m.b, (3,), (3,)),
        POSITIONS,
    ),
    "squeeze and excitation": (
        lambda: Written(
            lambda m, x: functional.conv2d(x * torch.sigmoid(x.mean((2, 3)) @ m.a)[:, :, None, None], m.b, m.c),
            (2, 2),
            (3, 2, 1, 1),
            (3,),
        ),
        IMAGE,
    ),
    "batch normalisation of a sequence": (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), POSITIONS),
    "unpacked": (Unpacking, POSITIONS),
    "padding around": (lambda: nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(2, 3, 3)), IMAGE),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), IMAGE),
    "upsampling": (lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3)), IMAGE),
    "two rows by one column": (lambda: nn.Sequential(nn.Conv2d(2, 3, (2, 1), stride=(2, 1)), nn.ReLU()), IMAGE),
    "multihead attention": (
        lambda: Written(lambda m, x: m.inner(x, x, x, need_weights=False)[0] + m.a, (6,)),
        (4, 6),
    ),
    "transformer encoder": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True), (4, 6)),
    "fused attention": (
        lambda: Written(
            lambda m, x: functional.scaled_dot_product_attention(x @ m.a + m.b, x, x + m.c, is_causal=True) + m.b,
            (3, 3),
            (3,),
            (3,),
        ),
        POSITIONS,
    ),
}
CASES = CLOSED | DIFFERENTIATED


def module_of(name: str) -> nn.Module:
    """Random weights and running moments, float64, in evaluation mode."""
    module = CASES[name][0]()
    if name == "multihead attention":
        module.inner = nn.MultiheadAttention(6, 2, batch_first=True)
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    module = module.double().eval()
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.7
                tensor.copy_(drawn.abs() + 0.5 if "running_var" in key else drawn)
    return module


def case_of(name: str, n: int = 3) -> tuple[nn.Module, Tensor, Layout]:
    generator, layout = torch.Generator().manual_seed(1), Layout(CASES[name][1])
    return module_of(name), random(generator, n, *layout.shape), layout


def with_ones(activation: Tensor) -> Tensor:
    return torch.cat([activation, torch.ones_like(activation[..., :1])], dim=-1)


BY_HAND = {
    "matrices and biases by hand": "b",
    "mean over pixels": "b",
    "gated": "b",
    "addmm": "b",
    "einsum": "b",
    "in place": "b",
    "normalised by hand": "b",
    "squeeze and excitation": "c",
    "multihead attention": "a",
    "fused attention": "bc",
} | {f"function {name}": "b" for name in FUNCTIONS}
"""Which parameters of `Written` are biases."""


def biases_scaled(name: str, module: nn.Module, scale: Tensor) -> dict[str, Tensor]:
    """Every bias and running mean times the same number, and all else as it is."""
    endings = ("bias", "running_mean", "offset", *BY_HAND.get(name, ""))
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    return {key: tensor * scale if key.endswith(endings) else tensor for key, tensor in named.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_section_is_the_module(name: str) -> None:
    module, value, layout = case_of(name)
    section = section_of(module, value)
    assert isinstance(section, ClosedForm) == (name in CLOSED)
    output = module(value)
    expected = Layout(tuple(output.shape[1:])).activation(output)
    activation = section(with_ones(layout.activation(value)))
    assert largest_difference(activation[..., :-1], expected) < 1e-12
    torch.testing.assert_close(activation[..., -1], torch.ones_like(activation[..., -1]), rtol=0, atol=1e-14)
    assert largest_difference(section(with_ones(layout.activation(value)[:1])), activation[:1]) < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_the_constant_scales_every_bias_and_nothing_else(name: str) -> None:
    module, value, layout = case_of(name)
    section = section_of(module, value)
    for activation_scale, bias_scale in ((1.0, 0.6), (-0.4, 1.5), (0.0, 1.0), (0.0, 0.0)):
        scale = torch.tensor(bias_scale, dtype=torch.float64)
        output = functional_call(module, biases_scaled(name, module, scale), (activation_scale * value,))
        expected = Layout(tuple(output.shape[1:])).activation(output)
        read = layout.activation(activation_scale * value)
        activation = section(torch.cat([read, scale.expand_as(read[..., :1])], dim=-1))
        torch.testing.assert_close(activation[..., :-1], expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(activation[..., -1], scale.expand_as(activation[..., -1]), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", ["MLP at positions", "pre-norm MLP, RMSNorm", "normalised by hand", "gated", "einsum"])
def test_every_position_has_its_own_constant(name: str, generator: torch.Generator) -> None:
    module, value, layout = case_of(name)
    section = section_of(module, value)
    constant = random(generator, 3, layout.shape[0], 1)
    activation = section(torch.cat([value, constant], dim=-1))
    for example in range(3):
        for position, scale in enumerate(constant[example, :, 0]):
            at = value[example : example + 1, position : position + 1]
            expected = functional_call(module, biases_scaled(name, module, scale), (at,))[0, 0]
            torch.testing.assert_close(activation[example, position, :-1], expected, rtol=1e-12, atol=1e-12)
            assert activation[example, position, -1].item() == pytest.approx(scale.item(), rel=1e-14)


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_equal_differentiation(name: str, generator: torch.Generator) -> None:
    module, value, layout = case_of(name)
    section = section_of(module, value)
    activation = with_ones(layout.activation(value))
    stream = stream_of(activation)
    d, d_out = activation.shape[-1], section(activation).shape[-1]
    to_basis = random(generator, d, d)
    basis = Basis(to_basis, torch.linalg.inv(to_basis), torch.ones(d), True)
    next_basis = Basis(random(generator, d_out, 4), random(generator, 4, d_out), torch.ones(4), True)
    closed, exact = (jacobian_gram(section, stream, next_basis, RULE, how) for how in ("closed_form", "exact"))
    assert largest_difference(closed, exact) < 1e-10
    closed, exact = (edges(section, stream, basis, next_basis, RULE, how) for how in ("closed_form", "exact"))
    assert largest_difference(closed, exact) < 1e-10


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_sections_can_be_moved(name: str) -> None:
    module, value, layout = case_of(name)
    activation = with_ones(layout.activation(value))
    section = section_of(module, value)
    moved = section.to(dtype=torch.float32)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert moved(activation.float()).dtype == torch.float32
    torch.testing.assert_close(moved(activation.float()).double(), section(activation), rtol=1e-3, atol=1e-4)


def test_differentiation_in_small_chunks_and_batched() -> None:
    module, value, layout = case_of("transformer encoder")
    section, activation = section_of(module, value), with_ones(layout.activation(value))
    basis = basis_of(torch.eye(7, 2, dtype=torch.float64))
    grams = [exact_jacobian_gram(section, stream_of(activation, budget), basis, GRADIENT) for budget in (1, AMPLE)]
    assert largest_difference(*grams) < 1e-12


def test_the_trap_of_a_module_as_a_function(generator: torch.Generator) -> None:
    linear = nn.Linear(3, 4).double()
    with pytest.raises(ValueError, match=r"FunctionSection\(Linear\).*section_of\(module, example\)"):
        FunctionSection(linear)
    example = random(generator, 20, 3)
    section = section_of(linear, example, constant_out=False)
    by_hand = AffineSection(torch.cat([linear.weight.T, linear.bias[None]]).detach())
    stream = stream_of(with_ones(example[:, None]))
    basis = Basis(*[torch.eye(4, dtype=torch.float64)] * 2, torch.ones(4), True)
    next_basis = Basis(*[torch.eye(4, dtype=torch.float64)] * 2, torch.ones(4), False)
    for estimate in (edges, lambda section, stream, basis, *rest: jacobian_gram(section, stream, *rest)):
        found, expected = (estimate(s, stream, basis, next_basis, RULE) for s in (section, by_hand))
        assert largest_difference(found, expected) < 1e-14
    importance = jacobian_gram(section, stream, next_basis, RULE)[-1, -1]
    assert importance.item() == pytest.approx(linear.bias.square().sum().item(), rel=1e-12)


def test_a_chain_of_one_module() -> None:
    module, value, _ = case_of("linear")
    chain = Chain.from_module(module, value)
    assert chain.node_layers == ("input", "output")
    assert not chain.has_constant("output")
