"""Names for features of modular addition: largest terms of their 2-D Fourier series over all pairs (METHOD.md 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from models.analysed import CONSTANT
from models.modular_addition.data import all_pairs

SHARE_TO_NAME = 0.2
"""A term is named if it carries at least this share of the feature's squared norm."""


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
    centred = activations.double() - activations.double().mean((0, 1))
    power = torch.fft.fft2(centred, dim=(0, 1)).abs().square().sum(2)
    total = power.sum((0, 1))
    # A round-off remainder about the mean is no variation.
    silent = total <= 1e-20 * activations.double().square().sum((0, 1, 2)).clamp(min=1e-300) * p * p
    half = upper_half(p)
    folded = power.clone()
    folded += power.roll((-1, -1), (0, 1)).flip(0, 1)
    self_conjugate = 2 * torch.arange(p) % p == 0
    folded[self_conjugate[:, None] & self_conjugate[None, :]] /= 2
    share = (folded / total.clamp(min=1e-300))[half]
    frequency = torch.nonzero(half)
    values, indices = share.topk(min(n_terms, len(share)), dim=0)
    terms: list[list[FourierTerm]] = []
    for feature in range(activations.shape[-1]):
        strongest = zip(indices[:, feature].tolist(), values[:, feature].tolist(), strict=True)
        terms.append(
            []
            if silent[feature]
            else [FourierTerm(*signed(frequency[index].tolist(), p), share=value) for index, value in strongest]
        )
    return terms


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
def fourier_labels(chain: Chain, bases: dict[str, Basis], modulus: int, device: torch.device) -> dict[str, list[str]]:
    """A label for every kept feature of every node layer; logits are called by their number."""
    tokens = all_pairs(modulus).tokens.to(device)
    labels: dict[str, list[str]] = {}
    for index, layer in enumerate(chain.node_layers):
        basis = bases[layer]
        if not basis.has_constant:
            labels[layer] = [str(number) for number in range(modulus)] + ["="]
            continue
        activation = chain.activation(tokens, index)
        features = basis.to(device=device, dtype=activation.dtype).features(activation)
        labels[layer] = [label_of(terms) for terms in fourier_terms(features.unflatten(0, (modulus, modulus)))]
        labels[layer][0] = CONSTANT
    return labels


def label_of(terms: list[FourierTerm]) -> str:
    """The terms worth naming, strongest first; "mixed" where none is, "silent" for a feature that never varies."""
    if not terms:
        return "silent"
    named = [term.name for term in terms if term.share >= SHARE_TO_NAME]
    return " + ".join(named) or "mixed"
