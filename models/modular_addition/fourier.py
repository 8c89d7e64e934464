"""Names for features of modular addition: largest terms of their 2-D Fourier series over all pairs (METHOD.md 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.parallel import in_threads
from models.analysed import CONSTANT
from models.modular_addition.pair_activations import PairActivations

SHARE_TO_NAME = 0.2
"""A term is named if it carries at least this share of the feature's squared norm."""
SHARE_DECIMALS = 9
"""Of shares: round-off does not decide which of two equal terms, as many are, comes first: `x` does, and `+`."""
FEATURES_AT_ONCE = 8
"""Their maps over all pairs stay in cache; so few cost half the time of all at once."""


@dataclass(frozen=True)
class FourierTerm:
    """`cos(k_a x + k_b y)` up to a phase, and its share of the squared norm about the mean."""

    k_a: int
    k_b: int
    share: float

    @property
    def name(self) -> str:
        """The term as it is written in figures; `x` and `y` are the two numbers."""
        if self.k_b == 0:
            return f"cos({times(self.k_a, 'x')})"
        if self.k_a == 0:
            return f"cos({times(self.k_b, 'y')})"
        if abs(self.k_a) == abs(self.k_b):
            sign = "+" if self.k_a == self.k_b else "−"
            return f"cos({times(self.k_a, f'(x{sign}y)')})" if self.k_a != 1 else f"cos(x{sign}y)"
        sign = "+" if self.k_b > 0 else "−"
        return f"cos({times(self.k_a, 'x')}{sign}{times(abs(self.k_b), 'y')})"


def times(factor: int, what: str) -> str:
    """`3x`, `x`."""
    return what if factor == 1 else f"{factor}{what}"


def fourier_terms(activations: Float[Tensor, "p p position feature"], n_terms: int = 3) -> list[list[FourierTerm]]:
    """Each feature's strongest terms over all inputs `(x, y)`, positions taken together.

    A real function's coefficients at `k` and `-k` are conjugates: they are one term, named by its positive half.
    """
    p = activations.shape[0]
    values = activations.double().permute(3, 2, 0, 1).contiguous()
    squares = values.square().sum((1, 2, 3))
    values -= values.mean((2, 3), keepdim=True)
    # A round-off remainder about the mean is no variation.
    silent = values.square().sum((1, 2, 3)) <= 1e-20 * squares.clamp(min=1e-300)
    frequency = torch.nonzero(upper_half(p).T).flip(1)
    power = power_at(frequency, values)
    share = (power / power.sum(1, keepdim=True).clamp(min=1e-300)).round(decimals=SHARE_DECIMALS)
    in_order = torch.linspace(0, 10.0 ** -(SHARE_DECIMALS + 1), len(frequency), dtype=torch.float64)
    indices = (share - in_order).topk(min(n_terms, len(frequency)), dim=1).indices
    largest = share.gather(1, indices)
    return [
        []
        if is_silent
        else [FourierTerm(*signed(frequency[index].tolist(), p), share=value) for index, value in zip(*of, strict=True)]
        for is_silent, *of in zip(silent.tolist(), indices.tolist(), largest.tolist(), strict=True)
    ]


def power_at(
    frequency: Int[Tensor, "term 2"], values: Float[Tensor, "feature position p p"]
) -> Float[Tensor, "feature term"]:
    """Squared magnitudes at each frequency and its negative, together; of real values the one half says the other."""
    p = values.shape[-1]
    # Of a real function's transform, frequencies `0 <= k_b <= p/2` are computed.
    computed = torch.where(frequency[:, 1:] > p // 2, -frequency % p, frequency)
    is_its_own_negative = (2 * frequency % p == 0).all(1)
    half = torch.view_as_real(torch.fft.rfft2(values)).square().sum((1, -1))
    return half[:, computed[:, 0], computed[:, 1]] * torch.where(is_its_own_negative, 1.0, 2.0)


def upper_half(p: int) -> Tensor:
    """One of each pair of conjugate frequencies, `(0, 0)` left out: `k_a > 0`, or `k_a = 0` and `k_b > 0`."""
    signed_k = torch.arange(p)
    signed_k = torch.where(signed_k > p // 2, signed_k - p, signed_k)
    k_a, k_b = signed_k[:, None], signed_k[None, :]
    positive = (k_a > 0) | ((k_a == 0) & (k_b > 0))
    # For even p the frequency p/2 is its own negative: k_a = p/2 keeps half of the k_b.
    if p % 2 == 0:
        positive &= ~((k_a == p // 2) & (k_b < 0))
    return positive


def signed(frequency: list[int], p: int) -> tuple[int, int]:
    """Frequencies as numbers between `-p/2` and `p/2`."""
    k_a, k_b = (k - p if k > p // 2 else k for k in frequency)
    return k_a, k_b


@torch.no_grad()
def fourier_labels(chain: Chain, bases: dict[str, Basis], pairs: PairActivations) -> dict[str, list[str]]:
    """A label for every kept feature of every node layer; logits are called by their number."""
    labels: dict[str, list[str]] = {}
    for layer, activation in zip(chain.node_layers, pairs.of(chain), strict=True):
        basis = bases[layer]
        if not basis.has_constant:
            labels[layer] = [str(number) for number in range(pairs.modulus)] + ["="]
            continue
        on_pairs = activation.unflatten(0, (pairs.modulus, pairs.modulus))
        blocks = basis.to(device=activation.device, dtype=activation.dtype).to_basis.split(FEATURES_AT_ONCE, dim=1)
        of_blocks = in_threads(partial(labels_of, on_pairs), blocks, activation.is_cuda)
        labels[layer] = [label for of_block in of_blocks for label in of_block]
        labels[layer][0] = CONSTANT
    return labels


def labels_of(
    on_pairs: Float[Tensor, "p p position d"], block: Float[Tensor, "d some"], check: Callable[[], None]
) -> list[str]:
    """Of some features, by one thread."""
    check()
    with torch.no_grad():
        return [label_of(terms) for terms in fourier_terms((on_pairs @ block).cpu())]


def label_of(terms: list[FourierTerm]) -> str:
    """The terms worth naming, strongest first; "mixed" where none is, "silent" for a feature that never varies."""
    if not terms:
        return "silent"
    named = [term.name for term in terms if term.share >= SHARE_TO_NAME]
    return " + ".join(named) or "mixed"
