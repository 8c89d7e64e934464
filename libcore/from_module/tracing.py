"""A module as a graph of torch's operations, run once on the example for the shapes.

Submodules are traced through, down to torch's functions, except for batch normalisation, elementwise modules, and what
`torch.fx` cannot trace (control flow on numbers): those stay calls of the submodule.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jaxtyping
import torch
from torch import Tensor, fx, nn

from libcore.from_module.operations import is_elementwise
from libcore.from_module.refusal import NotRead
from libcore.messages import first_line

BatchNorm = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage] - torch has no public name
LEAVES = (BatchNorm, nn.MultiheadAttention)


@dataclass(frozen=True)
class Traced:
    """The graph, and what its nodes are on the example.

    Attributes:
        module: what was traced, in evaluation mode.
        graph: with one placeholder, the module's input.
        read_by: the nodes that each submodule reads, one a call, in order.
        shapes: of every node that is a tensor, on the example.
        constants: values of nodes that do not depend on the input.
        data: nodes that are tensors and depend on the input.
        sizes: numbers computed from shapes, on the example and on one row more.
    """

    module: nn.Module
    graph: fx.Graph
    read_by: dict[str, list[fx.Node]]
    shapes: dict[fx.Node, tuple[int, ...]]
    floating: frozenset[fx.Node]
    constants: dict[fx.Node, Any]
    data: frozenset[fx.Node]
    sizes: dict[fx.Node, tuple[Any, Any]]

    @property
    def input(self) -> fx.Node:
        """The placeholder."""
        return next(iter(self.graph.nodes))

    @property
    def output(self) -> fx.Node:
        """What the module returns."""
        (returned,) = next(iter(reversed(self.graph.nodes))).args
        assert isinstance(returned, fx.Node)
        return returned


class Tracer(fx.Tracer):
    """Notes what every submodule reads, and in which one tracing fails."""

    def __init__(self, whole: set[str]) -> None:
        super().__init__()
        self.whole = whole
        self.read_by: dict[str, list[fx.Node]] = {}
        self.failed: str | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.whole or isinstance(m, LEAVES)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = self.path_of_module(m)
        first = next(iter((*args, *kwargs.values())), None)
        if isinstance(first, fx.Proxy):
            self.read_by.setdefault(name, []).append(first.node)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # of any kind: noted, and raised again
            self.failed = self.failed or name
            raise


class Evaluation(fx.Interpreter):
    """Every node's value."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(fx.GraphModule(module, graph), garbage_collect_values=False, graph=graph)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]


def trace(module: nn.Module, example: Tensor) -> Traced:
    """Trace a module in evaluation mode. Raises NotRead where `torch.fx` cannot, or where it returns no tensor."""
    # While tracing, a call of any module is traced: what is elementwise is found out before.
    whole = {name for name, submodule in module.named_modules() if name and is_elementwise(submodule)}
    while True:
        tracer = Tracer(whole)
        try:
            with unchecked_shapes():
                graph = tracer.trace(module)
            break
        except Exception as error:  # the module's own code, on values that hold no numbers
            if tracer.failed is None or tracer.failed in whole:
                raise NotRead(
                    f"{type(module).__name__}.forward cannot be traced by torch.fx ({first_line(error)}); "
                    "expected that what branches on numbers is in a submodule of its own"
                ) from None
            whole.add(tracer.failed)
    n_inputs = sum(node.op == "placeholder" for node in graph.nodes)
    if n_inputs != 1:
        raise NotRead(f"{type(module).__name__}.forward takes {n_inputs} arguments; expected one tensor")
    with torch.no_grad():
        values, larger = (values_of(module, graph, rows) for rows in (example, torch.cat([example, example[:1]])))
    returned = next(iter(reversed(graph.nodes))).args[0]
    if not isinstance(returned, fx.Node) or not isinstance(values[returned], Tensor):
        raise NotRead(f"{type(module).__name__} does not return a tensor; expected one tensor")
    depending = descendants(next(iter(graph.nodes)))
    tensors = {node: value for node, value in values.items() if isinstance(value, Tensor)}
    return Traced(
        module,
        graph,
        tracer.read_by,
        {node: tuple(value.shape) for node, value in tensors.items()},
        frozenset(node for node, value in tensors.items() if value.is_floating_point()),
        {node: value for node, value in values.items() if node not in depending},
        frozenset(node for node in depending if node in tensors or holds_tensors(values.get(node))),
        {node: (values[node], larger[node]) for node in depending if isinstance(values.get(node), int)},
    )


@contextmanager
def unchecked_shapes() -> Generator[None, None, None]:
    """Annotated shapes are not checked meanwhile: a traced value has none."""
    disabled = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", disabled)


def values_of(module: nn.Module, graph: fx.Graph, inputs: Tensor) -> dict[fx.Node, Any]:
    """Of all nodes, on these inputs; NotRead with PyTorch's reason where the module does not take them."""
    evaluation = Evaluation(module, graph)
    try:
        evaluation.run(inputs.clone())
    except Exception as error:  # whatever the module's own code raises
        raise NotRead(
            f"{type(module).__name__} on an example {tuple(inputs.shape)} of {inputs.dtype}: {first_line(error)}"
        ) from None
    return evaluation.values


def holds_tensors(value: Any) -> bool:
    """A tuple or list with tensors in it."""
    return isinstance(value, (tuple, list)) and any(
        isinstance(entry, Tensor) or holds_tensors(entry) for entry in value
    )


def descendants(node: fx.Node) -> set[fx.Node]:
    """The node and all that are computed from it."""
    found, waiting = {node}, [node]
    while waiting:
        for user in waiting.pop().users:
            if user not in found:
                found.add(user)
                waiting.append(user)
    return found
