"""The closed form of what a module computes between two nodes of its graph, where there is one."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, fx

from libcore.from_module.affine_maps import NoClosedForm
from libcore.from_module.form_rules import FORMS, OF_TWO, batch_norm, elementwise, reshaped
from libcore.from_module.forms import Form, activation_form
from libcore.from_module.layouts import Layout
from libcore.from_module.operations import ELEMENTWISE, is_elementwise, operation_name
from libcore.from_module.tracing import BatchNorm, Traced, descendants

RESHAPING = frozenset({"flatten", "view", "reshape", "squeeze"})


def form_between(traced: Traced, start: fx.Node, end: fx.Node, layout: Layout, like: Tensor) -> Form:
    """The value of `end` as a form of the activation that is the value of `start`. Raises NoClosedForm."""
    after = descendants(start)
    forms: dict[fx.Node, Form] = {start: activation_form(layout, like)}
    needed = ancestors(end, start)
    for node in traced.graph.nodes:
        if node in after and node in needed and node in traced.data and node is not start:
            forms[node] = form_of(traced, node, forms)
    return forms[end]


def ancestors(end: fx.Node, start: fx.Node) -> set[fx.Node]:
    """What `end` is computed from, back to `start`."""
    found, waiting = {end}, [end]
    while waiting:
        node = waiting.pop()
        for needed in node.all_input_nodes if node is not start else ():
            if needed not in found:
                found.add(needed)
                waiting.append(needed)
    return found


def form_of(traced: Traced, node: fx.Node, forms: dict[fx.Node, Form]) -> Form:
    """One node's, from those of the nodes that it reads."""

    def known(argument: fx.Node) -> Any:
        if argument in forms:
            return forms[argument]
        if argument in traced.data:
            raise NoClosedForm(f"{argument}")
        size, other = traced.sizes.get(argument, (None, None))
        return traced.constants.get(argument, size if size == other else None)

    args: Any = fx.map_arg(node.args, known)
    kwargs: Any = fx.map_arg(node.kwargs, known)
    target: Any = node.target
    if node.op == "call_module":
        module = traced.module.get_submodule(str(target))
        if isinstance(module, BatchNorm):
            if len(traced.shapes[node]) == 3:
                raise NoClosedForm("a normalisation by position")
            moments = (module.running_mean, module.running_var, module.weight, module.bias)
            return batch_norm(args[0], *moments, module.running_mean is None, 0.0, module.eps)
        if not is_elementwise(module):
            raise NoClosedForm(str(target))
        return args[0].elementwise(module)
    name = target if isinstance(target, str) else operation_name(target)
    name = name.strip("_")
    if name in RESHAPING:
        (read,) = (argument for argument in node.all_input_nodes if argument in forms)
        return reshaped(args[0], traced.shapes[read], traced.shapes[node])
    if name in ELEMENTWISE:
        return elementwise(args, kwargs, target)
    rule = FORMS.get(name)
    if rule is None:
        raise NoClosedForm(name)
    if name == "batch_norm" and len(traced.shapes[node]) == 3:
        raise NoClosedForm("a normalisation by position")
    if name not in OF_TWO and (not isinstance(args[0], Form) or any(isinstance(value, Form) for value in args[1:])):
        raise NoClosedForm(f"{name} of two values")
    try:
        inspect.signature(rule).bind(*args, **kwargs)
    except TypeError as error:
        raise NoClosedForm(str(error)) from None
    return rule(*args, **kwargs)
