"""Edge ablation of attention by tables over distinct activations (`tables.py`).

For a fixed mask per output feature, the attention score depends on the pair (query activation, key activation) and the
value a head contributes to one output feature is one number per key activation. Both are tabulated; an example is then
a few gathers and a softmax per head and output feature.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from libcore.basis import Basis
from libcore.sections.attention.attention import Attention
from libcore.sections.attention.tables import DistinctRows, distinct_positions
from libcore.sections.base import MaskedEvaluation, columns
from libcore.sections.branch import Positions
from libcore.streams import rows_per_chunk, within_cache

BYTES_IN_CACHE = 2**21
"""Scores and values of one block of examples."""


def masked_attention_evaluation(
    residual: Float[Tensor, "d_in d_out"],
    attention: Attention,
    positions: Positions,
    features: Float[Tensor, "batch position feature_in"],
    basis: Basis,
    next_basis: Basis,
    memory_budget: int,
) -> MaskedEvaluation | None:
    """Evaluation by mask, or None where a table of all query-key pairs would be larger than the batch."""
    n_examples, n_positions, _ = features.shape
    queries, attends = positions.queries.tolist(), attention.attends(positions)
    distinct = distinct_positions(features, queries, memory_budget)
    if distinct is None:
        return None

    residual = basis.from_basis @ residual @ next_basis.to_basis
    query_weight = basis.from_basis @ attention.W_Q / attention.scale
    key_weight = basis.from_basis @ attention.W_K
    value_weight = basis.from_basis @ attention.W_V @ attention.W_O @ next_basis.to_basis

    def evaluate(mask: Bool[Tensor, "some feature_in"], outputs: Tensor | None = None) -> Tensor:
        masked_residual, masked_values = (columns(weight, outputs) * mask.T for weight in (residual, value_weight))
        n_outputs = len(mask)
        at_once = within_cache(memory_budget, BYTES_IN_CACHE, features)
        chunk = rows_per_chunk(3 * n_positions * n_outputs * len(value_weight), at_once)
        values = [torch.einsum("nj,hji->nih", position.rows, masked_values) for position in distinct]
        output = features.new_empty(n_examples, len(queries), n_outputs)
        for column, t in enumerate(queries):
            keys = torch.nonzero(attends[column]).flatten().tolist()
            scores = score_tables(distinct, t, keys, query_weight, key_weight, mask)
            direct = distinct[t].rows @ masked_residual
            for start in range(0, n_examples, chunk):
                rows = slice(start, start + chunk)
                at_query = distinct[t].index[rows]
                score = torch.stack([scores[s][at_query, distinct[s].index[rows]] for s in keys])
                value = torch.stack([values[s][distinct[s].index[rows]] for s in keys])
                output[rows, column] = direct[at_query] + (score.softmax(0) * value).sum((0, -1))
        return output

    return evaluate


def score_tables(
    distinct: list[DistinctRows],
    query: int,
    keys: list[int],
    query_weight: Float[Tensor, "head feature_in d_head"],
    key_weight: Float[Tensor, "head feature_in d_head"],
    mask: Bool[Tensor, "feature_out feature_in"],
) -> dict[int, Float[Tensor, "distinct_query distinct_key feature_out head"]]:
    """Attention scores of every distinct pair, for every output feature's own masked query and key inputs."""
    masked_rows = distinct[query].rows[:, None, :] * mask
    heads_query = torch.einsum("nij,hje->nihe", masked_rows, query_weight)
    # What a key's features are multiplied with: one vector per query, output feature and head.
    read_by_query = torch.einsum("nihe,hje->nihj", heads_query, key_weight) * mask[None, :, None, :]
    return {s: torch.einsum("nihj,mj->nmih", read_by_query, distinct[s].rows) for s in keys}
