"""One torch operation on tensors that depend on the activation, and what is known of those tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from libcore.from_module.constants import Constants, merged
from libcore.from_module.refusal import NotRead


class Tracking:
    """Which tensors depend on the activation, and their constants.

    `values` counts the numbers in them, `where` names the submodule that runs.

    Args:
        checking: biases are added as they are, and only whether each one's position can be told is looked at. The
            constants are then to differ from position to position.
    """

    def __init__(self, checking: bool) -> None:
        self.checking = checking
        self.where = ""
        self.values = 0
        self._constants = WeakIdKeyDictionary()

    def track(self, value: Tensor, constants: Constants) -> Tensor:
        """From now on, this tensor depends on the activation and has these constants."""
        self._constants[value] = constants
        self.values += value.numel()
        return value

    def tracks(self, value: Any) -> bool:
        """Whether this is a tensor that depends on the activation."""
        return isinstance(value, Tensor) and value in self._constants

    def constants(self, value: Tensor) -> Constants:
        """Of a tensor that depends on the activation; NotRead for another in such a tensor's place."""
        if not self.tracks(value):
            raise NotRead(f"{self.where or 'the module'}: a parameter or buffer where the activation is expected")
        return self._constants[value]

    def constant(self, value: Tensor) -> Tensor:
        """The one constant of the tensor that becomes a node layer's activation.

        Raises NotRead where there are several: what comes after could not be told either.
        """
        if not self.tracks(value):
            raise NotRead(f"{self.where or 'the module'}: returns what does not depend on its input")
        constants = self.constants(value)
        if len(constants) != 1:
            raise NotRead(f"{self.where or 'the module'}: returns numbers about pairs of positions; expected one each")
        return constants[0]


@dataclass(frozen=True)
class Call:
    """An operation and its arguments."""

    tracking: Tracking
    function: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def argument(self, index: int, name: str, default: Any = None) -> Any:
        """By position or by name."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    def is_data(self, value: Any) -> bool:
        """Whether this is a tensor that depends on the activation."""
        return self.tracking.tracks(value)

    def data(self) -> Iterator[Tensor]:
        """Arguments that depend on the activation, lists looked into."""
        yield from (value for value in flat((*self.args, *self.kwargs.values())) if self.is_data(value))

    def others(self) -> Iterator[Tensor]:
        """Floating-point tensors that do not depend on the activation: parameters, buffers and what is made of them."""
        for value in flat((*self.args, *self.kwargs.values())):
            if isinstance(value, Tensor) and value.is_floating_point() and not self.is_data(value):
                yield value

    def refuse_untracked(self) -> None:
        """For a tensor that depends on the activation though no operation told: from a custom autograd function."""
        if any(value.requires_grad for value in self.others()):
            self.refuse("of what depends on the activation through a function whose biases cannot be folded")

    def run(self) -> Any:
        """As it is."""
        return self.function(*self.args, **self.kwargs)

    def tracked(self, result: Tensor, candidates: Sequence[Tensor]) -> Tensor:
        """The result with its constants."""
        return self.tracking.track(result, merged(candidates, result.shape, self.tracking.checking))

    def like_inputs(self, result: Any) -> Tensor:
        """The result, whose entries have their inputs' constants."""
        if not isinstance(result, Tensor):
            self.refuse("does not return a tensor")
        return self.tracked(result, [c for value in self.data() for c in self.tracking.constants(value)])

    def scaled(self, bias: Tensor, constants: Constants) -> Tensor:
        """`bias * c`; refused where it cannot be told which constant that is."""
        if len(constants) != 1:
            self.refuse("adds a constant where several positions meet, so it cannot be told whose constant it is")
        (constant,) = constants
        if not self.tracking.checking:
            return bias * constant.to(bias.dtype)
        if not bool((constant > 0).all()):
            self.refuse("adds a constant in the padding, where no position's constant coordinate is")
        return bias

    def refuse(self, reason: str) -> NoReturn:
        """By name."""
        where = f"{self.tracking.where}: " if self.tracking.where else ""
        raise NotRead(f"{where}{self.name} {reason}")


def flat(values: Sequence[Any]) -> Iterator[Any]:
    """Of lists and tuples, their entries."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from flat(value)
        else:
            yield value
