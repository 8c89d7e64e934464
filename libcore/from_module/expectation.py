"""What a module computes on an example, caught while it runs as it was written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from libcore.from_module.layouts import Layout
from libcore.from_module.refusal import NotRead


def expected_activations(module: nn.Module, example: Tensor, layouts: Mapping[str, Layout]) -> dict[str, Tensor]:
    """What the submodules of these names read, as activations without constant, and the module's output.

    Names that are no submodules are left out. Raises NotRead for an output that is not finite, and where
    an example's depends on the others.
    """
    caught: dict[str, Tensor] = {}
    handles = []
    submodules = dict(module.named_modules())
    for name, layout in layouts.items():
        if name in submodules:

            def catch(entered: nn.Module, args: Any, kwargs: Any, name: str = name, layout: Layout = layout) -> None:
                caught[name] = layout.activation(next(iter((*args, *kwargs.values())))).clone()

            handles.append(submodules[name].register_forward_pre_hook(catch, with_kwargs=True))
    try:
        with torch.no_grad():
            output = module(example.clone())
    finally:
        for handle in handles:
            handle.remove()
    if not output.isfinite().all():
        raise NotRead(f"{type(module).__name__}: NaN or infinity in the output on the example; expected finite numbers")
    with torch.no_grad():
        alone = module(example[:1].clone())
    scale = output.abs().max().clamp(min=1.0)
    if not ((alone - output[:1]).abs().max() / scale).item() <= torch.finfo(output.dtype).eps ** 0.625:
        raise NotRead(f"{type(module).__name__}: an example's output depends on the others in the batch")
    return caught | {"output": Layout(tuple(output.shape[1:])).activation(output)}
