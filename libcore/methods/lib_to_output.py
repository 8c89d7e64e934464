"""LIB with the Jacobian to the last node layer in place of the next one."""

from __future__ import annotations

from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.estimators import jacobian_gram
from libcore.fit_settings import FitSettings, working_dtype
from libcore.layer_by_layer import last_basis
from libcore.methods import method, never
from libcore.methods.lib import lib_basis
from libcore.quadrature import GRADIENT
from libcore.sections import compose
from libcore.statistics import LayerStatistics


@method("lib_to_output", label="LIB to output", sorts_by="Λ", place=11, integrates=never)
def fit_lib_to_output(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """Eq. 4 with `J` the Jacobian of the last node layer's features, everything else as in LIB.

    No closed form spans several sections, so that they are differentiated, unless probes sample them.
    """
    dtype = working_dtype(chain, inputs)
    last = last_basis(chain, statistics, settings, dtype)
    bases = {}
    for index, (layer, stream) in enumerate(
        zip(chain.node_layers, chain.streams(inputs, settings.memory_budget), strict=False)
    ):
        section = compose(chain.sections[index:])
        gram = jacobian_gram(section, stream, last.to(dtype=dtype), GRADIENT, *settings.estimation(layer))
        bases[layer] = lib_basis(statistics[layer], gram, settings.truncation, dtype)
    return bases | {chain.node_layers[-1]: last}
