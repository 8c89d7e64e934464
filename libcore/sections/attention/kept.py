"""Node ablation before attention over few distinct activations: tables for every number of kept features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.sections.attention.attention import Attention
from libcore.sections.attention.tables import AttentionTables, distinct_positions
from libcore.sections.base import KeptEvaluation, KeptOutputs
from libcore.sections.branch import Positions
from libcore.streams import ActivationStream


def kept_attention_evaluation(
    residual: Float[Tensor, "d_in d_out"],
    attention: Attention,
    positions: Positions,
    stream: ActivationStream,
    basis: Basis,
) -> KeptEvaluation | None:
    """Evaluation by number of kept features, or None where tables would be larger than the batch.

    None too where the activations of all examples, held while the distinct ones are found, are larger than the stream's
    budget.
    """
    example = stream.example()
    if stream.n_examples * example.nbytes > stream.memory_budget:
        return None
    activation = stream.produce(0, stream.n_examples)
    distinct = distinct_positions(activation, positions.queries.tolist(), stream.memory_budget)
    if distinct is None:
        return None
    index = torch.stack([of_position.index for of_position in distinct], 1)
    features = [of_position.rows @ basis.to_basis for of_position in distinct]

    def at(numbers: Sequence[int]) -> KeptOutputs:
        may_compose = len(numbers) * attention.W_O.nbytes <= stream.memory_budget
        tables = [
            AttentionTables(
                residual, attention, positions, [f[:, :kept] for f in features], basis.from_basis[:kept], may_compose
            )
            for kept in numbers
        ]

        def of_examples(start: int, stop: int) -> Iterator[Tensor]:
            # One for all numbers: it stays in the caches while it is written and read.
            output = residual.new_empty(stop - start, len(positions.queries), residual.shape[1])
            for of_number in tables:
                of_number.write_output(index[start:stop], output)
                yield output

        return of_examples

    return at
