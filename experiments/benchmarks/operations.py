"""Operations that the closed forms take in matrix products: the machine's limit is these over its rate.

A multiplication and an addition are two operations. A product that is symmetric counts half. Elementwise passes, sums,
copies and Python are not counted, nor is anything computed twice: what a stage takes beyond the limit is these, and
products that run below the rate. Counted are, for `n` activations `[d]` of a node layer and `k` features of the next,

    forward pass           as torch's own counter says of one example, times the examples
    statistics             n d² for each node layer (in float32 where inputs are integers), and a forward pass
    eigenproblem           9 d³: to tridiagonal form and back, and both factors of the solution
    LIB of a layer         two eigenproblems and four products of that width; or, where r < d directions are read, one
                           of width r, the products with them (METHOD.md eq. 6b), and d³ / 3 for the Cholesky factor
                           that tells whether data vary along every direction

and what the sections' Jacobian Grams and edges take: `section_operations.py`, `attention_operations.py`,
`convolution_operations.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks.convolution_operations import (
    convolution_edge_operations,
    convolution_gram_operations,
)
from experiments.benchmarks.section_operations import (
    affine_edge_operations,
    affine_gram_operations,
    block_edge_operations,
    block_gram_operations,
    directions_read,
)
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.integers import ScaledIntegers
from libcore.sections import AffineSection, BlockSection, ConvolutionSection, ResidualConvolutionSection, Section

EIGENPROBLEM = 9
"""Times the width cubed."""

Operations = Counter[str]
"""By dtype."""


def forward_operations(chain: Chain, inputs: Tensor) -> int:
    """Of a pass through all sections."""
    with FlopCounterMode(display=False) as counter:
        for _ in chain.activations(inputs[:1]):
            pass
    return counter.get_total_flops() * len(inputs)


def statistics_operations(chain: Chain, inputs: Tensor) -> Operations:
    """Moments of every node layer."""
    found: Operations = Counter({name_of(chain, inputs): forward_operations(chain, inputs)})
    for index, activation in enumerate(examples_of(chain, inputs)):
        exact = index == 0 and isinstance(chain.embed, ScaledIntegers) and not chain.before
        d = activation.shape[-1]
        found["float32" if exact else "float64"] += len(inputs) * activation.shape[1] * d * d
    return found


def basis_operations(chain: Chain, inputs: Tensor, bases: Mapping[str, Basis]) -> Operations:
    """LIB of every node layer, Jacobian Grams included."""
    found: Operations = Counter({name_of(chain, inputs): forward_operations(chain, inputs)})
    for index, (section, example) in enumerate(zip(chain.sections, examples_of(chain, inputs), strict=False)):
        basis, next_basis = (bases[layer] for layer in chain.node_layers[index : index + 2])
        found["float64"] += gram_operations(section, example, len(inputs), next_basis)
        found["float64"] += lib_operations(section, basis, next_basis)
    return found


def edge_operations(chain: Chain, inputs: Tensor, bases: Mapping[str, Basis]) -> Operations:
    """Edges of every layer pair."""
    found: Operations = Counter({name_of(chain, inputs): forward_operations(chain, inputs)})
    activations = list(chain.activations(inputs[:ACTIVITY_EXAMPLES]))
    for index, section in enumerate(chain.sections):
        basis, next_basis = (bases[layer].double() for layer in chain.node_layers[index : index + 2])
        arguments = (activations[index], len(inputs), basis, next_basis)
        if isinstance(section, AffineSection):
            found["float64"] += affine_edge_operations(section, *arguments)
        elif isinstance(section, BlockSection):
            found["float64"] += block_edge_operations(section, *arguments)
        elif isinstance(section, ResidualConvolutionSection | ConvolutionSection):
            found["float64"] += convolution_edge_operations(section, *arguments)
        else:
            raise ValueError(f"{type(section).__name__}: its edges' operations are not counted")
    return found


ACTIVITY_EXAMPLES = 64
"""That say how many neurons of a hidden layer are active."""


def gram_operations(section: Section, example: Tensor, n: int, next_basis: Basis) -> int:
    """Of one section's Jacobian Gram."""
    if isinstance(section, AffineSection):
        return affine_gram_operations(section, next_basis)
    if isinstance(section, BlockSection):
        return block_gram_operations(section, example, n, next_basis)
    if isinstance(section, ResidualConvolutionSection | ConvolutionSection):
        return convolution_gram_operations(section, n, next_basis)
    raise ValueError(f"{type(section).__name__}: its Jacobian Gram's operations are not counted")


def lib_operations(section: Section, basis: Basis, next_basis: Basis) -> int:
    """From moments and Jacobian Gram to the basis."""
    d, k = basis.d, basis.n_features
    few = directions_read(section, next_basis)
    if few is not None and few < d:
        return EIGENPROBLEM * few**3 + d**3 // 3 + 2 * d * d * few + 2 * d * few * few + 4 * d * few * k
    return 2 * EIGENPROBLEM * d**3 + 4 * 2 * d**3


def examples_of(chain: Chain, inputs: Tensor) -> list[Tensor]:
    """Every node layer's activation on the first example."""
    with torch.no_grad():
        return list(chain.activations(inputs[:1]))


def name_of(chain: Chain, inputs: Tensor) -> str:
    """The dtype that activations are computed in."""
    with torch.no_grad():
        return str(chain.embed(inputs[:1]).dtype).removeprefix("torch.")
