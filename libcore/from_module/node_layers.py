"""Node layers by submodule name: `name` is the activation that submodule `name` reads, `output` the module's output."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise

from torch import fx, nn

from libcore.from_module.layouts import Layout
from libcore.from_module.operations import operation_name
from libcore.from_module.refusal import NotRead
from libcore.from_module.tracing import Traced

INPUT, OUTPUT = "input", "output"
SEQUENCES = (nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d)
NORMALISATIONS = (
    nn.modules.batchnorm._NormBase,  # pyright: ignore[reportPrivateUsage] - torch has no public name
    nn.LayerNorm,
    nn.GroupNorm,
    *((nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ()),
)


class NodeLayers:
    """Which submodules can be node layers of a traced module, and what they read."""

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.order = {node: index for index, node in enumerate(traced.graph.nodes)}
        self.passed = nodes_that_everything_passes(traced)

    @property
    def readers(self) -> dict[str, list[fx.Node]]:
        """Every submodule that is called, with what it reads at each call; and the module's own input."""
        own = {INPUT: [self.traced.input]} if INPUT not in self.traced.read_by else {}
        return own | self.traced.read_by

    def default(self) -> tuple[str, ...]:
        """What the submodules with weights read, wherever everything later passes through it; then the output.

        Linear maps, convolutions, and the blocks of a ModuleList or Sequential; a normalisation where it reads a
        residual sum. The outermost submodule names an activation that several read. The input alone where none is
        there.
        """
        names: dict[fx.Node, str] = {}
        for name in sorted(self.traced.read_by, key=lambda name: name.count(".")):
            nodes = self.traced.read_by[name]
            if len(nodes) == 1 and self.problem(name) is None and self.is_layer(name, nodes[0]):
                names.setdefault(nodes[0], name)
        chosen = sorted(names, key=lambda node: self.order[node])
        if not chosen and INPUT in self.readers and self.problem(INPUT) is None:
            return (INPUT, OUTPUT)
        if not chosen:
            raise NotRead(
                f"{type(self.traced.module).__name__}: no submodule with weights reads what everything later passes "
                f"through; expected node_layers= of {self.valid() or 'a module with such submodules'}"
            )
        return (*(names[node] for node in chosen), OUTPUT)

    def is_layer(self, name: str, read: fx.Node) -> bool:
        """Whether this submodule's input is a node layer by default."""
        module = self.traced.module.get_submodule(name)
        if not any(True for _ in module.parameters()):
            return False
        if isinstance(module, NORMALISATIONS):
            return self.is_residual_sum(read)
        parent = self.traced.module.get_submodule(name.rpartition(".")[0])
        return isinstance(module, (nn.Linear, nn.Conv2d)) or isinstance(parent, (nn.ModuleList, nn.Sequential))

    def is_residual_sum(self, node: fx.Node) -> bool:
        """Whether two values were added."""
        name = node.target if isinstance(node.target, str) else operation_name(node.target)
        return name in {"add", "add_"} and sum(needed in self.traced.data for needed in node.all_input_nodes) == 2

    def valid(self) -> list[str]:
        """Names that can be chosen."""
        return [name for name in self.readers if self.problem(name) is None]

    def chosen(self, names: Sequence[str]) -> tuple[fx.Node, ...]:
        """The nodes of these node layers. Raises NotRead for the first that cannot be one, or for another order."""
        for name in names:
            if not isinstance(name, str):
                raise NotRead(f"node_layers {list(names)}: {name!r} is no string; expected submodules' names")
        if len(names) < 2:
            raise NotRead(f"node_layers {list(names)}; expected two or more, the last one {OUTPUT!r} by default")
        nodes: list[fx.Node] = []
        for index, name in enumerate(names):
            if name == OUTPUT and OUTPUT not in self.traced.read_by:
                if index != len(names) - 1:
                    raise NotRead(f"node_layers {list(names)}: {OUTPUT!r} is the module's output; expected it last")
                nodes.append(self.traced.output)
                continue
            problem = self.problem(name)
            if problem is not None:
                raise NotRead(problem)
            nodes.append(self.readers[name][0])
        for (one, other), (first, second) in zip(pairwise(nodes), pairwise(names), strict=True):
            if one is other and second != OUTPUT:
                raise NotRead(f"node layers {first!r} and {second!r} are the same activation; expected one of them")
            if self.order[one] > self.order[other]:
                raise NotRead(f"node layer {second!r} comes before {first!r}; expected the module's order")
        return tuple(nodes)

    def problem(self, name: str) -> str | None:
        """Why a submodule's input cannot be a node layer, and what to choose instead."""
        if name not in self.readers:
            known = [*self.readers, OUTPUT]
            nearest = get_close_matches(name, known, n=1, cutoff=0.0)
            there = dict(self.traced.module.named_modules())
            reason = "is not called as a submodule" if name in there else "is no submodule"
            return f"node layer {name!r} {reason}; did you mean {nearest[0]!r}?"
        nodes = self.readers[name]
        if len(nodes) > 1:
            return f"node layer {name!r} is called {len(nodes)} times; expected a submodule that is called once"
        reason = self.unfit(nodes[0])
        if reason is not None:
            return f"node layer {name!r} {reason}; {self.instead(nodes[0])}"
        shape = self.traced.shapes[nodes[0]]
        if len(shape) not in {2, 3, 4}:
            return f"node layer {name!r} reads {list(shape)}; expected [batch, d], [batch, position, d] or images"
        if name != INPUT and isinstance(self.traced.module.get_submodule(name), SEQUENCES):
            return f"node layer {name!r} reads [batch, channel, position]; expected [batch, position, d]"
        return None

    def unfit(self, node: fx.Node) -> str | None:
        """Why a node is nothing that a chain could pass through."""
        if node not in self.traced.data or node not in self.traced.shapes:
            return "reads no tensor that depends on the input"
        if node not in self.traced.floating:
            return "reads integers, which have no derivative"
        if node not in self.passed:
            return (
                "does not read all that later computation needs: something passes beside it, as a residual stream does"
            )
        return None

    def instead(self, node: fx.Node) -> str:
        """The last name before this node that can be chosen, or the first after it."""
        usable = {
            name: nodes[0]
            for name, nodes in self.readers.items()
            if len(nodes) == 1 and nodes[0] in self.passed and nodes[0] in self.traced.floating
        }
        before = [name for name, other in usable.items() if self.order[other] < self.order[node]]
        after = [name for name, other in usable.items() if self.order[other] > self.order[node]]
        best = max(before, key=lambda name: self.order[usable[name]], default=None) or min(
            after, key=lambda name: self.order[usable[name]], default=OUTPUT
        )
        return f"expected what everything passes through, such as {best!r}"

    def layout(self, node: fx.Node) -> Layout:
        """Of one node layer's tensor; NotRead for an output of another shape."""
        shape = self.traced.shapes[node]
        if len(shape) not in {1, 2, 3, 4}:
            raise NotRead(f"the module returns {list(shape)}; expected [batch, d], [batch, position, d] or images")
        return Layout(shape[1:])


def nodes_that_everything_passes(traced: Traced) -> frozenset[fx.Node]:
    """Nodes on every path of tensors from the input to the output."""
    order = list(traced.graph.nodes)
    index = {node: number for number, node in enumerate(order)}
    needed, waiting = {traced.output}, [traced.output]
    while waiting:
        for node in waiting.pop().all_input_nodes:
            if node in traced.data and node not in needed:
                needed.add(node)
                waiting.append(node)
    # A node is passed by everything where no edge leads over it from an earlier node to a later one.
    last_reader = {
        node: max((index[user] for user in node.users if user in needed), default=index[node]) for node in needed
    }
    passed: set[fx.Node] = set()
    furthest = -1
    for node in sorted(needed, key=index.__getitem__):
        if furthest <= index[node]:
            passed.add(node)
        furthest = max(furthest, last_reader[node])
    return frozenset(passed)
