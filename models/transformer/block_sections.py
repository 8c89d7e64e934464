"""The section between two node layers of a decoder, by which pair it is.

Between residual streams the normalisation is part of the section's branches; finer node layers take it out of them.
"""

from __future__ import annotations

from functools import partial

from torch.nn.functional import pad

from libcore.sections import (
    AddedBranch,
    AffineSection,
    BlockSection,
    Branch,
    FunctionSection,
    Linear,
    Normalisation,
    PositionwiseBranch,
    RescaleBranch,
    ScaleBranch,
    Section,
    compose,
    residual_block,
    soft_capped,
)
from models.transformer.module_branches import ModuleBranches, Reading
from models.transformer.node_layers import NodeLayer


class BlockSections(ModuleBranches):
    """A decoder's sections, built from its weights when they are asked for."""

    def between(self, start: NodeLayer, end: NodeLayer) -> Section:
        """The section from one node layer to another that `is_one_section` away."""
        if end.kind == "output":
            return self.unembedding(start)
        if start.kind == "hidden":
            return self.after_hidden(start, end)
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
        reading, d_out, prefix = self.reading_of(start), self.width_of(end), f"blocks.{start.block}"
        biases, branches = [], list[AddedBranch]()
        if start.module in {"attn", "parallel"}:
            attention, bias = self.attention(start.block, reading, d_out), self.weights[f"{prefix}.attn.b_O"]
            added, outside = self.output_of(attention, bias, f"{prefix}.ln1_post", d_out)
            branches.append(added)
            biases.append(outside)
        if self.architecture.has_mlp and start.module in {"mlp", "parallel"}:
            if end.kind == "hidden":
                branches.append(self.mlp(start.block, reading, d_out, to_hidden=True))
            else:
                mlp, bias = self.mlp(start.block, reading, d_out, to_hidden=False), self.weights[f"{prefix}.mlp.b_out"]
                added, outside = self.output_of(mlp, bias, f"{prefix}.ln2_post", d_out)
                branches.append(added)
                biases.append(outside)
        block = residual_block(self.residual(reading.width, d_out, *biases), branches)
        return self.with_normalised_sum(block, start, end)

    def with_normalised_sum(self, section: Section, start: NodeLayer, end: NodeLayer) -> Section:
        """The residual stream normalised after an addition, where sums are."""
        kind = self.architecture.sum_normalisation
        if kind == "none" or end.kind != "residual":
            return section
        d, module = self.architecture.d_model, {"attn": "ln1", "mlp": "ln2"}[start.module]
        gain, shift = (self.weights[f"blocks.{start.block}.{module}.{name}"] for name in "wb")
        constant = self.residual(d + 1, d + 1, shift)
        constant[:d] = 0.0
        linear = PositionwiseBranch(self.eye(d + 1, d), pad(gain.diag(), (0, 1)), Linear(), self.normalisation_by(kind))
        return compose((section, BlockSection(constant, (linear,))))

    def after_hidden(self, start: NodeLayer, end: NodeLayer) -> Section:
        """From `[x, hidden, 1]` to the residual stream: linear, where nothing is normalised behind it."""
        module, d, d_in = f"blocks.{start.block}.mlp", self.architecture.d_model, self.width_of(start)
        residual = self.residual(d_in, d + 1)
        written = residual.new_zeros(d_in, d)
        written[d:-1] = self.weights[f"{module}.W_out"]
        bias = self.weights[f"{module}.b_out"]
        if self.architecture.output_normalisation == "none":
            residual = self.residual(d_in, d + 1, bias)
            residual[:, :d] += written
            return self.with_normalised_sum(AffineSection(residual), start, end)
        linear = PositionwiseBranch(written, self.eye(d, d), Linear())
        branch, shift = self.output_of(linear, bias, f"blocks.{start.block}.ln2_post", d + 1)
        return residual_block(self.residual(d_in, d + 1, shift), (branch,))

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
        reading, cap = self.reading_of(start), self.architecture.logit_soft_cap
        if reading.normalisation is None:
            logits: Section = AffineSection(reading.rows(weight, bias))
        else:
            residual = pad(bias[None], (0, 0, reading.width - 1, 0))
            linear = PositionwiseBranch(self.eye(reading.width, len(weight)), weight, Linear(), reading.normalisation)
            logits = BlockSection(residual, (linear,))
        return logits if cap is None else compose((logits, FunctionSection(partial(soft_capped, cap))))

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
        return self.normalisation_by(self.kind_of_normalisation(node))

    def width_of(self, node: NodeLayer) -> int:
        """Number of coordinates, constant included."""
        d = self.architecture.d_model
        beside = {"residual": 0, "scale": 1, "normalized": d, "hidden": self.architecture.d_mlp}
        return d + beside[node.kind] + 1
