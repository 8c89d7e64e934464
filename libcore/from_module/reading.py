"""A module as the parts of a chain: traced, cut at its node layers, and every part as a section."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from libcore.constant import with_constant
from libcore.from_module.affine_maps import NoClosedForm
from libcore.from_module.closed_forms import section_of_form
from libcore.from_module.expectation import expected_activations
from libcore.from_module.layouts import Layout
from libcore.from_module.node_layers import INPUT, OUTPUT, NodeLayers
from libcore.from_module.patterns import form_between
from libcore.from_module.programs import FoldedSection, Program, check_folding, part_of
from libcore.from_module.refusal import NotRead
from libcore.from_module.tracing import Traced, trace, values_of
from libcore.messages import first_line
from libcore.sections import Section


@dataclass(frozen=True)
class Parts:
    """What a chain is made of, and what it is compared with.

    Attributes:
        node_layers: names, first to last.
        sections: between them.
        embed: from inputs to the first activation.
        last_has_constant: whether the last node layer carries the constant coordinate.
        tail: from the last node layer to the output, None where it is the output.
        example: inputs of the module.
        expected: every node layer's activation on the example, without constant, and the output, by the module itself.
    """

    node_layers: tuple[str, ...]
    sections: tuple[Section, ...]
    embed: Callable[[Tensor], Tensor]
    last_has_constant: bool
    tail: Section | None
    example: Tensor
    expected: dict[str, Tensor]


def read_module(
    module: nn.Module, example_inputs: Tensor, node_layers: Sequence[str] | None, dtype: torch.dtype | None
) -> Parts:
    """The parts of `Chain.from_module`, which says what they are and what is refused."""
    if not isinstance(module, nn.Module):
        raise NotRead(f"module is a {type(module).__name__}; expected a torch.nn.Module")
    check_example(example_inputs)
    if isinstance(node_layers, str):
        raise NotRead(f"node_layers={node_layers!r}: expected a list of submodules' names")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise NotRead(f"dtype={dtype}: expected a floating-point dtype, such as torch.float64")
    own = next((t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), None)
    if dtype is None:
        dtype = own.dtype if own is not None else float_dtype(example_inputs)
    device = example_inputs.device if own is None else own.device
    evaluated = in_evaluation_mode(module).to(device=device, dtype=dtype)
    example = moved(example_inputs, device, dtype)
    traced = trace(out_of_place(evaluated), example)
    layers = NodeLayers(traced)
    names = layers.default() if node_layers is None else tuple(node_layers)
    nodes = layers.chosen(names)
    values = values_between(traced, example)
    of_last = names[-1] != OUTPUT or OUTPUT in traced.read_by
    sections = tuple(
        section_between(traced, layers, nodes[index : index + 2], values, index < len(nodes) - 2 or of_last)
        for index in range(len(nodes) - 1)
    )
    tail = section_between(traced, layers, (nodes[-1], traced.output), values, False) if of_last else None
    return Parts(
        names,
        tuple(section.to(device=device, dtype=dtype) for section in sections),
        Embedding(traced, nodes[0], layers.layout(nodes[0]), device, dtype),
        of_last,
        None if tail is None else tail.to(device=device, dtype=dtype),
        example,
        expected_activations(evaluated, example, dict(zip(names, map(layers.layout, nodes), strict=True))),
    )


def section_of(module: nn.Module, example: Tensor, *, constant_out: bool = True) -> Section:
    """One module as a section: in closed form where there is one, else differentiated, its biases folded either way.

    Args:
        module: reads and returns `[batch, d]`, `[batch, position, d]` or images.
        example: what it reads, without the constant coordinate.
        constant_out: whether the section's output carries the constant coordinate.

    Raises NotRead as `Chain.from_module` does.
    """
    check_example(example)
    # Inside a Sequential, so that a module that cannot be traced is taken whole.
    traced = trace(nn.Sequential(out_of_place(in_evaluation_mode(module))), example)
    layers = NodeLayers(traced)
    nodes = layers.chosen((INPUT, OUTPUT))
    section = section_between(traced, layers, nodes, values_between(traced, example), constant_out)
    return section.to(device=example.device, dtype=example.dtype)


def check_example(example: Tensor) -> None:
    """One tensor with at least one example in it, all of it finite."""
    if not isinstance(example, Tensor):
        raise NotRead(f"example_inputs is a {type(example).__name__}; expected a tensor [batch, ...]")
    if example.ndim < 2 or len(example) < 1:
        raise NotRead(f"example_inputs {list(example.shape)}; expected [batch, ...] with one example or more")
    if not example.isfinite().all():
        raise NotRead(f"example_inputs {list(example.shape)} hold NaN or infinity; expected finite numbers")


def float_dtype(example: Tensor) -> torch.dtype:
    """Of a module without weights."""
    return example.dtype if example.is_floating_point() else torch.get_default_dtype()


def moved(inputs: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Integers stay integers."""
    return inputs.to(device=device, dtype=dtype if inputs.is_floating_point() else None)


def in_evaluation_mode(module: nn.Module) -> nn.Module:
    """A copy; the module itself stays as it is. Raises NotRead for one that Python cannot copy."""
    for name, submodule in module.named_modules():
        if isinstance(submodule, torch.jit.ScriptModule):
            raise NotRead(f"{name or 'the module'}: compiled by torch.jit, whose biases cannot be folded")
    try:
        copied = copy.deepcopy(module)
    except Exception as error:  # whatever its attributes raise
        raise NotRead(
            f"{type(module).__name__} cannot be copied ({first_line(error)}); expected one that can"
        ) from None
    return copied.eval().requires_grad_(False)


def out_of_place(module: nn.Module) -> nn.Module:
    """A copy whose submodules such as `ReLU(inplace=True)` return something new."""
    copied = copy.deepcopy(module)
    for submodule in copied.modules():
        if getattr(submodule, "inplace", False) is True:
            submodule.inplace = False  # pyright: ignore[reportArgumentType]
    return copied


def values_between(traced: Traced, example: Tensor) -> dict[fx.Node, Tensor]:
    """Every tensor on the way, on the example."""
    with torch.no_grad():
        values = values_of(traced.module, traced.graph, example)
    return {node: value for node, value in values.items() if isinstance(value, Tensor)}


def section_between(
    traced: Traced,
    layers: NodeLayers,
    nodes: tuple[fx.Node, ...],
    values: dict[fx.Node, Tensor],
    constant_out: bool,
) -> Section:
    """In closed form, or else differentiated."""
    start, end = nodes
    layout_in, layout_out = layers.layout(start), layers.layout(end)
    try:
        form = form_between(traced, start, end, layout_in, values[start])
        return section_of_form(form, constant_out)
    except NoClosedForm:
        part = part_of(traced, start, end)
        check_folding(part, values[start], layout_in, constant_out)
        return FoldedSection(Program(part), layout_in, layout_out, constant_out)


class Embedding:
    """From inputs to the first node layer's activation `[batch, position, d + 1]`.

    Attributes:
        example_shape: of one input of the example that the module was read on.
    """

    def __init__(self, traced: Traced, node: fx.Node, layout: Layout, device: torch.device, dtype: torch.dtype) -> None:
        self.program = None if node is traced.input else Program(part_of(traced, traced.input, node))
        self.layout = layout
        self.example_shape = traced.shapes[traced.input][1:]
        self.device = device
        self.dtype = dtype

    def __call__(self, inputs: Tensor) -> Tensor:
        value = moved(inputs, self.device, self.dtype)
        read = value if self.program is None else self.program(value.clone())
        return with_constant(self.layout.activation(read))
