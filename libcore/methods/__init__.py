"""Methods by name: each turns a chain and its statistics into one basis per node layer.

A method is one module of this folder, called like the method, with one decorated function:

    @method("pca", label="PCA", sorts_by="variance")
    def fit_pca(chain, inputs, statistics, settings, *, option=default) -> dict[str, Basis]: ...

Methods from elsewhere join by an entry point of the group `local_interaction_basis.methods`, or by their function's
address, `package.module:function`. Modules are imported when their method is asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Any, cast

from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.fit_settings import FitSettings
from libcore.messages import one_line
from libcore.method_options import options_of, refuse_options, with_paths
from libcore.names import nearest
from libcore.statistics import LayerStatistics

__all__ = ["METHODS", "FitSettings", "Method", "UnknownMethod", "method", "method_at", "never"]

ENTRY_POINTS = "local_interaction_basis.methods"
Fit = Callable[..., dict[str, Basis]]
"""`(chain, inputs, statistics, settings, *, options) -> basis by node layer`."""
Check = Callable[..., None]
"""`(settings, *, options)`: raises ValueError, in one line that begins with an option, for what makes no sense."""


class UnknownMethod(ValueError):
    """There is no method of that name, or nothing at that address is one."""


def always(**options: Any) -> bool:
    """Whatever the options."""
    return True


def never(**options: Any) -> bool:
    """Whatever the options."""
    return False


def no_check(settings: FitSettings, **options: Any) -> None:
    """Every combination makes sense."""


@dataclass(frozen=True)
class Method:
    """A way to choose a basis.

    Attributes:
        name: what it is chosen by.
        fit: its function.
        label: what tables and figures call it.
        sorts_by: what `Basis.importance` holds.
        seeded: whether it draws random numbers, by `settings.seed`.
        place: among the methods of a table or figure; those without one come last, by name.
        check: told settings and all options, chosen or not, before anything is computed.
        searches: whether a fit takes a search of minutes, which nobody wants to wait for again unasked. How far it is
            comes as one pass to the chain's `on_chunk`.
        integrates: by its options, whether its bases depend on `settings.quadrature`.
        takes_jacobians: whether a fit takes Jacobians to a later node layer, the most of its work; else the moments, or
            activations, do.
    """

    name: str
    fit: Fit
    label: str
    sorts_by: str
    seeded: bool = False
    place: int | None = None
    check: Check = no_check
    integrates: Callable[..., bool] = always
    searches: bool = False
    takes_jacobians: bool = True

    def __call__(
        self,
        chain: Chain,
        inputs: Tensor,
        statistics: dict[str, LayerStatistics],
        settings: FitSettings,
        **options: Any,
    ) -> dict[str, Basis]:
        """One basis per node layer of `chain`, fitted on `inputs`, whose moments are `statistics`."""
        self.refuse(settings, options)
        bases = self.fit(chain, inputs, statistics, settings, **with_paths(self.fit, options))
        self.refuse_bases(bases, {layer: statistics[layer] for layer in chain.node_layers})
        return bases

    def refuse(self, settings: FitSettings, options: Mapping[str, Any]) -> None:
        """Raises ValueError for options that the method has not, lacks, or cannot be carried out with."""
        refuse_options(self.name, self.fit, options)
        self.check(settings, **with_paths(self.fit, self.defaults | dict(options)))

    def refuse_bases(self, bases: Any, statistics: Mapping[str, LayerStatistics]) -> None:
        """Raises ValueError for what is not a basis of every node layer's activation."""
        for layer, of_layer in statistics.items():
            basis = bases.get(layer) if isinstance(bases, Mapping) else None
            if not isinstance(basis, Basis):
                found = type(bases if basis is None and not isinstance(bases, Mapping) else basis).__name__
                raise ValueError(f"method {self.name}: {found} for {layer}; expected a Basis of every node layer")
            d, k = len(of_layer.mean), basis.n_features
            if tuple(basis.to_basis.shape) != (d, k) or tuple(basis.from_basis.shape) != (k, d):
                shapes = f"to_basis {list(basis.to_basis.shape)}, from_basis {list(basis.from_basis.shape)}"
                raise ValueError(f"method {self.name}: {layer}: {shapes}; expected [{d}, k] and [k, {d}]")

    @property
    def defaults(self) -> dict[str, Any]:
        """What options are where nobody chooses."""
        return {name: option.default for name, option in self.options.items() if option.default is not option.empty}

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The function's keyword arguments: what may be chosen beside `settings`."""
        return options_of(self.fit)


def method(
    name: str,
    *,
    label: str,
    sorts_by: str,
    seeded: bool = False,
    place: int | None = None,
    check: Check = no_check,
    integrates: Callable[..., bool] = always,
    searches: bool = False,
    takes_jacobians: bool = True,
) -> Callable[[Fit], Method]:
    """Makes a method of a function (`Fit`); see `Method` for the arguments."""
    return lambda fit: Method(name, fit, label, sorts_by, seeded, place, check, integrates, searches, takes_jacobians)


class Methods(Mapping[str, Method]):
    """All methods that are known by name."""

    def __getitem__(self, name: str) -> Method:
        """Raises UnknownMethod, with the nearest name."""
        if name in built_in():
            return only_method(import_module(f"{__name__}.{name}"), name)
        if (found := installed().get(name)) is not None:
            return as_method(loaded(found), name)
        raise UnknownMethod(f"{name}: no such method{nearest(name, self)}; expected one of {', '.join(self)}")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*built_in(), *installed()}))

    def __len__(self) -> int:
        return len({*built_in(), *installed()})

    def __contains__(self, name: object) -> bool:
        return name in built_in() or name in installed()


METHODS = Methods()


@cache
def built_in() -> tuple[str, ...]:
    """The modules of this folder."""
    return tuple(module.name for module in iter_modules(__path__))


def installed() -> dict[str, EntryPoint]:
    """Entry points of installed packages."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def loaded(entry: EntryPoint) -> Any:
    """What an entry point names; raises UnknownMethod."""
    try:
        return entry.load()
    # Somebody else's module may raise anything.
    except Exception as error:
        raise UnknownMethod(f"{entry.name}: {entry.value} cannot be imported ({reason_of(error)})") from error


def reason_of(error: Exception) -> str:
    """An error in one line."""
    return one_line(f"{type(error).__name__}: {error}")


def only_method(module: Any, name: str) -> Method:
    """The method that a module of this folder holds under its own name."""
    found = [value for value in vars(module).values() if isinstance(value, Method) and value.name == name]
    if len(found) != 1:
        raise UnknownMethod(f"{module.__name__}: {len(found)} methods called {name!r}; expected one decorated function")
    return found[0]


def chosen_method(method: Any) -> Method:
    """What `fit` was told: a name, or a decorated function; raises UnknownMethod."""
    if isinstance(method, str):
        return METHODS[method]
    if isinstance(method, Method):
        return method
    if callable(method):
        name = getattr(method, "__name__", type(method).__name__)
        raise UnknownMethod(f"method={name}: a function that is no method; decorate it with @method(...)")
    raise UnknownMethod(
        f"method={method!r}: expected a name, one of {', '.join(METHODS)}, or a function decorated with @method(...)"
    )


def method_at(address: str, name: str) -> Method:
    """The method at `package.module:function`, decorated or not.

    Raises UnknownMethod where the module cannot be imported or has no such function.
    """
    module_name, _, function_name = address.partition(":")
    if not module_name or not function_name:
        raise UnknownMethod(f"{address}: expected package.module:function")
    try:
        module = import_module(module_name)
    except Exception as error:  # somebody else's module may raise anything
        raise UnknownMethod(f"{address}: {module_name} cannot be imported ({reason_of(error)})") from error
    if not hasattr(module, function_name):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownMethod(f"{address}: {module_name} has no {function_name}{nearest(function_name, functions)}")
    return as_method(getattr(module, function_name), name)


def as_method(found: Any, name: str) -> Method:
    """A decorated function as it is, another one as a method of this name; raises UnknownMethod for anything else."""
    if isinstance(found, Method):
        return found
    if not callable(found):
        raise UnknownMethod(f"{name}: {type(found).__name__} is no function; expected one that returns bases")
    try:
        inspect.signature(found).bind_partial(None, None, None, None)
    except (TypeError, ValueError) as error:
        raise UnknownMethod(
            f"{name}: {getattr(found, '__name__', 'the function')} takes other arguments; expected "
            "(chain, inputs, statistics, settings, *, options)"
        ) from error
    return Method(name, cast(Fit, found), label=name, sorts_by="importance")
