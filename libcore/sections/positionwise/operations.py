"""Operations of a position-wise branch in matrix products, as functions of its shapes (symbols as in `jacobian.py`).

Of one example: `T` input and `t` output positions, `d` coordinates in, `h` pre-activations, `o` coordinates out, `k`
features of the next node layer and `j` of this one.
"""

from __future__ import annotations

from dataclasses import dataclass

from libcore.sections.operations import Operations


@dataclass(frozen=True)
class PositionwiseShape:
    """What the counts depend on.

    Attributes:
        d_in, pre, d_out: coordinates in, pre-activations, coordinates out.
        reads_per_write: how many pre-activations feed one hidden activation.
        terms: rank-one terms of its Jacobian, over all points of the path.
        keys, queries: input and output positions.
        deriving: of the derivative and the terms, for every example, beside what is read.
    """

    d_in: int
    pre: int
    d_out: int
    reads_per_write: int
    terms: int
    keys: int
    queries: int
    deriving: int = 0

    def jacobian(self) -> int:
        """Of derivative and terms."""
        return 2 * self.keys * self.d_in * self.pre + self.deriving

    def gram(self, n_out: int) -> Operations:
        """Of the Jacobian Gram."""
        t, d, h, k = self.queries, self.d_in, self.pre, n_out
        of_terms = self.terms * 2 * t * (2 * h * k + d * k + h * d) + self.terms**2 * 2 * t * d * d
        once = 2 * h * self.d_out * k + 2 * h * h * k + 2 * d * h * h + 2 * d * d * h + 2 * d * h * k
        return Operations(self.jacobian() + 2 * t * h * h + of_terms, once + (2 * d * d * h if self.terms else 0))

    def moments(self, n_out: int, carried: int) -> Operations:
        """Of the Jacobian Gram by its factors: weights into the hidden neurons and what is carried left outside."""
        h, k = self.pre, n_out
        once = 4 * h * self.d_out * k + 2 * h * h * k + 2 * h * k * carried + 2 * carried * carried * k
        return Operations(self.jacobian() + 2 * self.queries * h * h, once)

    def dense(self, n_out: int) -> int:
        """Of Jacobians in full, as two branches beside one another need them."""
        return 2 * self.queries * self.d_in * self.pre * n_out

    def attributions(self, n_in: int, n_out: int) -> Operations:
        """Of the attributions."""
        t, j, k, d, h = self.queries, n_in, n_out, self.d_in, self.pre
        narrow = 2 * self.reads_per_write * k <= j
        through = 2 * t * j * k * (h if narrow else h // self.reads_per_write)
        of_terms = self.terms * 2 * t * (d * j + h * k)
        return Operations(
            2 * self.keys * j * d + self.jacobian() + of_terms + through, 2 * j * d * h + 2 * h * self.d_out * k
        )

    def accumulated(self, n_out: int) -> int:
        """Numbers of the sums that the Jacobian Gram is made of at the end, and of the weights beside them."""
        d, h = self.d_in, self.pre
        return 3 * h * h + 2 * d * h + h * (self.d_out + 2 * n_out) + (2 * d * h if self.terms else 0) + 4 * d * d

    def attribution_weights(self, n_in: int, n_out: int) -> int:
        """Numbers of the weights that attributions are made with, in feature coordinates and as they were."""
        return self.pre * (self.d_in + n_in + 2 * self.d_out + 2 * n_out)
