"""Biases that scale with the constant coordinate, whatever code adds them (METHOD.md 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

from libcore.from_module.calls import Call, Tracking
from libcore.from_module.multihead import multi_head_attention_forward
from libcore.from_module.operations import operation_name, out_of_place
from libcore.from_module.rules import RULES

METADATA = (
    "shape size dim ndim ndimension dtype device numel nelement is_floating_point is_complex stride layout len "
    "requires_grad is_cuda is_contiguous is_leaf grad_fn is_nested is_sparse is_quantized is_meta itemsize "
    "element_size get_device is_cpu is_mps storage_offset bool"
)
"""Results that depend on shapes, or that control flow depends on."""
LIKE = "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty new_tensor"
"""Tensors that depend on the input's shape alone."""
WITHOUT_NUMBERS = frozenset([*METADATA.split(), *LIKE.split()])


class FoldedBiases(TorchFunctionMode):
    """While a module runs under it, what adds a parameter or buffer `b` adds `b * c` instead.

    `c` is the constant coordinate of the position where it is added. Every torch operation on a tensor that depends on
    the activation is looked up in `rules`; one that is not there is refused by name. Control flow, batched derivatives
    and any batch size are as without it.
    """

    def __init__(self, tracking: Tracking) -> None:
        super().__init__()
        self.tracking = tracking

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = operation_name(func)
        call = Call(self.tracking, func, name, tuple(args), kwargs)
        if self.tracking.checking:
            call.refuse_untracked()
        if name in WITHOUT_NUMBERS or not any(True for _ in call.data()):
            return func(*args, **kwargs)
        if name == "multi_head_attention_forward":
            with self:
                return multi_head_attention_forward(*args, **kwargs)
        rule = RULES.get(name)
        if rule is None:
            call.refuse("is an operation of which it is not known how its biases scale")
        if kwargs.get("out") is not None:
            call.refuse("writes into a given tensor; expected a new one")
        settings = {key: value for key, value in kwargs.items() if key != "inplace"}
        return rule(Call(self.tracking, out_of_place(func), name, tuple(args), settings))
