"""What statistics, bases and edges take, from the shapes of a chain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from libcore.costs.cost import FLOAT64, Cost
from libcore.costs.passes import Passes
from libcore.costs.shapes import ChainShapes, directions_read
from libcore.estimators import Estimator
from libcore.estimators.operations import edge_operations, gram_operations
from libcore.estimators.stochastic import PROBES, Probes
from libcore.parallel import shares_for, threads_for
from libcore.sections.base import CountedForm
from libcore.statistics import BYTES_OF_SHARED_GRAMS, COLUMNS_PER_BLOCK, ROWS_PER_SUM
from libcore.streams import rows_per_chunk

EIGENPROBLEM = 9
"""Times the width cubed: to tridiagonal form and back, and both factors of the solution."""
MATRICES_OF_A_FIT = 10
"""As wide as a node layer, alive at a time while its basis is found: the Gram of the Jacobian, whitening both ways, the
alignment, eigenvectors of it and what LAPACK works in."""


@dataclass(frozen=True)
class Fit:
    """Data and how they are gone through.

    Attributes:
        n_examples: that bases, or edges, are computed from.
        memory_budget, disk_room: bytes of a chunk's working set, and of activations on disk.
        n_points: of the path.
    """

    n_examples: int
    memory_budget: int
    disk_room: int = 0
    n_points: int = 1
    estimator: Estimator = "auto"
    probes: Probes = PROBES


def statistics_cost(shapes: ChainShapes, fit: Fit) -> Cost:
    """One pass through the model, and of a sum's rows one before it; Grams of every node layer, upper blocks alone."""
    operations: Counter[str] = Counter({shapes.dtype: fit.n_examples * shapes.forward()})
    numbers = 0
    for example in shapes.examples:
        d = example.shape[-1]
        columns = sum(min(COLUMNS_PER_BLOCK, d - start) * (d - start) for start in range(0, d, COLUMNS_PER_BLOCK))
        operations[FLOAT64] += 2 * fit.n_examples * example.shape[1] * columns
        numbers += d * (d + 1)
    widest = max(shapes.widths) ** 2
    threads = 1 if 8 * numbers > BYTES_OF_SHARED_GRAMS else threads_for(shapes.examples[0])
    shares = shares_for(threads, fit.n_examples)
    rows = max(1, ROWS_PER_SUM // min(example.shape[1] for example in shapes.examples))
    chunk = min(rows_per_chunk(shapes.alive, fit.memory_budget // threads), -(-fit.n_examples // shares))
    operations[shapes.dtype] += min(rows, chunk) * shapes.forward()
    memory = 8 * ((1 + shares) * numbers + 3 * widest) + in_chunks(shapes.alive, fit)
    return Cost(dict(operations), memory, 8 * numbers)


def basis_cost(shapes: ChainShapes, fit: Fit, features: Sequence[int], *, of_jacobians: bool = True) -> Cost:
    """Jacobian Grams from last node layer to first, and eigenproblems; or eigenproblems of the moments alone.

    A basis of moments is one eigenproblem for every node layer, LIB's two.
    """
    widths, disk = shapes.widths, sum(16 * d * k for d, k in zip(shapes.widths, features, strict=True))
    if not of_jacobians:
        solved = sum((EIGENPROBLEM + 4) * d**3 for d in widths)
        return Cost({FLOAT64: solved}, 8 * MATRICES_OF_A_FIT * max(widths) ** 2 + disk, disk)
    passes = Passes.of(shapes, fit.n_examples, fit.memory_budget, fit.disk_room)
    operations: Counter[str] = Counter({shapes.dtype: passes.holding()})
    memory = 0
    for index, (section, example) in enumerate(zip(shapes.sections, shapes.examples, strict=False)):
        n_out, shares = features[index + 1], shares_for(threads_for(example), fit.n_examples)
        gram = gram_operations(section, example, n_out, fit.n_points, fit.estimator, fit.probes)
        operations[shapes.dtype] += passes.reading(index)
        operations[FLOAT64] += gram.of(fit.n_examples, shares) + lib_operations(section, widths[index], n_out)
        each, sums = widths[index] * example.shape[1], widths[index] ** 2
        if isinstance(section, CountedForm):
            each, sums = section.gram_memory(example, n_out, fit.n_points)
        at_once = min(shares, threads_for(example))
        of_gram = 8 * (at_once * sums + shares * widths[index] ** 2) + in_chunks(each, fit)
        memory = max(memory, of_gram, 8 * MATRICES_OF_A_FIT * widths[index] ** 2)
    return Cost(dict(operations), memory + disk, disk + passes.on_disk)


def lib_operations(section: object, d: int, n_out: int) -> int:
    """From moments and Jacobian Gram to the basis."""
    few = directions_read(section, n_out)  # pyright: ignore[reportArgumentType]
    if few is not None and few < d:
        return EIGENPROBLEM * few**3 + d**3 // 3 + 2 * d * d * few + 6 * d * few * few
    return 2 * EIGENPROBLEM * d**3 + 4 * 2 * d**3


def edges_cost(shapes: ChainShapes, fit: Fit, features: Sequence[int]) -> Cost:
    """Attributions of every layer pair; neurons without a derivative are counted as if they had one."""
    passes = Passes.of(shapes, fit.n_examples, fit.memory_budget, fit.disk_room)
    operations: Counter[str] = Counter({shapes.dtype: passes.holding()})
    memory = disk = 0
    for index, (section, example) in enumerate(zip(shapes.sections, shapes.examples, strict=False)):
        n_in, n_out = features[index : index + 2]
        settings = (fit.n_points, fit.n_examples, fit.memory_budget, fit.estimator, fit.probes)
        of_pair = edge_operations(section, example, n_in, n_out, *settings)
        operations[shapes.dtype] += passes.reading(index)
        operations[FLOAT64] += of_pair.of(fit.n_examples)
        values, beside = n_in * n_out, 0
        if isinstance(section, CountedForm):
            values, beside = section.edge_memory(example, n_in, n_out, fit.n_points)
        shares = shares_for(threads_for(example), fit.n_examples)
        disk += 8 * n_in * n_out
        memory = max(memory, in_chunks(values, fit) + 8 * (beside + (shares + 1) * n_in * n_out))
    return Cost(dict(operations), memory + disk, disk + passes.on_disk)


def in_chunks(values: int, fit: Fit) -> int:
    """Bytes of chunks, and of what is held beside them: the budget, unless one example takes more or all take less."""
    return min(8 * values * fit.n_examples, max(8 * values, fit.memory_budget))
