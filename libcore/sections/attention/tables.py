"""Attention by tables, where each position's activation takes few distinct values, one per token or so.

What heads read of an activation is then computed once per value, and scores once per pair of them; an example is a few
gathers, a softmax, and a product with what the heads write, instead of a pass through all projections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from libcore.sections.attention.attention import Attention
from libcore.sections.branch import Positions


@dataclass(frozen=True)
class DistinctRows:
    """`rows[index]` gives back the activations of one position."""

    rows: Float[Tensor, "distinct feature"]
    index: Int[Tensor, " batch"]

    @classmethod
    def of(cls, activation: Float[Tensor, "batch feature"]) -> DistinctRows:
        rows, index = torch.unique(activation, dim=0, return_inverse=True)
        return cls(rows, index)


def distinct_positions(
    activation: Float[Tensor, "batch position feature"], queries: Sequence[int], memory_budget: int
) -> list[DistinctRows] | None:
    """Every position's values, or None where a table of all query-key pairs would be larger than the batch.

    None too where sorting one position's activations would not fit into the budget.
    """
    n_examples = len(activation)
    if 4 * activation[:, 0].numel() * activation.element_size() > memory_budget:
        return None
    most = isqrt(n_examples)  # of a query's position, which may attend to itself
    few = activation[: 2 * most + 2]
    if any(len(few[:, t].unique(dim=0)) > most for t in queries):
        return None
    distinct = [DistinctRows.of(of_position) for of_position in activation.unbind(1)]
    pairs = max(len(distinct[t].rows) * len(key.rows) for t in queries for key in distinct)
    return distinct if pairs <= n_examples else None


LARGEST_EXPONENT = 60.0
"""Scores of one query within this of each other have exponentials that can be summed in any order, also in float32."""


class AttentionTables:
    """`f_t @ residual + attention(f)_t` of `f = features @ from_basis` over distinct features.

    Args:
        residual: beside the attention.
        attention: of all heads.
        positions: of keys and queries.
        features: by position.
        from_basis: rows of the same features.
        may_compose: whether heads may write features, where these are fewer than a head's values: the product for every
            example is then as much shorter. Takes a weight of at most the size of `W_O`.
    """

    def __init__(
        self,
        residual: Float[Tensor, "d_in d_out"],
        attention: Attention,
        positions: Positions,
        features: Sequence[Float[Tensor, "_ kept"]],
        from_basis: Float[Tensor, "kept d_in"],
        may_compose: bool,
    ) -> None:
        rows = [of_position @ from_basis for of_position in features]
        n_heads, _, d_value = attention.W_V.shape
        composed = may_compose and len(from_basis) < d_value
        W_O = from_basis @ attention.W_V @ attention.W_O if composed else attention.W_O
        if composed:
            values = [of_position[:, None].expand(-1, n_heads, -1) for of_position in features]
        else:
            values = [torch.einsum("nd,hde->nhe", of_position, attention.W_V) for of_position in rows]
        self.W_O = W_O.flatten(0, 1)
        attends = attention.attends(positions)
        k = [torch.einsum("nd,hde->hne", of_position, attention.W_K) for of_position in rows]
        self.queries: list[SeveralQueries | OneQuery] = []
        for t, attended in zip(positions.queries.tolist(), attends, strict=True):
            keys = torch.nonzero(attended).flatten().tolist()
            q = torch.einsum("nd,hde->hne", rows[t], attention.W_Q) / attention.scale
            scores = [(q @ k[s].mT).movedim(0, -1) for s in keys]
            query = SeveralQueries(t, keys, rows[t] @ residual, scores, [values[s] for s in keys])
            self.queries.append(query.as_one() or query)

    def write_output(self, index: Int[Tensor, "batch position"], output: Float[Tensor, "batch query d_out"]) -> None:
        """Of the examples whose features at position `s` are number `index[:, s]`."""
        for of, to in zip(self.queries, output.unbind(1), strict=True):
            torch.mm(of.z(index), self.W_O, out=to).add_(of.direct_of(index))


@dataclass(frozen=True)
class SeveralQueries:
    """One output position whose activation differs from example to example.

    Attributes:
        position: of the query.
        keys: positions that it attends to.
        direct: what the residual stream carries to the output.
        scores, values: by key position.
    """

    position: int
    keys: list[int]
    direct: Float[Tensor, "distinct d_out"]
    scores: list[Float[Tensor, "distinct _ head"]]
    values: list[Float[Tensor, "_ head d_value"]]

    def direct_of(self, index: Int[Tensor, "batch position"]) -> Float[Tensor, "batch d_out"]:
        return self.direct[index[:, self.position]]

    def z(self, index: Int[Tensor, "batch position"]) -> Float[Tensor, "batch head_d_value"]:
        """All heads' outputs."""
        query, keys = index[:, self.position], [index[:, s] for s in self.keys]
        a = torch.stack([score[query, key] for score, key in zip(self.scores, keys, strict=True)]).softmax(0)
        z = torch.stack([value[key] for value, key in zip(self.values, keys, strict=True)]).mul_(a[..., None])
        return z.sum(0).flatten(1)

    def as_one(self) -> OneQuery | None:
        """Where the activation is the same in all examples, as the last position's may be."""
        if len(self.direct) > 1:
            return None
        scores = torch.cat([score[0] for score in self.scores])
        largest = scores.amax(0)
        if not (largest - scores.amin(0)).max() < LARGEST_EXPONENT:
            return None
        weight = (scores - largest).exp()
        summed = torch.cat([(weight[..., None] * torch.cat(self.values)).flatten(1), weight], 1)
        starts = torch.tensor([0, *(len(value) for value in self.values[:-1])]).cumsum(0).to(summed.device)
        return OneQuery(torch.tensor(self.keys, device=summed.device), starts, self.direct, summed, weight.shape[1])


@dataclass(frozen=True)
class OneQuery:
    """One output position with the same query in all examples: how much each key weighs depends on the key alone.

    Attributes:
        keys: positions that it attends to.
        starts: row of `summed` where each key position's begin.
        direct: what the residual stream carries to the output.
        summed: every key's values times its weight before normalisation, all heads', and the weights.
        n_heads: of the attention.
    """

    keys: Int[Tensor, " key"]
    starts: Int[Tensor, " key"]
    direct: Float[Tensor, "1 d_out"]
    summed: Float[Tensor, "row head_d_value_and_head"]
    n_heads: int

    def direct_of(self, index: Int[Tensor, "batch position"]) -> Float[Tensor, "1 d_out"]:
        return self.direct

    def z(self, index: Int[Tensor, "batch position"]) -> Float[Tensor, "batch head_d_value"]:
        """All heads' outputs."""
        total = embedding_bag(index[:, self.keys] + self.starts, self.summed, mode="sum")
        weighted, weight = total[:, : -self.n_heads], total[:, -self.n_heads :]
        return (weighted.unflatten(1, (self.n_heads, -1)) / weight[..., None]).flatten(1)
