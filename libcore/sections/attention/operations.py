"""Operations of an attention branch in matrix products, as functions of its shapes (symbols as in `jacobian.py`).

Of one example: `T` keys, `t` queries, `H` heads with keys of width `e` and values of width `c`, `d` coordinates in and
`o` out, `k` features of the next node layer and `j` of this one. Pairs of positions are taken in blocks of keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from libcore.sections.operations import Operations


@dataclass(frozen=True)
class AttentionShape:
    """What the counts depend on.

    Attributes:
        d_in, d_out: coordinates, the constant included.
        heads, key_value_heads, d_head, d_value: of queries and keys, of values.
        turned: whether positions turn queries and keys, and by how many angles.
        terms: rank-one terms of its Jacobian at a point: none without a normalisation, one more with biases.
        keys, queries: input and output positions.
        pairs: of a key and a query, in the blocks that the closed form takes.
        queries_in_blocks: queries of all those blocks.
        alike: whether queries are turned the same for all inputs, and not pulled back pair by pair.
        head_terms: further rank-one terms, of queries and of keys that are normalised over all heads.
    """

    d_in: int
    d_out: int
    heads: int
    key_value_heads: int
    d_head: int
    d_value: int
    turned: int
    terms: int
    keys: int
    queries: int
    pairs: int
    queries_in_blocks: int
    alike: bool = True
    head_terms: int = 0

    def reading(self) -> int:
        """Of queries, keys and values."""
        of_keys = 2 * self.keys * self.d_in * self.key_value_heads * (self.d_head + self.d_value)
        return 2 * self.queries * self.d_in * self.heads * self.d_head + of_keys

    def attending(self) -> int:
        """Of scores, and of what is attended to, for all pairs of positions."""
        return 2 * self.queries * self.keys * self.heads * (self.d_head + self.d_value)

    def forward(self) -> int:
        """Of a pass."""
        return self.reading() + self.attending() + 2 * self.queries * self.heads * self.d_value * self.d_out

    def parts(self) -> int:
        """Of what the closed forms begin with at a point of the path: no output, the rank-one terms read, too."""
        return self.attending() + (1 + self.terms) * self.reading()

    def X(self) -> int:
        """`X_t`, and what the terms' queries read of it."""
        t, T, e, c = self.queries, self.keys, self.d_head, self.d_value
        return 2 * t * T * e * c * self.heads + (self.terms + self.head_terms) * 2 * t * e * c * self.heads

    def gram(self, n_out: int, few_keys: bool, n_points: int = 1) -> Operations:
        """Of the Jacobian Gram; the heads at all points of the path stand side by side.

        With few keys, query rows are made from pairs of these (`query_rows.py`).
        """
        H = n_points * self.heads
        own = 2 * self.queries * H * self.d_head * self.d_value
        each = n_points * self.parts() + own + self._query_rows(H, few_keys and self.alike) + self._pairs(H)
        if self.terms + self.head_terms:
            each += self._rank_one(H, n_points)
        return Operations(each, self._of_weights(H, n_out))

    def _query_rows(self, H: int, few_keys: bool) -> int:
        t, e, c, up = self.queries, self.d_head, self.d_value, H * (H + 1) // 2
        if few_keys:
            o = self.keys - 1
            found = 2 * H * e * c * o * t + 2 * H * H * c * e * o * t
            found += up * (2 * c * c * o * t + 2 * e * e * o * t) + 2 * e * e * t * H * H
            return found + (2 * t * self.keys * e * c * H if self.terms else 0)
        of_X = 2 * t * self.keys * e * c * H + 2 * H * H * t * e * c
        of_pairs = up * (2 * t * e * c * c + 2 * t * e * e * c)
        return of_X + of_pairs + H * H * (2 * t * c * c + 2 * t * c * e + 2 * t * e * e)

    def _pairs(self, H: int) -> int:
        """Of values and keys."""
        p, T, q, e, c = self.pairs, self.keys, self.queries_in_blocks, self.d_head, self.d_value
        up = H * (H + 1) // 2
        overlap = 2 * (T + q) * c * c + 2 * p * (2 * c + 2)
        if not self.alike:
            of_pair = 8 * p * e + 4 * (T + q) * c * e + 2 * p * e * e
            return up * of_pair + (H * H if self.terms + self.head_terms else up) * overlap
        if self.turned:
            of_pair = 2 * p * (2 * e + 1) + 2 * p * (2 * self.turned + 1) + 4 * (T + q) * c * e + 2 * p * e * e
            return up * of_pair + (H * H if self.terms else up) * overlap
        of_pair = 2 * (T + q) * c * c + 2 * p * (2 * c + 2) + 2 * q * (c * c + e * e + 2 * c * e)
        return up * of_pair + (H * H * overlap if self.terms else 0)

    def _rank_one(self, heads: int, n_points: int) -> int:
        """Of the terms with one another and with all else; every point of the path has its own heads of each."""
        p, t, T, d, e, c, H = self.pairs, self.queries, self.keys, self.d_in, self.d_head, self.d_value, heads
        of_pairs = 4 * p * e * H + H * H * (2 * p + 4 * T * c * c + 4 * p * (c + 1))
        at_own = 4 * t * e * c * H + 4 * t * (H * c) ** 2
        with_rows = 2 * T * d * H * (c + e) + 2 * t * d * H * (e + c)
        n_terms = self.terms + n_points * self.head_terms
        return n_terms * (of_pairs + at_own + with_rows) + n_terms**2 * 2 * (T + t) * d * d

    def _of_weights(self, H: int, k: int) -> int:
        """Before and after all examples."""
        d, e, c = self.d_in, self.d_head, self.d_value
        before = 2 * H * c * self.d_out * k + 2 * (H * c) ** 2 * k
        values = 2 * H * d * c * k + 2 * H * H * d * k + 2 * d * d * H * k
        upper = 2 * (2 * H * H * e * e * d + 2 * d * d * H * e + 2 * H * d * e * e + 2 * d * d * H * e)
        mixed = 2 * (2 * H * H * d * c * c + 2 * H * H * d * c * e + 2 * d * d * H * e)
        mixed += 2 * H * H * e * e * d + 2 * d * d * H * e
        transfer = 4 * H * d * e * c + 2 * H * d * c * k
        return before + values + upper + mixed + transfer + 2 * H * d * d * (2 * e + c)

    def normalised_output(self, n_out: int, width: int, n_points: int = 1) -> int:
        """Of what a normalisation of the output adds to the Gram: two vectors for every pair of positions and point."""
        p, t, d, e, c, H = self.pairs, self.queries, self.d_in, self.d_head, self.d_value, n_points * self.heads
        n_terms = self.terms + n_points * self.head_terms
        row = 2 * p * H * (c + d + e * d) + 2 * t * H * c * d + n_terms * 2 * p * H * (c + e)
        own = 2 * t * H * (e * c + e * d)
        at_output = (
            self.forward() + 2 * t * (self.heads * c * width + width * (self.d_out + n_out)) + 2 * t * n_out * H * c
        )
        return n_points * (2 * (row + own) + 2 * p * d * d + at_output + 3 * own)

    def dense(self, n_out: int, n_points: int = 1) -> int:
        """Of Jacobians in full within each position, as two branches beside one another need them."""
        H, d, e, c, t = n_points * self.heads, self.d_in, self.d_head, self.d_value, self.queries
        return (
            6 * t * d * H * c * n_out + 2 * t * H * d * e + 2 * t * H * d * e * c + self.terms * 2 * t * H * c * n_out
        )

    def attributions(self, n_in: int, n_out: int, pairs: int, n_points: int = 1) -> Operations:
        """Of the attributions, `pairs` of positions being those that are taken together."""
        j, t, T, H, e, c = n_in, self.queries, self.keys, self.heads, self.d_head, self.d_value
        point = self.parts() + self.X() + 2 * T * j * self.d_in * (1 + self.terms) + 2 * t * c * e * j * H
        point += self.head_terms * 2 * T * j * self.d_in
        if self.turned or not self.alike:
            point += 2 * pairs * H * j * (1 + self.terms) + 2 * pairs * H * (e + bool(self.terms)) * j
            point += 2 * pairs * H * c * j
        else:
            point += 2 * pairs * H * j + 2 * t * H * e * j + 2 * pairs * H * c * j
            point += self.terms * (2 * pairs * e * H + 2 * pairs * H * c * j)
        weights = 2 * j * self.d_in * H * (2 * e + c) + 2 * H * c * self.d_out * n_out
        return Operations(n_points * point + 2 * t * n_out * H * c * j, weights)

    def accumulated(self, n_out: int, n_points: int = 1) -> int:
        """Numbers of the sums that the Jacobian Gram is made of, and of the weights beside them."""
        H, d, e, c = n_points * self.heads, self.d_in, self.d_head, self.d_value
        sums = H * H * (3 * e * e + 2 * c * e + c * c + 1) + H * d * (2 * e + 2 * c)
        return sums + H * d * (2 * e + c) + H * c * n_out + 4 * d * d

    def attribution_weights(self, n_in: int, n_out: int) -> int:
        """Numbers of the weights that attributions are made with, in feature coordinates and as they were."""
        H, e, c = self.heads, self.d_head, self.d_value
        found = H * (2 * e + c) * (self.d_in + n_in) + H * c * (self.d_out + n_out)
        return found + (self.key_value_heads * e * self.keys * n_in if self.turned else 0)


def pairs_of_rows(attends: Bool[Tensor, "query key"], rows_at_a_time: int) -> int:
    """Of positions, so many queries being taken at a time with all keys from the first to the last of theirs."""
    found = 0
    for rows in attends.split(rows_at_a_time):
        keys = torch.nonzero(rows.any(0)).flatten()
        found += len(rows) * (int(keys[-1]) - int(keys[0]) + 1) if len(keys) else 0
    return found
