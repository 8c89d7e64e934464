"""The section between two node layers of a decoder, by which pair it is.

Gains and biases of normalisations are folded into the weights that read them, other biases into the row that reads the
constant coordinate. Between residual streams the normalisation is part of the section's branches; finer node layers
take it out of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from libcore.constant import beside_constant
from libcore.sections import (
    AffineSection,
    AttentionBranch,
    BlockSection,
    Branch,
    Elementwise,
    Gated,
    Linear,
    Normalisation,
    PositionwiseBranch,
    RescaleBranch,
    Rotary,
    ScaleBranch,
    Section,
)
from models.transformer.activation_functions import ACTIVATION_FUNCTIONS
from models.transformer.architecture import Architecture, Weights
from models.transformer.node_layers import NodeLayer


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


class BlockSections:
    """A decoder's sections, built from its weights when they are asked for.

    Args:
        architecture: of the decoder.
        weights: all in the dtype and on the device that sections shall have.
    """

    def __init__(self, architecture: Architecture, weights: Weights) -> None:
        self.architecture = architecture
        self.weights = weights

    def between(self, start: NodeLayer, end: NodeLayer) -> Section:
        """The section from one node layer to another that `is_one_section` away."""
        if end.kind == "output":
            return self.unembedding(start)
        if start.kind == "hidden":
            return self.after_hidden(start)
        d_out = self.width_of(end)
        if end.kind == "scale":
            scale = ScaleBranch(self.normalisation_of(end), target=self.architecture.d_model, d_out=d_out)
            like = self.weights["embed.W_E"]
            return BlockSection(
                self.residual(self.width_of(start), d_out), (scale.to(device=like.device, dtype=like.dtype),)
            )
        if end.kind == "normalized":
            return self.normalising(start, d_out)
        return self.through_modules(start, end)

    def through_modules(self, start: NodeLayer, end: NodeLayer) -> Section:
        """Attention, the MLP or both, from the residual stream or from what was normalised for them."""
        reading, d_out = self.reading_of(start), self.width_of(end)
        biases, branches = [], list[Branch]()
        if start.module in {"attn", "parallel"}:
            biases.append(self.weights[f"blocks.{start.block}.attn.b_O"])
            branches.append(self.attention(start.block, reading, d_out))
        if self.architecture.has_mlp and start.module in {"mlp", "parallel"}:
            branches.append(self.mlp(start.block, reading, d_out, to_hidden=end.kind == "hidden"))
            if end.kind != "hidden":
                biases.append(self.weights[f"blocks.{start.block}.mlp.b_out"])
        return BlockSection(self.residual(reading.width, d_out, *biases), tuple(branches))

    def attention(self, block: int, reading: Reading, d_out: int) -> Branch:
        """Block `block`'s attention without its output bias."""
        architecture, module = self.architecture, f"blocks.{block}.attn"
        W_Q, W_K, W_V = (
            reading.rows(*self.folded(f"{module}.W_{name}", f"{module}.b_{name}", f"blocks.{block}.ln1"))
            for name in "QKV"
        )
        W_O = self.weights[f"{module}.W_O"]
        frequencies = torch.tensor(architecture.rotary_frequencies, dtype=torch.float64, device=W_O.device)
        return AttentionBranch(
            W_Q,
            W_K,
            W_V,
            pad(W_O, (0, d_out - architecture.d_model)),
            normalisation=reading.normalisation,
            scale=architecture.attention_scale,
            rotary=Rotary(frequencies) if architecture.positions == "rotary" else None,
            window=architecture.windows[block],
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

    def after_hidden(self, start: NodeLayer) -> Section:
        """From `[x, hidden, 1]` to the residual stream: linear."""
        module, d = f"blocks.{start.block}.mlp", self.architecture.d_model
        weight = self.residual(self.width_of(start), d + 1, self.weights[f"{module}.b_out"])
        weight[d:-1, :d] = self.weights[f"{module}.W_out"]
        return AffineSection(weight)

    def normalising(self, start: NodeLayer, d_out: int) -> Section:
        """To `[x, x_hat, 1]`, from the residual stream or with the scale beside it."""
        d, d_in = self.architecture.d_model, self.width_of(start)
        beside = self.beside_residual(d, d_out)
        normalisation = self.normalisation_of(start)
        if start.kind == "scale":
            branch: Branch = RescaleBranch(d, normalisation.centred, scale=d, weight_out=beside)
        else:
            branch = PositionwiseBranch(self.eye(d_in, d), beside, Linear(), normalisation)
        return BlockSection(self.residual(d_in, d_out), (branch,))

    def unembedding(self, start: NodeLayer) -> Section:
        """To the logits, from the final residual stream or from what was normalised."""
        weight, bias = self.folded("unembed.W_U", "unembed.b_U", "ln_final")
        reading = self.reading_of(start)
        if reading.normalisation is None:
            return AffineSection(reading.rows(weight, bias))
        residual = pad(bias[None], (0, 0, reading.width - 1, 0))
        linear = PositionwiseBranch(self.eye(reading.width, len(weight)), weight, Linear(), reading.normalisation)
        return BlockSection(residual, (linear,))

    def reading_of(self, start: NodeLayer) -> Reading:
        """How the module behind a residual stream or normalised activation reads it."""
        d = self.architecture.d_model
        if start.kind == "normalized":
            return Reading(2 * d + 1, d, None)
        none = self.kind_of_normalisation(start) == "none"
        return Reading(d + 1, 0, None if none else self.normalisation_of(start))

    def kind_of_normalisation(self, node: NodeLayer) -> str:
        """Of the normalisation in front of the module that reads this node layer."""
        final = node.module == "unembed"
        return self.architecture.final_normalisation if final else self.architecture.normalisation

    def normalisation_of(self, node: NodeLayer) -> Normalisation:
        """In front of the module that reads this node layer, without gain and bias."""
        centred = self.kind_of_normalisation(node) == "layer_norm"
        return Normalisation(self.architecture.d_model, centred, self.architecture.eps)

    def width_of(self, node: NodeLayer) -> int:
        """Number of coordinates, constant included."""
        d = self.architecture.d_model
        beside = {"residual": 0, "scale": 1, "normalized": d, "hidden": self.architecture.d_mlp}
        return d + beside[node.kind] + 1

    def folded(self, weight: str, bias: str, normalisation: str) -> tuple[Tensor, Tensor]:
        """A weight and its bias that read what a normalisation gives before its own gain and bias."""
        read, added = self.weights[weight], self.weights[bias]
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
