"""The constant coordinate: biases as weights that read a coordinate which is always 1 (METHOD.md 1).

The only place where biases are folded. An activation `[..., d]` becomes `[..., d + 1]`, the constant last; an affine
map `f @ W + b` becomes `[f, 1] @ [[W], [b]]`, and one that leads to another such activation carries the constant along.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad


def with_constant(activation: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d_and_constant"]:
    """`[f, 1]`."""
    return pad(activation, (0, 1), value=1.0)


def folded(
    weight: Float[Tensor, "*heads d_in d_out"], bias: Float[Tensor, "*heads d_out"] | None
) -> Float[Tensor, "*heads d_in_and_constant d_out"]:
    """`[[W], [b]]`: reads the constant, does not write it; zeros without a bias."""
    row = torch.zeros_like(weight[..., :1, :]) if bias is None else bias.unsqueeze(-2)
    return torch.cat([weight, row], dim=-2)


def carrying_constant(
    weight: Float[Tensor, "d_in d_out"], bias: Float[Tensor, " d_out"] | None
) -> Float[Tensor, "d_in_and_constant d_out_and_constant"]:
    """`[[W, 0], [b, 1]]`: reads the constant and writes it."""
    carrying = pad(folded(weight, bias), (0, 1))
    carrying[-1, -1] = 1.0
    return carrying


def beside_constant(weight: Float[Tensor, "*rest d_out"]) -> Float[Tensor, "*rest d_out_and_constant"]:
    """`[W, 0]`: what is added to an activation whose constant something else carries."""
    return pad(weight, (0, 1))


def constant_alone(
    d_in: int, d_out: int, bias: Float[Tensor, " d_out"] | None = None, *, like: Tensor | None = None
) -> Float[Tensor, "d_in_and_constant d_out_and_constant"]:
    """`[[0, 0], [b, 1]]`: carries the constant, adds a bias and reads nothing else; float64 unless `like` says so."""
    zeros = torch.zeros(d_in, d_out, dtype=torch.float64) if like is None else like.new_zeros(d_in, d_out)
    return carrying_constant(zeros, bias)
