"""Everything that processes share out, computed and written to a file: `torchrun ... computed_together.py FILE`.

Not a test itself: `test_processes.py` starts it in one process and in several.
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file
from section_cases import SECTIONS, Case, case_of
from tiny_models import AMPLE, basis_of, random, random_activation, random_chain, stream_of
from torch import Tensor
from transformer_blocks import BLOCKS, D

from experiments.start_up import process_of
from libcore import processes
from libcore.ablation import ablate_by_example, accuracy
from libcore.ablation.evaluation import EvaluationData
from libcore.estimators import edges, jacobian_gram
from libcore.estimators.signed import signed_edges
from libcore.estimators.stochastic import Probes
from libcore.fit_settings import FitSettings
from libcore.graph import InteractionGraph, interaction_edges
from libcore.methods import METHODS
from libcore.quadrature import GRADIENT, Quadrature
from libcore.statistics import chain_statistics

N_EXAMPLES = 7
"""No multiple of any number of processes."""


def computed() -> dict[str, Tensor]:
    """By what it is."""
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    cases = {name: case_of(make(generator), generator, n=N_EXAMPLES) for name, make in SECTIONS.items()}
    for name, make in BLOCKS.items():
        section, activation = make(generator), random_activation(generator, N_EXAMPLES, 5, D)
        basis = basis_of(random(generator, D, D - 1))
        cases[name] = Case(section, activation, basis, basis_of(random(generator, section(activation).shape[-1], 4)))
    for name, case in cases.items():
        section, activation, basis, next_basis = case.section, case.activation, case.basis, case.next_basis
        stream = stream_of(activation)
        for estimator in ("auto", "exact", "stochastic"):
            if estimator != "auto" and name not in ("attention, RMSNorm", "composed"):
                continue
            how = (GRADIENT, estimator, Probes(n=4, seed=3))
            found[f"{name}/gram/{estimator}"] = jacobian_gram(section, stream, next_basis, *how)
            found[f"{name}/edges/{estimator}"] = edges(section, stream, basis, next_basis, *how)
        signed = signed_edges(section, stream, basis, next_basis, GRADIENT)
        found[f"{name}/signed/mean"], found[f"{name}/signed/slope"] = signed.mean, signed.slope
    return found | of_a_chain(generator)


def of_a_chain(generator: torch.Generator) -> dict[str, Tensor]:
    """Statistics, bases, edges and ablations."""
    chain, inputs = random_chain(generator), random_activation(generator, N_EXAMPLES, 3, 4)
    statistics = chain_statistics(chain, inputs, AMPLE)
    bases = METHODS["lib"](chain, inputs, statistics, FitSettings(memory_budget=AMPLE))
    strengths = interaction_edges(chain, inputs, bases, Quadrature.of("trapezoidal", 3), "auto", AMPLE)
    graph = InteractionGraph(chain.node_layers, statistics, bases, strengths)
    with torch.no_grad():
        data = accuracy(inputs, chain.output_from(chain.activation(inputs, 0), 0)[:, -1].argmax(-1))
    found = {f"statistics/{layer}": of.gram for layer, of in statistics.items()}
    found |= {f"basis/{layer}": basis.to_basis for layer, basis in bases.items()}
    found |= {f"edges/{layer}": of for layer, of in strengths.items()}
    for scored in (data, EvaluationData(inputs, data.score_sum)):
        by_example = ablate_by_example(graph, chain, scored, memory_budget=AMPLE)
        name = "ablated" if scored is data else "ablated one by one"
        found[f"{name}/unablated"] = by_example.unablated
        for kind, curves in (("nodes", by_example.nodes), ("edges", by_example.edges)):
            found |= {f"{name}/{kind}/{layer}": curve.scores for layer, curve in curves.items()}
    for layer, curve in by_example.ablations.edges.items():
        found[f"needed/{layer}"] = torch.tensor(list(curve.needed.values()))
    return found


def main() -> None:
    """Compute and write."""
    torch.set_num_threads(1)
    with processes.joined():
        tensors = computed()
        if processes.rank() == 0:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, sys.argv[1])


if __name__ == "__main__":
    process_of(main)
