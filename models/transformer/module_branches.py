"""What a decoder's modules add to the residual stream, as branches of sections.

Gains and biases of normalisations in front are folded into the weights that read them, other biases into the row that
reads the constant coordinate.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from libcore.constant import beside_constant
from libcore.sections import (
    AddedBranch,
    AttentionBranch,
    Branch,
    DifferentiatedAttention,
    Elementwise,
    Gated,
    HeadNormalisation,
    Normalisation,
    NormalisedAttention,
    NormalisedBranch,
    NormalisedPositionwise,
    PositionwiseBranch,
    Rotary,
)
from models.transformer.activation_functions import ACTIVATION_FUNCTIONS
from models.transformer.architecture import Architecture, Weights


class Reading(NamedTuple):
    """How a module reads the activation it starts from.

    Attributes:
        width: of the activation, constant included.
        offset: of the coordinates that are read.
        normalisation: still to be applied, None where it is done or there is none.
    """

    width: int
    offset: int
    normalisation: Normalisation | None

    def rows(self, weight: Float[Tensor, "*head d d_out"], bias: Float[Tensor, "*head d_out"]) -> Tensor:
        """Weights of the coordinates read in their place, then the constant's: `[*head, width, d_out]`."""
        after = self.width - 1 - self.offset - weight.shape[-2]
        return torch.cat([pad(weight, (0, 0, self.offset, after)), bias.unsqueeze(-2)], dim=-2)


class ModuleBranches:
    """A decoder's attention and MLPs.

    Args:
        architecture: of the decoder.
        weights: all in the dtype and on the device that sections shall have.
    """

    def __init__(self, architecture: Architecture, weights: Weights) -> None:
        self.architecture = architecture
        self.weights = weights

    def output_of(
        self, branch: AddedBranch, bias: Float[Tensor, " d"], normalisation: str, d_out: int
    ) -> tuple[AddedBranch, Float[Tensor, " d"]]:
        """What a module adds to the residual stream, and the bias beside it: normalised, where outputs are."""
        kind = self.architecture.output_normalisation
        if kind == "none":
            return branch, bias
        gain, shift = (self.weights[f"{normalisation}.{name}"] for name in "wb")
        how = (bias, self.normalisation_by(kind), gain, d_out)
        if isinstance(branch, PositionwiseBranch):
            return NormalisedPositionwise(branch, *how), shift
        if isinstance(branch, AttentionBranch):
            return NormalisedAttention(branch, *how), shift
        return NormalisedBranch(branch, *how), shift

    def attention(self, block: int, reading: Reading, d_out: int) -> AddedBranch:
        """Block `block`'s attention without its output bias; with closed forms, unless what it does beside has none."""
        architecture, module = self.architecture, f"blocks.{block}.attn"
        W_Q, W_K, W_V = (
            reading.rows(*self.folded(f"{module}.W_{name}", f"{module}.b_{name}", f"blocks.{block}.ln1"))
            for name in "QKV"
        )
        W_O = self.weights[f"{module}.W_O"]
        frequencies = architecture.rotary_frequencies[block] if architecture.positions == "rotary" else ()
        queries, keys = (self.head_normalisation(f"{module}.{name}_norm") for name in "qk")
        attention = AttentionBranch(
            W_Q,
            W_K,
            W_V,
            pad(W_O, (0, d_out - architecture.d_model)),
            normalisation=reading.normalisation,
            scale=architecture.attention_scale,
            rotary=Rotary(torch.tensor(frequencies, dtype=torch.float64, device=W_O.device)) if frequencies else None,
            window=architecture.windows[block],
            slopes=W_O.new_tensor(architecture.slopes) if architecture.slopes else None,
            queries=queries,
            keys=keys,
            soft_cap=architecture.score_soft_cap,
        )
        has_closed_form = all(one is None or one.has_closed_form for one in (queries, keys))
        if architecture.clip is None and has_closed_form:
            return attention
        return DifferentiatedAttention.of(attention, architecture.clip)

    def head_normalisation(self, name: str) -> HeadNormalisation | None:
        """Of a layer's queries or keys."""
        architecture = self.architecture
        if architecture.query_key_normalisation == "none":
            return None
        return HeadNormalisation(
            self.weights[f"{name}.w"],
            self.weights[f"{name}.b"],
            architecture.query_key_normalisation == "layer_norm",
            architecture.normalises_heads_together,
            architecture.eps,
            architecture.normalises_turned,
        )

    def mlp(self, block: int, reading: Reading, d_out: int, *, to_hidden: bool) -> Branch:
        """Block `block`'s MLP into the residual stream without its output bias, or its hidden activations beside it."""
        architecture, module = self.architecture, f"blocks.{block}.mlp"
        function = ACTIVATION_FUNCTIONS[architecture.activation_function]
        weight_in = reading.rows(*self.folded(f"{module}.W_in", f"{module}.b_in", f"blocks.{block}.ln2"))
        if architecture.gated:
            gate = reading.rows(*self.folded(f"{module}.W_gate", f"{module}.b_gate", f"blocks.{block}.ln2"))
            weight_in = torch.cat([gate, weight_in], dim=1)
        weight_out = self.weights[f"{module}.W_out"]
        return PositionwiseBranch(
            weight_in,
            self.beside_residual(len(weight_out), d_out) if to_hidden else beside_constant(weight_out),
            Gated(function) if architecture.gated else Elementwise(function),
            reading.normalisation,
        )

    def normalisation_by(self, kind: str) -> Normalisation:
        """Of the residual stream's width."""
        return Normalisation(self.architecture.d_model, kind == "layer_norm", self.architecture.eps)

    def folded(self, weight: str, bias: str, normalisation: str) -> tuple[Tensor, Tensor]:
        """A weight and its bias that read what a normalisation gives before its own gain and bias."""
        read, added = self.weights[weight], self.weights[bias]
        if normalisation != "ln_final" and self.architecture.normalisation == "none":
            return read, added
        gain, shift = (self.weights.get(f"{normalisation}.{name}") for name in "wb")
        if gain is None or shift is None:
            return read, added
        return gain[:, None] * read, added + shift @ read

    def residual(self, d_in: int, d_out: int, *biases: Float[Tensor, " d"]) -> Float[Tensor, "d_in d_out"]:
        """Carries the first `d_model` coordinates and the constant, and adds the biases to the former."""
        d = self.architecture.d_model
        carried = self.weights["embed.W_E"].new_zeros(d_in, d_out)
        carried[:d, :d] = self.eye(d, d)
        for bias in biases:
            carried[-1, :d] += bias
        carried[-1, -1] = 1.0
        return carried

    def beside_residual(self, n: int, d_out: int) -> Float[Tensor, "n d_out"]:
        """Writes `n` numbers behind the residual stream."""
        d = self.architecture.d_model
        return pad(self.eye(n, n), (d, d_out - d - n))

    def eye(self, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
        """Ones on the diagonal."""
        like = self.weights["embed.W_E"]
        return torch.eye(rows, columns, dtype=like.dtype, device=like.device)
