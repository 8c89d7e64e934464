"""What a traced module computes between two of its nodes, as a function of its own."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from libcore.from_module.calls import Tracking
from libcore.from_module.folding import FoldedBiases
from libcore.from_module.layouts import Layout
from libcore.from_module.refusal import NotRead
from libcore.from_module.tracing import Traced, descendants
from libcore.messages import first_line
from libcore.sections.base import Movable, Section


class Program(Movable):
    """A graph with the weights that it reads."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        tensors = {
            name: tensor.detach()
            for kind in (graph_module.named_parameters, graph_module.named_buffers)
            for name, tensor in kind(remove_duplicate=False)
        }
        self.graph_module = graph_module
        self.names = tuple(tensors)
        self.weights = tuple(tensors.values())

    def __call__(self, value: Tensor) -> Tensor:
        return functional_call(self.graph_module, dict(zip(self.names, self.weights, strict=True)), (value,))


class FoldedSection(Section):
    """Part of a module between two node layers, differentiated, with every bias scaled by its position's constant.

    Args:
        program: reads and returns tensors as the module has them.
        layout_in: of what it reads.
        layout_out: of what it returns.
        constant_out: whether the next node layer carries the constant coordinate.
    """

    def __init__(self, program: Program, layout_in: Layout, layout_out: Layout, constant_out: bool) -> None:
        self.program = program
        self.layout_in = layout_in
        self.layout_out = layout_out
        self.constant_out = constant_out

    def __call__(self, activation: Tensor) -> Tensor:
        return self.tracked(activation, Tracking(checking=False))

    def forward_values(self, example: Tensor) -> int:
        tracking = Tracking(checking=False)
        self.tracked(example, tracking)
        return 2 * tracking.values

    def tracked(self, activation: Tensor, tracking: Tracking) -> Tensor:
        """The next activation, and what it took."""
        value = tracked_input(tracking, activation, activation[..., -1:], self.layout_in)
        with FoldedBiases(tracking):
            result = self.program(value)
        if not self.constant_out:
            return self.layout_out.activation(result)
        return self.layout_out.with_constant(result, tracking.constant(result))


def tracked_input(tracking: Tracking, activation: Tensor, constant: Tensor, layout: Layout) -> Tensor:
    """The module's tensor of an activation with constant coordinate, a copy, tracked with `[batch, position, 1]`."""
    read = activation[..., :-1]
    value = layout.value(read).clone()
    return tracking.track(value, (layout.value(constant.expand_as(read)),))


class Check(fx.Interpreter):
    """Runs a part of a module once, with another constant at every position, and says where it can't be folded."""

    def __init__(self, graph_module: fx.GraphModule, tracking: Tracking) -> None:
        super().__init__(graph_module)
        self.tracking = tracking

    def run_node(self, n: fx.Node) -> object:
        stack = n.meta.get("nn_module_stack") or {}
        path = next((str(entry[0]) for entry in reversed(stack.values()) if entry[0]), "")
        self.tracking.where = path or (str(n.target) if n.op == "call_module" else "")
        with FoldedBiases(self.tracking):
            return super().run_node(n)


def check_folding(part: fx.GraphModule, value: Tensor, layout: Layout, constant_out: bool) -> None:
    """Raises NotRead, by submodule and operation, for what cannot be folded; `value` is the example's."""
    tracking = Tracking(checking=True)
    activation = layout.activation(value)
    marker = 1 + torch.arange(activation.shape[1], device=value.device, dtype=torch.float64)[None, :, None].sqrt()
    marker = marker.to(value.dtype).expand(len(value), -1, -1).contiguous()
    padded = torch.cat([activation, marker], dim=-1)
    named = [(name, module) for name, module in part.named_modules() if name and not isinstance(module, fx.GraphModule)]
    handles = []
    for name, module in named:
        check_tensors(name, module)

        def enter(entered: nn.Module, args: object, name: str = name) -> None:
            tracking.where = name

        handles.append(module.register_forward_pre_hook(enter))
    try:
        # What depends on the activation is known by its gradient, should an operation hide it.
        with torch.enable_grad():
            result = Check(part, tracking).run(tracked_input(tracking, padded.requires_grad_(), marker, layout))
        if constant_out:
            tracking.constant(result)
        elif not tracking.tracks(result):
            raise NotRead("the output does not depend on the activation that leads to it")
    except NotRead as error:  # the interpreter has added to its message
        raise NotRead(first_line(error)) from None
    except Exception as error:  # the module's own code, on values that it was not written for
        where = f"{tracking.where}: " if tracking.where else ""
        raise NotRead(f"{where}does not run with its biases folded ({first_line(error)})") from None
    finally:
        for handle in handles:
            handle.remove()


def check_tensors(name: str, module: nn.Module) -> None:
    """A tensor that is neither parameter nor buffer would stay behind when sections change device or dtype."""
    for attribute, value in vars(module).items():
        if isinstance(value, Tensor):
            raise NotRead(f"{name}.{attribute} is a tensor, but no parameter or buffer; expected register_buffer")


def part_of(traced: Traced, start: fx.Node, end: fx.Node) -> fx.GraphModule:
    """The graph from the node `start` to the node `end`, all of whose data comes through `start`.

    Sizes that were read from tensors before `start` are constants, or multiples of the batch size.
    """
    graph, copies = fx.Graph(), dict[fx.Node, Any]()
    after = descendants(start)
    copies[start] = graph.placeholder("value")
    batch = traced.shapes[start][0]

    def copied(node: fx.Node) -> Any:
        if node not in copies:
            if node in traced.sizes and node not in after:
                copies[node] = size_of(node)
            else:
                for needed in node.all_input_nodes:
                    copied(needed)
                copies[node] = graph.node_copy(node, lambda needed: copies[needed])
        return copies[node]

    def size_of(node: fx.Node) -> Any:
        first, second = traced.sizes[node]
        if first == second:
            return first
        if first * (batch + 1) != second * batch:
            raise NotRead(f"a size of {first} on {batch} examples and {second} on {batch + 1}; expected a multiple")
        rows = graph.call_method("size", (copies[start], 0))
        return graph.call_function(operator.floordiv, (graph.call_function(operator.mul, (rows, first)), batch))

    result = copied(end)
    graph.output(result)
    graph.lint()
    return fx.GraphModule(traced.module, graph)
