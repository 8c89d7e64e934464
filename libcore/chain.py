"""A model as a chain of node layers and the sections between them (METHOD.md 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from libcore.from_module import read_module
from libcore.held_activations import Held, Scratch, room_for
from libcore.numerical_errors import NumericalError, all_finite
from libcore.parallel import in_threads
from libcore.sections import Section, compose
from libcore.streams import ActivationStream, rows_per_chunk, stream_of_held, unwatched

CONSTANT_TOLERANCE = 1e-3
"""How far the constant coordinate may be off by round-off, in float32 and after poolings."""


@dataclass(frozen=True)
class Chain:
    """Node layers in order, the sections between them, and what lies before the first and after the last.

    Attributes:
        node_layers: names, first to last.
        sections: `sections[l]` maps the activation of `node_layers[l]` to that of `node_layers[l + 1]`.
        embed: maps a batch of inputs to the first activation `[batch, position, d]`.
        last_has_constant: whether the last node layer carries the constant coordinate; logits do not, a residual stream
            does. All node layers before it do.
        tail: maps the last node layer's activation to the model's output; None where the last layer is the output.
        isolated: by node layer, coordinates that stay features of their own (a normalisation's scale).
        before: sections between `embed` and the first node layer, of layers that were left out.
        on_chunk: `(node layer, examples done, examples in all)`, called after every chunk of a pass over data.
        scratch: room on disk for activations that the memory budget does not hold, None for none.
    """

    node_layers: tuple[str, ...]
    sections: tuple[Section, ...]
    embed: Callable[[Tensor], Tensor]
    last_has_constant: bool
    tail: Section | None = None
    before: tuple[Section, ...] = ()
    isolated: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    on_chunk: Callable[[str, int, int], None] = unwatched
    scratch: Scratch | None = None

    def __post_init__(self) -> None:
        if len(self.sections) != len(self.node_layers) - 1:
            raise ValueError(
                f"{len(self.node_layers)} node layers; expected one section less, got {len(self.sections)}"
            )

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        example_inputs: Tensor,
        node_layers: Sequence[str] | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> Chain:
        """Somebody's own network as a chain, compared with the network on the example.

        Sections have closed forms where what lies between two node layers is affine maps, convolutions, batch
        normalisation, average pooling, flattening, LayerNorm or RMSNorm of the activation, one elementwise function,
        and residual sums of these. Anything else is differentiated, with every bias `b` entering as `b * c`, `c` the
        constant coordinate of the position where it is added (METHOD.md 1); where that cannot be told, it is refused.

        Args:
            module: takes one tensor and returns one; a Sequential or anything that `torch.fx` traces, where submodules
                that it cannot trace are taken whole. It is read in evaluation mode (dropout does nothing, batch
                normalisation takes its running moments), copied, and left as it is.
            example_inputs: a few inputs, `[batch, ...]`.
            node_layers: submodule names in the module's order: node layer `name` is the activation that submodule
                `name` reads, `input` what the module reads and `output` what it returns, which carries no constant
                coordinate. By default, what the submodules with weights read, wherever everything later passes through
                it, then `output`.
            dtype: of the sections; the module's own by default.

        An activation is `[batch, position, d + 1]`, the constant last: `[batch, d]` is one position; an image's pixels
        are its positions, row by row, and its channels the coordinates. Raises ValueError in one line for a module or
        node layer that cannot be read, by name, and where chain and module differ on the example.
        """
        parts = read_module(module, example_inputs, node_layers, dtype)
        chain = cls(parts.node_layers, parts.sections, parts.embed, parts.last_has_constant, parts.tail)
        chain.compare(parts.example, parts.expected)
        return chain

    def compare(self, inputs: Tensor, expected: Mapping[str, Tensor]) -> None:
        """Raises ValueError for the first node layer whose activation is not the expected one, constant left out.

        `expected` may lack node layers; `output` is what the whole chain returns.
        """
        with torch.no_grad():
            activations = list(self.checked(self.activations(inputs)))
            for layer, activation in zip(self.node_layers, activations, strict=True):
                if layer in expected:
                    check_equal(
                        layer, activation[..., :-1] if self.has_constant(layer) else activation, expected[layer]
                    )
            check_equal("output", self.output_from(activations[-1], len(self.sections)), expected["output"])

    def has_constant(self, layer: str) -> bool:
        """Whether the last coordinate of this node layer's activation is the constant one."""
        return layer != self.node_layers[-1] or self.last_has_constant

    def activation(self, inputs: Tensor, index: int) -> Float[Tensor, "batch position d"]:
        """Activation of node layer number `index` on these inputs."""
        return next(islice(self.activations(inputs), index, None))

    def activations(self, inputs: Tensor) -> Iterator[Float[Tensor, "batch position d"]]:
        """Every node layer's activation on these inputs, first to last, from one pass through the model."""
        activation = self.embed(inputs)
        for section in self.before:
            activation = section(activation)
        yield activation
        for section in self.sections:
            activation = section(activation)
            yield activation

    def sections_from(self, index: int) -> tuple[Section, ...]:
        """From node layer number `index` to the model's output."""
        return (*self.sections[index:], *(() if self.tail is None else (self.tail,)))

    def output_from(
        self, activation: Float[Tensor, "batch position d"], index: int
    ) -> Float[Tensor, "batch position_out d_out"]:
        """The model's output when node layer number `index` has this activation."""
        return compose(self.sections_from(index))(activation)

    def stream(
        self, inputs: Tensor, index: int, memory_budget: int, held: Mapping[int, Held] | None = None
    ) -> ActivationStream:
        """Activations of node layer number `index` on `inputs`, recomputed chunk by chunk.

        From the inputs, or from the last node layer before it that is `held`: activations by the layer's number.
        """
        before = max((number for number in held or {} if number < index), default=None)

        def produce(start: int, stop: int) -> Tensor:
            with torch.no_grad():
                if held is None or before is None:
                    return self.activation(inputs[start:stop], index)
                return compose(self.sections[before:index])(held[before][start:stop])

        values, layer = self.values_to_produce(inputs, index), self.node_layers[index]
        return ActivationStream(produce, len(inputs), memory_budget, values, partial(self.on_chunk, layer), layer)

    def streams(self, inputs: Tensor, memory_budget: int) -> list[ActivationStream]:
        """Activations on `inputs` of every node layer that a section starts from: all but the last.

        Held from one pass through the model as far as they fit into half of the budget, which the chunks then do
        without, or on disk where there is `scratch`; those of the others are computed again from the layer held before
        them, or from the inputs. Raises ValueError as `checked` does.
        """
        with torch.no_grad():
            examples = list(self.checked(self.activations(inputs[:1])))
        held, in_memory = room_for(len(inputs), examples[: len(self.sections)], memory_budget // 2, self.scratch)
        left = memory_budget - in_memory
        self._hold(inputs, held, left)
        return [
            stream_of_held(held[index], left, partial(self.on_chunk, layer), layer)
            if index in held
            else self.stream(inputs, index, left, held)
            for index, layer in enumerate(self.node_layers[:-1])
        ]

    def _hold(self, inputs: Tensor, held: Mapping[int, Held], memory_budget: int) -> None:
        """Fill what activations are held in, by the node layer's number, in one pass."""
        if not held:
            return
        n_threads = 1 if inputs.is_cuda else torch.get_num_threads()
        chunk = rows_per_chunk(self.values_to_produce(inputs, max(held)), memory_budget // n_threads)
        chunk = min(chunk, -(-len(inputs) // n_threads))

        def hold(start: int, check: Callable[[], None]) -> None:
            check()
            with torch.no_grad():
                passed = islice(self.activations(inputs[start : start + chunk]), max(held) + 1)
                for index, activation in enumerate(passed):
                    if index in held:
                        held[index][start : start + chunk] = activation

        in_threads(hold, range(0, len(inputs), chunk), inputs.is_cuda)

    def checked(self, activations: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same activations, first node layer to last, each looked at before the next is computed from it.

        Raises ValueError for one without the shape or the constant coordinate that the chain claims, NumericalError for
        one that is not finite.
        """
        for layer, activation in zip(self.node_layers, activations, strict=True):
            has_constant, shape = self.has_constant(layer), tuple(activation.shape)
            expected = f"[batch, position, {'d + 1' if has_constant else 'd'}]"
            if activation.ndim != 3:
                raise ValueError(f"{layer}: an activation of shape {shape}; expected {expected}")
            if not all_finite(activation):
                raise NumericalError(f"{layer}: the activation is not finite on the first example")
            if has_constant and not (activation[..., -1] - 1).abs().max().item() <= CONSTANT_TOLERANCE:
                found = activation[..., -1].flatten()[0].item()
                or_none = ", or last_has_constant=False" if layer == self.node_layers[-1] else ""
                raise ValueError(
                    f"{layer}: the last coordinate is {found:.4g}; expected {expected}, the constant 1 last{or_none}"
                )
            yield activation

    def values_to_produce(self, inputs: Tensor, index: int) -> int:
        """Numbers alive per example on the way from the inputs to node layer number `index`."""
        with torch.no_grad():
            activation = self.embed(inputs[:1])
            values = 2 * activation.numel()
            for section in (*self.before, *self.sections[:index]):
                values = max(values, section.forward_values(activation))
                activation = section(activation)
        return values

    def restricted_to(self, node_layers: Sequence[str]) -> Chain:
        """The same model seen through fewer node layers: the sections between those kept are composed.

        Raises ValueError for a name that is not a node layer, for fewer than two, or for another order.
        """
        unknown = [name for name in node_layers if name not in self.node_layers]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is no node layer of this model; expected some of {list(self.node_layers)}"
            )
        indices = [self.node_layers.index(name) for name in node_layers]
        if len(indices) < 2 or any(a >= b for a, b in pairwise(indices)):
            raise ValueError(f"{list(node_layers)}: expected two or more node layers in the model's order")
        tail = self.sections_from(indices[-1])
        return replace(
            self,
            node_layers=tuple(node_layers),
            sections=tuple(compose(self.sections[a:b]) for a, b in pairwise(indices)),
            before=(*self.before, *self.sections[: indices[0]]),
            tail=compose(tail) if tail else None,
            last_has_constant=self.has_constant(node_layers[-1]),
        )


def check_equal(layer: str, activation: Tensor, expected: Tensor) -> None:
    """Raises ValueError where a chain's activation is off by more than round-off allows in its dtype."""
    if activation.shape != expected.shape:
        raise ValueError(f"{layer}: {list(activation.shape)} in the chain, {list(expected.shape)} in the module")
    scale = expected.abs().max().clamp(min=1.0)
    off = ((activation - expected).abs().max() / scale).item()
    if not off <= torch.finfo(activation.dtype).eps ** 0.625:
        raise ValueError(f"{layer}: the chain is off by {off:.2g} on the example; expected the module's own activation")
