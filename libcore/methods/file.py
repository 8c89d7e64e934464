"""A basis from a file, by whatever tool it was fitted: compared by the same edges and ablations as every method.

The file is safetensors: for every node layer but the last `to_basis/<layer>` and `from_basis/<layer>`, and optionally
`importance/<layer>` and `mean/<layer>`. A `to_basis/<layer>` is

    [d, k]            of the activation as the module has it: features `(f - mean) @ to_basis`, back by
                      `mean + features @ from_basis`, `from_basis` `[k, d]`. Without `mean/<layer>` the data's mean
    [d + 1, k + 1]    of the activation with its constant coordinate, feature 0 the constant (`graph.safetensors` of a
                      run is such a file)

Features are sorted by importance; without one, by variance on the data. Logits, which carry no constant coordinate, are
not centred and their features stay in the file's order. A file without the last node layer leaves it as the other
methods do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from libcore import codec
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.fit_settings import FitSettings, working_dtype
from libcore.layer_by_layer import last_basis
from libcore.messages import one_line
from libcore.methods import method, never
from libcore.names import nearest
from libcore.principal_components import centred_maps, variable_moments
from libcore.regular_files import unreadable
from libcore.statistics import LayerStatistics
from libcore.tensor_files import read_tensors

CONSTANT_TOLERANCE = 1e-6
"""How much of the other coordinates the constant feature may hold, as a share of the constant coordinate's own."""
RESTORED_TOLERANCE = 1e-3
"""How far the constant coordinate may be off that features are written back to: as far as a chain's own may."""


def refuse_unreadable(settings: FitSettings, *, path: Path) -> None:
    """A missing or damaged file is told before anything is computed."""
    read_basis_file(path)


@method("file", label="file", sorts_by="importance", check=refuse_unreadable, integrates=never, takes_jacobians=False)
def fit_file(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings, *, path: Path
) -> dict[str, Basis]:
    """Nothing is fitted.

    Args:
        path: the file.

    Raises ValueError, in one line, for a layer that is missing and for tensors that do not suit it.
    """
    stored, node_layers = read_basis_file(path)
    tensors = {name: tensor.double() for name, tensor in stored.items()}
    last, bases = chain.node_layers[-1], dict[str, Basis]()
    for layer in chain.node_layers:
        if layer == last and not {f"to_basis/{layer}", f"from_basis/{layer}"} & set(tensors):
            bases[layer] = last_basis(chain, statistics, settings, working_dtype(chain, inputs))
        else:
            bases[layer] = basis_from(tensors, layer, statistics[layer], chain.has_constant(layer), path)
    refuse_unknown(tensors, {*chain.node_layers, *node_layers}, path)
    return bases


def read_basis_file(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """All tensors of a safetensors file as they are stored, and the node layers that its header lists.

    A saved graph lists its own, which may be more than a chain of some of them has; other files list none. Raises
    ValueError.
    """
    if (reason := unreadable(path)) is not None:
        raise ValueError(
            f"method.path={path}: {reason}; expected safetensors with to_basis/<layer>, from_basis/<layer>"
        )
    try:
        tensors, header = read_tensors(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"method.path={path}: not readable as safetensors ({one_line(error)})") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {name} has dtype {tensor.dtype}; expected real floating-point numbers")
    return tensors, json.loads(header.get("node_layers", "[]"))


def refuse_unknown(tensors: Mapping[str, Tensor], layers: Iterable[str], path: Path) -> None:
    """For an entry that nothing would read, with the nearest that something would; raises ValueError."""
    known = [
        f"{kind}/{layer}"
        for kind in (*codec.OF_BASES, *codec.OF_STATISTICS, *codec.OF_MOVEMENTS, "edges")
        for layer in layers
    ]
    for name in tensors:
        if name not in known:
            raise ValueError(
                f"{path}: {name} is no entry of a basis file{nearest(name, known)}; expected "
                "to_basis, from_basis, importance and mean of the chain's node layers"
            )


def basis_from(
    tensors: Mapping[str, Tensor], layer: str, statistics: LayerStatistics, has_constant: bool, path: Path
) -> Basis:
    """The basis of one node layer, its features sorted."""
    width = len(statistics.mean)
    to_basis, from_basis = (tensor_of(tensors, kind, layer, path) for kind in ("to_basis", "from_basis"))
    d, k = to_basis.shape
    if from_basis.shape != (k, d):
        raise ValueError(
            f"{path}: from_basis/{layer} has shape {tuple(from_basis.shape)}; expected {(k, d)}, to_basis {(d, k)}"
        )
    like = statistics.gram
    to_basis, from_basis = to_basis.to(like.device), from_basis.to(like.device)
    if has_constant and d == width - 1:
        to_basis, from_basis = centred_maps(to_basis, from_basis, mean_of(tensors, layer, statistics, path))
    elif d != width:
        also = f" (or {width - 1}, without the constant coordinate)" if has_constant else ""
        raise ValueError(f"{path}: to_basis/{layer} has {d} rows; expected {width}{also}, the width of the node layer")
    elif has_constant:
        refuse_other_constant(to_basis, from_basis, layer, path)
    importance = importance_of(tensors, layer, to_basis, statistics, has_constant, path)
    return sorted_basis(to_basis, from_basis, importance, has_constant)


def tensor_of(tensors: Mapping[str, Tensor], kind: str, layer: str, path: Path) -> Float[Tensor, "row column"]:
    """A matrix of finite numbers; raises ValueError."""
    name = f"{kind}/{layer}"
    if name not in tensors:
        close = get_close_matches(name, list(tensors), n=1, cutoff=0.5)
        hint = f" (found {close[0]})" if close else f" (found {', '.join(sorted(tensors)[:3]) or 'no tensor'})"
        raise ValueError(f"{path}: {name} is missing{hint}; expected to_basis and from_basis of every node layer")
    tensor = tensors[name]
    if tensor.ndim != 2 or not tensor.isfinite().all():
        raise ValueError(f"{path}: {name} of shape {tuple(tensor.shape)}; expected a matrix of finite numbers")
    return tensor


def mean_of(tensors: Mapping[str, Tensor], layer: str, statistics: LayerStatistics, path: Path) -> Float[Tensor, " d"]:
    """What is subtracted, without the constant coordinate: the file's, or that of the data; raises ValueError."""
    of_data = statistics.mean[:-1]
    given = tensors.get(f"mean/{layer}")
    if given is None:
        return of_data
    d = len(of_data)
    if given.shape not in ((d,), (d + 1,)) or not given.isfinite().all():
        raise ValueError(f"{path}: mean/{layer} of shape {tuple(given.shape)}; expected {d} finite numbers")
    return given[:d].to(of_data.device)


def refuse_other_constant(
    to_basis: Float[Tensor, "d k"], from_basis: Float[Tensor, "k d"], layer: str, path: Path
) -> None:
    """Feature 0 must be the constant coordinate alone, and alone write it back."""
    largest = to_basis[:-1, 0].abs().amax() if len(to_basis) > 1 else to_basis.new_zeros(())
    own = to_basis[-1, 0].abs()
    if not (own > 0 and largest <= CONSTANT_TOLERANCE * own):
        raise ValueError(
            f"{path}: column 0 of to_basis/{layer} reads other coordinates than the constant; expected the constant "
            f"feature first, or {len(to_basis) - 1} rows without the constant coordinate"
        )
    restored = to_basis @ from_basis[:, -1]
    restored[-1] -= 1.0
    if not restored.abs().max() <= RESTORED_TOLERANCE:
        raise ValueError(
            f"{path}: from_basis/{layer} does not restore the constant coordinate; expected the last column to read "
            "feature 0 alone"
        )


def importance_of(
    tensors: Mapping[str, Tensor],
    layer: str,
    to_basis: Float[Tensor, "d k"],
    statistics: LayerStatistics,
    has_constant: bool,
    path: Path,
) -> Float[Tensor, " k"]:
    """As the file has it, by default each feature's variance on the data; that of the constant comes first."""
    given = tensors.get(f"importance/{layer}")
    if given is None:
        _, gram = variable_moments(statistics, has_constant)
        reads = to_basis[: len(gram)]
        variance = (reads * (gram @ reads)).sum(0)
        return torch.cat([variance.new_ones(1), variance[1:]]) if has_constant else variance
    n_features, given = to_basis.shape[1], given.to(to_basis.device)
    fewest = n_features - int(has_constant)
    if given.ndim != 1 or len(given) < fewest or not given.isfinite().all():
        raise ValueError(
            f"{path}: importance/{layer} of shape {tuple(given.shape)}; expected a finite number for each of "
            f"{fewest} features"
        )
    if len(given) == fewest and has_constant:
        given = torch.cat([given.new_ones(1), given])
    return given[:n_features]


def sorted_basis(
    to_basis: Float[Tensor, "d k"],
    from_basis: Float[Tensor, "k d"],
    importance: Float[Tensor, " k"],
    has_constant: bool,
) -> Basis:
    """Most important first, the constant before all; logits stay as they are."""
    if not has_constant:
        return Basis(to_basis, from_basis, importance, has_constant)
    variable = 1 + importance[1:].sort(descending=True, stable=True).indices
    order = torch.cat([variable.new_zeros(1), variable])
    return Basis(to_basis[:, order], from_basis[order], importance[order], has_constant)
