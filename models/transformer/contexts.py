"""The contexts that a language model's features respond to: tokens around the places where each is most extreme.

Two passes over the sequences, chunk by chunk, for all features of all node layers at once: the first finds each
feature's extreme places, the second collects the activations around them and, the range now being known, the histogram.
Contexts at quantiles come from the first sequences' activations, which are held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.streams import float64_zeros, rows_per_chunk
from models.analysed import QUANTILES, Contexts, LayerContexts, TokenContexts, TokenContextsOf
from models.quantile_examples import rows_at_quantiles
from models.top_examples import Extremes, TopExamples, top_examples, values_per_example
from models.transformer.logit_effects import logit_effects, unembedding_of

N_SEQUENCES = 256
"""Only the first so many sequences are searched: enough for telling contexts at both ends, in seconds."""
N_FEATURES = 64
"""Features of each node layer that contexts are collected of."""
N_CONTEXTS = 10
"""Contexts at either end of a feature, each from a sequence of its own, or one per sequence where there are fewer."""
BEFORE, AFTER = 12, 6
"""Tokens that a context shows on either side of the one it is about."""
N_POOLED = 8192
"""Tokens, of whole sequences, from which contexts at quantiles are taken."""
N_AT_QUANTILE = 3
"""Contexts at each quantile."""
COMMON_SEQUENCES, COMMON_TOKENS = 6, 40
"""Sequences, and their first tokens, on which every feature's activations are kept."""
N_BINS = 40
"""Bins of a feature's histogram."""
N_TOKENS = 8
"""Tokens at either end of a feature's effect on the logits."""


def token_contexts_of(
    tokens: Int[Tensor, "example position"], vocabulary: tuple[str, ...], memory_budget: int
) -> TokenContextsOf:
    """What finds the contexts of a model's features in these sequences (`AnalysedModel.token_contexts`).

    Args:
        tokens: as the chain's `embed` takes them; the first `N_SEQUENCES` sequences are searched.
        vocabulary: text of every token; any strings.
        memory_budget: bytes that one chunk's activations and features may take.

    Raises ValueError for a token without a text.
    """
    searched = tokens[:N_SEQUENCES]
    if not 0 <= int(searched.min()) <= int(searched.max()) < len(vocabulary):
        raise ValueError(
            f"tokens from {int(searched.min())} to {int(searched.max())} for a vocabulary of {len(vocabulary)}; "
            "expected numbers of its texts, from 0"
        )

    def find(chain: Chain, bases: dict[str, Basis]) -> TokenContexts:
        by_layer = layer_contexts(chain, bases, searched, memory_budget)
        return TokenContexts(searched.cpu().long(), vocabulary, BEFORE, by_layer)

    return find


@torch.no_grad()
def layer_contexts(
    chain: Chain, bases: dict[str, Basis], tokens: Int[Tensor, "sequence position"], memory_budget: int
) -> dict[str, LayerContexts]:
    """Contexts, histograms and logit effects of each node layer's first `N_FEATURES` features, by node layer.

    Raises ValueError for a node layer whose positions are not the tokens.
    """
    described = {layer: first_features(bases[layer]) for layer in chain.node_layers}
    top = top_examples(chain, described, tokens, N_CONTEXTS, memory_budget)
    collected = {layer: Collected.empty(of_layer, N_BINS) for layer, of_layer in top.items()}
    pooled: dict[str, list[Tensor]] = {layer: [] for layer in top}
    n_pooled = max(COMMON_SEQUENCES, N_POOLED // tokens.shape[1])
    for start, layer, features in features_by_layer(chain, described, tokens, memory_budget):
        collected[layer].add(features, start)
        pooled[layer].append(features[: max(0, n_pooled - start)].float().cpu())
    unembedding = unembedding_of(chain, tokens)
    found = {}
    for layer, basis in described.items():
        mean, standard_deviation = collected[layer].moments(tokens.numel())
        effects = None
        if chain.has_constant(layer):
            of_device = basis.to(device=unembedding.activations.device, dtype=unembedding.activations.dtype)
            effects = logit_effects(unembedding, of_device, standard_deviation, N_TOKENS, memory_budget)
        highest, lowest = collected[layer].contexts()
        pool = torch.cat(pooled[layer])
        found[layer] = LayerContexts(
            first=int(bases[layer].has_constant),
            highest=highest,
            lowest=lowest,
            histogram=collected[layer].histogram.cpu(),
            mean=mean.cpu(),
            standard_deviation=standard_deviation.cpu(),
            effects=effects,
            quantiles=quantile_contexts(pool),
            common=pool[:COMMON_SEQUENCES, :COMMON_TOKENS].permute(2, 0, 1).clone(),
        )
    return found


def quantile_contexts(features: Float[Tensor, "sequence position feature"]) -> tuple[Contexts, ...]:
    """Contexts at each of `QUANTILES`, from the activations of the first sequences."""
    flat, n_positions = features.flatten(0, 1), features.shape[1]
    found = []
    for rows in rows_at_quantiles(flat, QUANTILES, N_AT_QUANTILE):
        at = Extremes(flat.gather(0, rows.T).T, rows // n_positions, rows % n_positions)
        windows = at.values.new_full((*rows.shape, BEFORE + 1 + AFTER), torch.nan)
        write_windows(windows, at, features, 0)
        found.append(Contexts(at.examples, at.positions, windows))
    return tuple(found)


def first_features(basis: Basis) -> Basis:
    """The basis of its first `N_FEATURES` features, the constant left out."""
    first = int(basis.has_constant)
    kept = slice(first, first + N_FEATURES)
    return Basis(basis.to_basis[:, kept], basis.from_basis[kept], basis.importance[kept], has_constant=False)


def features_by_layer(
    chain: Chain, bases: dict[str, Basis], tokens: Int[Tensor, "sequence position"], memory_budget: int
) -> Iterator[tuple[int, str, Tensor]]:
    """First sequence of a chunk, node layer, features `[sequence, position, feature]`: all layers of all chunks."""
    # Beside the features themselves: their float64 copy and bins.
    size = rows_per_chunk(2 * values_per_example(chain, bases, tokens), memory_budget)
    for start in range(0, len(tokens), size):
        for layer, activation in zip(chain.node_layers, chain.activations(tokens[start : start + size]), strict=True):
            if activation.shape[1] != tokens.shape[1]:
                raise ValueError(
                    f"{layer}: {activation.shape[1]} positions for {tokens.shape[1]} tokens; expected one each"
                )
            yield start, layer, bases[layer].to(device=activation.device, dtype=activation.dtype).features(activation)


@dataclass(frozen=True)
class Collected:
    """What one node layer's features are seen to do, chunk by chunk; tensors are filled in place.

    Attributes:
        top: extreme places of every feature, from which windows and the histogram's range follow.
        windows: of the highest and of the lowest places, `[feature, n, window]` each, NaN where nothing is known.
        histogram: `[feature, bin]`.
        sums: of the features and of their squares, `[2, feature]`, in float64.
    """

    top: TopExamples
    windows: tuple[Tensor, Tensor]
    histogram: Tensor
    sums: Tensor

    @classmethod
    def empty(cls, top: TopExamples, n_bins: int) -> Collected:
        """Before the first chunk."""
        values = top.highest.values
        highest, lowest = (values.new_full((*values.shape, BEFORE + 1 + AFTER), torch.nan) for _ in range(2))
        histogram = torch.zeros(len(values), n_bins, dtype=torch.int64, device=values.device)
        return cls(top, (highest, lowest), histogram, float64_zeros(2, len(values), like=values))

    def add(self, features: Float[Tensor, "sequence position feature"], start: int) -> None:
        """Take in a chunk whose first sequence has number `start`."""
        for extremes, windows in zip((self.top.highest, self.top.lowest), self.windows, strict=True):
            write_windows(windows, extremes, features, start)
        flat = features.flatten(0, 1).double()
        self.sums[0] += flat.sum(0)
        self.sums[1] += flat.square().sum(0)
        lowest, highest = self.top.lowest.values[:, 0].double(), self.top.highest.values[:, 0].double()
        n_features, n_bins = self.histogram.shape
        width = (highest - lowest).clamp(min=torch.finfo(torch.float32).tiny) / n_bins
        bins = ((flat - lowest) / width).long().clamp(0, n_bins - 1)
        bins += n_bins * torch.arange(n_features, device=bins.device)
        self.histogram.add_(bins.flatten().bincount(minlength=n_features * n_bins).view(n_features, n_bins))

    def moments(self, n: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every feature over `n` tokens."""
        mean, mean_square = self.sums / n
        return mean, (mean_square - mean.square()).clamp(min=0).sqrt()

    def contexts(self) -> tuple[Contexts, Contexts]:
        """The highest and the lowest."""
        highest, lowest = (
            Contexts(extremes.examples.cpu(), extremes.positions.cpu(), windows.cpu())
            for extremes, windows in zip((self.top.highest, self.top.lowest), self.windows, strict=True)
        )
        return highest, lowest


def write_windows(
    windows: Float[Tensor, "feature n window"],
    extremes: Extremes,
    features: Float[Tensor, "sequence position feature"],
    start: int,
) -> None:
    """Fill in the windows of the places that lie in this chunk, whose first sequence has number `start`."""
    rows = extremes.examples - start
    feature, place = ((rows >= 0) & (rows < len(features))).nonzero(as_tuple=True)
    offsets = torch.arange(-BEFORE, AFTER + 1, device=rows.device)
    positions = extremes.positions[feature, place][:, None] + offsets
    inside = (positions >= 0) & (positions < features.shape[1])
    around = features[rows[feature, place][:, None], positions.clamp(0, features.shape[1] - 1), feature[:, None]]
    windows[feature, place] = around.to(windows.dtype).where(inside, torch.nan)
