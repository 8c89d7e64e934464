"""Operations of an attention branch (METHOD.md eq. 10), of one example.

For `H` heads with keys of width `e` and values of width `c`, `T` output positions and `p` pairs of positions that
attend, the Jacobian Gram takes, by pairs of heads,

    value with key       2 p e H², turned back by rotary positions 2 p e H² more; 4 T e c H²
    key with key         2 p c H² for the overlaps; p e² H² where positions turn keys, T e² H² elsewhere
    query with query     T H² (e c² + e² c), through `Ω`
    query with others    T H² (4 e c + 2 c² + 2 e²)
    X                    2 p e c H
    all three with few keys, o others each   T H² (o c² + o² c + o² e + o e² + 2 o c e + 2 e²)
    a rank-one term      12 p r H with r directions of output, 2 p e H, 2 T d (r + e) H, T d²

and edges, of `j` features and `k` of the next node layer,

    through values       2 p j H
    through keys         2 p j (e + c) H where positions turn them, 2 p j c H elsewhere
    through queries      2 T j e c H, X as above
    a rank-one term      2 p (j + 2 j c + e) H
    onto features        2 T j k c H
"""

from __future__ import annotations

from libcore.quadrature import GRADIENT
from libcore.sections import AttentionBranch
from libcore.sections.attention.query_rows import few_keys
from libcore.sections.branch import Positions


def attending_pairs(branch: AttentionBranch, positions: Positions) -> int:
    """Pairs of an output position and one that it attends to."""
    return int(branch.attends(positions).sum())


def rank_one_terms(branch: AttentionBranch) -> int:
    """Along the scale, and where biases are not divided by it."""
    if branch.normalisation is None:
        return 0
    width = branch.normalisation.width
    has_biases = any(weight[:, width:].any() for weight in (branch.W_Q, branch.W_K, branch.W_V))
    return len(GRADIENT.points) * (2 if has_biases else 1)


def attention_gram_operations(branch: AttentionBranch, positions: Positions, d: int, k: int) -> int:
    """Of the Jacobian Gram."""
    H, e, c = branch.W_Q.shape[0], branch.W_Q.shape[-1], branch.W_V.shape[-1]
    T, p, turned = len(positions.queries), attending_pairs(branch, positions), branch.rotary is not None
    found = H * H * (2 * p * e * (2 if turned else 1) + 4 * T * e * c)
    found += H * H * (2 * p * c + (p if turned else T) * e * e)
    if few_keys(positions.count, e):
        o = positions.count - 1
        found += H * H * T * (o * c * c + o * o * (c + e) + o * e * e + 2 * o * c * e + 2 * e * e)
    else:
        found += H * H * T * (e * c * c + e * e * c + 4 * e * c + 2 * c * c + 2 * e * e) + 2 * p * e * c * H
    r = min(k, H * c)
    return found + rank_one_terms(branch) * (12 * p * r * H + 2 * p * e * H + 2 * T * d * (r + e) * H + T * d * d)


def attention_edge_operations(branch: AttentionBranch, positions: Positions, j: int, k: int) -> int:
    """Of edges."""
    H, e, c = branch.W_Q.shape[0], branch.W_Q.shape[-1], branch.W_V.shape[-1]
    T, p, turned = len(positions.queries), attending_pairs(branch, positions), branch.rotary is not None
    found = 2 * p * j * H + 2 * p * j * ((e if turned else 0) + c) * H + 2 * T * j * e * c * H + 2 * p * e * c * H
    return found + rank_one_terms(branch) * 2 * p * (j + 2 * j * c + e) * H + 2 * T * j * k * c * H
