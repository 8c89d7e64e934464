"""Operations and memory of a block's closed forms: the residual stream's own, and what its branches say of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from jaxtyping import Float
from torch import Tensor

from libcore.parallel import threads_for
from libcore.sections.branch import Branch, Positions
from libcore.sections.operations import Operations
from libcore.streams import rows_per_chunk, within_cache


def block_gram_operations(
    residual: Float[Tensor, "d_in d_out"], branches: Sequence[Branch], positions: Positions, n_out: int, n_points: int
) -> Operations:
    """Of the Jacobian Gram. Of two branches beside one another, Jacobians in full are multiplied."""
    d_in, d_out = residual.shape
    found = Operations(once=2 * d_in * n_out * (d_out + d_in * (1 + len(branches))))
    for branch in branches:
        found += branch.gram_operations(positions, n_out, n_points)
    for pair in combinations(branches, 2):
        dense = sum(branch.dense_operations(positions, n_out, n_points) for branch in pair)
        found += Operations(dense + 2 * len(positions.queries) * d_in * d_in * n_out)
    return found


def block_gram_memory(
    residual: Float[Tensor, "d_in d_out"], branches: Sequence[Branch], positions: Positions, n_out: int, n_points: int
) -> tuple[int, int]:
    """Numbers alive for every example of a chunk, and sums beside those."""
    d_in = len(residual)
    sums = sum(branch.gram_sums(positions, n_out, n_points) for branch in branches)
    return block_gram_values(branches, positions, d_in, n_out, n_points), sums + 3 * d_in * d_in + d_in * n_out


def block_gram_values(branches: Sequence[Branch], positions: Positions, d_in: int, n_out: int, n_points: int) -> int:
    """Numbers alive for every example of a chunk while its Jacobians are taken into the sums."""
    n_queries = len(positions.queries)
    found = 2 * positions.count * d_in
    found += sum(branch.jacobian_values(positions.count, n_queries, n_out, n_points) for branch in branches)
    return found + (3 * n_queries * d_in * n_out if len(branches) > 1 else 0)


def block_edge_values(
    branches: Sequence[Branch], positions: Positions, d_in: int, n_in: int, n_out: int, n_points: int
) -> tuple[int, int]:
    """Numbers alive for every example of a chunk of edges, and of those the ones for every output position."""
    n_queries = len(positions.queries)
    shared = sum(branch.attribution_values(positions.count, n_queries, n_in, n_points) for branch in branches)
    beside = max((branch.attribution_values_per_query(positions.count, n_in) for branch in branches), default=0)
    per_query = 2 * n_in * n_out + beside
    return 2 * (2 * positions.count * d_in + shared + per_query), per_query


def block_edge_operations(
    residual: Float[Tensor, "d_in d_out"],
    branches: Sequence[Branch],
    positions: Positions,
    example: Float[Tensor, "1 position d_in"],
    n_in: int,
    n_out: int,
    n_points: int,
    n_examples: int,
    bytes_at_a_time: int,
) -> Operations:
    """Of edges, the working set of a thread being so large."""
    d_in, d_out = residual.shape
    values, per_query = block_edge_values(branches, positions, d_in, n_in, n_out, n_points)
    chunk = rows_per_chunk(values, bytes_at_a_time)
    queries = rows_per_chunk(min(chunk, n_examples) * per_query, bytes_at_a_time // 2)
    found = Operations(2 * example.shape[1] * d_in * n_in, 2 * n_in * d_out * (d_in + n_out))
    for branch in branches:
        found += branch.attribution_operations(positions, n_in, n_out, n_points, queries)
    return found


def bytes_of_thread(memory_budget: int, in_cache: int, example: Tensor) -> int:
    """What one thread may work on at a time."""
    return min(memory_budget // threads_for(example), within_cache(memory_budget, in_cache, example))
