"""What a feature does to the logits directly: past all later blocks, through the final normalisation and unembedding.

The final residual stream is the sum of what a node layer's residual stream holds and of what the blocks after it add. A
feature's own share of that sum is its row of `from_basis`; the derivative of the logits along it is the direct effect.
It is taken at activations of the data and averaged over them, since the normalisation divides by a number that differs
from one to the next. Cost: as many forward passes through the final section as features times activations.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.sections import ComposedSection, Section, compose
from libcore.streams import rows_per_chunk
from models.analysed import LogitEffects

N_ACTIVATIONS = 16
"""Final residual streams that the derivative is averaged over."""


@dataclass(frozen=True)
class Unembedding:
    """The last part of a language model, and where its derivative is taken.

    Attributes:
        section: from the final residual stream, the constant last, to the logits.
        activations: final residual streams of the data.
    """

    section: Section
    activations: Float[Tensor, "activation d"]

    @torch.no_grad()
    def effects(self, directions: Float[Tensor, "feature width"], memory_budget: int) -> Float[Tensor, "feature token"]:
        """Change of every logit per unit of each direction, averaged over the activations, to first order.

        Args:
            directions: in the residual stream, without the constant coordinate.
            memory_budget: bytes that one chunk of directions may take.
        """
        points = self.activations[:, None]

        def derivative(chunk: Tensor) -> Tensor:
            at = points.repeat(len(chunk), 1, 1)
            along = torch.nn.functional.pad(chunk, (0, 1)).repeat_interleave(len(points), 0)[:, None]
            change: Tensor = torch.func.jvp(self.section, (at,), (along,))[1]
            return change[:, 0].unflatten(0, (len(chunk), len(points))).mean(1)

        values = 2 * len(points) * self.section.forward_values(points[:1])
        # torch's forward mode is loaded at first use, with a function that torch itself deprecates.
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            return torch.cat([derivative(chunk) for chunk in directions.split(rows_per_chunk(values, memory_budget))])


@torch.no_grad()
def unembedding_of(chain: Chain, tokens: Int[Tensor, "sequence position"]) -> Unembedding:
    """The part of a chain that follows the last residual stream, and that stream on some of the tokens.

    Raises ValueError if the chain ends in no section.
    """
    pieces = [*chain.before, *chain.sections] + ([] if chain.tail is None else [chain.tail])
    pieces = [part for piece in pieces for part in (piece.sections if isinstance(piece, ComposedSection) else (piece,))]
    if not pieces:
        raise ValueError("a chain without sections; expected at least the one that gives the logits")
    streams = [chain.embed(tokens[torch.linspace(0, len(tokens) - 1, N_ACTIVATIONS).long()])]
    for piece in pieces[:-1]:
        streams.append(piece(streams[-1]))
    # Finer node layers after the last block carry the normalisation's scale or its output beside the residual stream.
    last = max(index for index, stream in enumerate(streams) if stream.shape[-1] == streams[0].shape[-1])
    positions = torch.linspace(0, streams[last].shape[1] - 1, N_ACTIVATIONS).long()
    return Unembedding(compose(pieces[last:]), streams[last][torch.arange(N_ACTIVATIONS), positions])


def logit_effects(
    unembedding: Unembedding,
    basis: Basis,
    standard_deviation: Float[Tensor, " feature"],
    n: int,
    memory_budget: int,
) -> LogitEffects:
    """The `n` tokens whose logits each feature of a basis raises and lowers most, or all where there are fewer.

    Args:
        unembedding: of the model.
        basis: of a node layer whose first coordinates are the residual stream; on the unembedding's device.
        standard_deviation: of each feature; effects are per such step.
        n: tokens at either end.
        memory_budget: bytes that one chunk of features may take.
    """
    width = unembedding.activations.shape[-1] - 1
    directions = basis.from_basis[:, :width] * standard_deviation.to(basis.from_basis)[:, None]
    effects = unembedding.effects(directions, memory_budget)
    effects = effects - effects.mean(1, keepdim=True)
    n = min(n, effects.shape[1])
    raised, lowered = effects.topk(n, dim=1), effects.topk(n, dim=1, largest=False)
    return LogitEffects(raised.indices.cpu(), raised.values.cpu(), lowered.indices.cpu(), lowered.values.cpu())
