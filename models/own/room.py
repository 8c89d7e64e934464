"""The room of a model that a function of the user's makes."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from libcore.ablation import EvaluationData
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.tensor_files import tensors_hash
from models.analysed import CONSTANT, AnalysedModel
from models.errors import UserError
from models.imported_sources import imported_sources
from models.own.factory import FactorySchema, error_and_place, imported_function
from models.own.own_model import OwnModel
from models.own.tensors import named_tensors
from models.room import Progress, Room, Trained
from models.schema import ModelSettings
from models.weights import ModelFile, no_weight

CPU = torch.device("cpu")
N_COMPARED = 32
"""Examples whose activations tell one model's code from another's."""


class OwnRoom(Room[FactorySchema]):
    """`model.factory=package.module:function`; the function is called once."""

    def __init__(self, settings: ModelSettings[FactorySchema]) -> None:
        super().__init__(settings)
        self.seeded = settings.model.takes_seed()
        self.own = self.made()
        self.score_name = self.own.test.score_name
        self.lower_score_is_better = self.own.test.lower_is_better
        self.whole_chain = cache(self.built_chain)

    def made(self) -> OwnModel:
        """What the function returns; raises UserError."""
        function, arguments = imported_function(self.model.factory), self.model.arguments
        if self.seeded:
            arguments["seed"] = self.settings.seed
        with self.user_errors():
            own = function(**arguments)
        if not isinstance(own, OwnModel):
            raise UserError(f"{self.option}: returns {type(own).__name__}; expected models.own.own_model.OwnModel")
        if not (isinstance(own.train, EvaluationData) and isinstance(own.test, EvaluationData)):
            raise UserError(f"{self.option}: train and test of its OwnModel: expected libcore.ablation.EvaluationData")
        if not (len(own.train.inputs) and len(own.test.inputs)):
            raise UserError(f"{self.option}: a split without inputs; expected examples in train and in test")
        if isinstance(own.model, nn.Module):
            for name, parameter in own.model.named_parameters():
                if (reason := no_weight(parameter)) is not None:
                    raise UserError(f"{self.option}: weight {name} {reason}")
        return own

    @property
    def option(self) -> str:
        """How errors name what is to be mended."""
        return f"model.factory={self.model.factory}"

    @contextmanager
    def user_errors(self) -> Generator[None, None, None]:
        """Whatever the user's code runs into is the user's to mend."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self.option}: {error_and_place(error)}") from error

    @property
    def exact(self) -> Chain:
        """The whole chain in float64 on the CPU."""
        with self.user_errors():
            return self.whole_chain(torch.float64, CPU)

    @property
    def all_node_layers(self) -> tuple[str, ...]:
        return self.exact.node_layers

    def select_node_layers(self, chosen: Sequence[str] | None) -> tuple[str, ...]:
        """Of a module those that `Chain.from_module` chooses by submodules' names; raises ValueError."""
        if isinstance(self.own.model, nn.Module) and chosen is not None:
            return self.whole_chain(torch.float64, CPU).node_layers
        return super().select_node_layers(chosen)

    def split_sizes(self) -> tuple[int, int]:
        return len(self.own.train.inputs), len(self.own.test.inputs)

    def check(self) -> None:
        """One example of either split through the chain, in both precisions, to its score."""
        with self.user_errors(), torch.no_grad():
            for dtype in (torch.float64, torch.float32):
                chain = self.whole_chain(dtype, CPU)
                for data in (self.own.train, self.own.test):
                    *_, last = chain.checked(chain.activations(data.inputs[:1]))
                    data.score_sum(chain.output_from(last, len(chain.sections)), 0, 1)

    @cached_property
    def depends_on(self) -> dict[str, Any]:
        """The function's source and what that imports, its arguments, all tensors returned, and what they compute."""
        chain = self.exact
        with self.user_errors(), torch.no_grad():
            activations = list(chain.activations(self.own.train.inputs[:N_COMPARED]))
            output = chain.output_from(activations[-1], len(chain.sections))
        computed = zip((*chain.node_layers, "output"), (*activations, output), strict=True)
        return self.model.trained_as() | {
            "source": imported_sources(self.model.factory.partition(":")[0]),
            "tensors": tensors_hash(named_tensors(self.own).items()),
            "activations": tensors_hash(computed),
        }

    def initial(self) -> ModelFile:
        model = self.own.model
        tensors = named_tensors(model if isinstance(model, nn.Module) else self.exact)
        return ModelFile({name: tensor.clone() for name, tensor in tensors.items()})

    def train(self, device: torch.device, state: Path, progress: Progress) -> Trained:
        """The function has done what there was to do."""
        return Trained(self.initial(), {"summary": f"made by {self.model.factory}", "reached_target": True})

    def chain(self, file: ModelFile, dtype: torch.dtype, device: torch.device) -> Chain:
        """Of the model at hand, which is what `file` was made from."""
        with self.user_errors():
            return self.whole_chain(dtype, device).restricted_to(self.node_layers)

    def built_chain(self, dtype: torch.dtype, device: torch.device) -> Chain:
        """The model at all its node layers. Raises whatever the user's code does."""
        model = self.own.model
        if isinstance(model, nn.Module):
            chain = chain_of_module(model, self.own.train.inputs, self.settings.node_layers, dtype, device)
        else:
            chain = model if isinstance(model, Chain) else model(dtype)
        if not isinstance(chain, Chain):
            raise UserError(f"{self.option}: its model gives {type(chain).__name__}; expected a Chain")
        return replace(
            chain,
            sections=tuple(section.to(device=device, dtype=dtype) for section in chain.sections),
            before=tuple(section.to(device=device, dtype=dtype) for section in chain.before),
            tail=None if chain.tail is None else chain.tail.to(device=device, dtype=dtype),
            embed=lambda inputs: chain.embed(inputs).to(device=device, dtype=dtype),
        )

    def analysed(self, file: ModelFile, device: torch.device) -> AnalysedModel:
        return AnalysedModel(
            chain=self.chains(file, device),
            train=on_device(self.own.train, device),
            test=on_device(self.own.test, device),
            label_features=self.own.labels or numbered,
        )


def chain_of_module(
    module: nn.Module, inputs: Tensor, node_layers: Sequence[str] | None, dtype: torch.dtype, device: torch.device
) -> Chain:
    """A copy of the module in that dtype as a chain, whose `embed` takes inputs of any."""
    examples = inputs[:N_COMPARED].to(device)
    return Chain.from_module(copy.deepcopy(module).to(device), examples, node_layers, dtype=dtype)


def on_device(data: EvaluationData, device: torch.device) -> EvaluationData:
    """The same inputs on another device, scored where the user's function has its labels."""
    home, of_examples = data.inputs.device, data.example_scores
    return replace(
        data,
        inputs=data.inputs.to(device),
        score_sum=lambda outputs, start, stop: data.score_sum(outputs.to(home), start, stop),
        example_scores=None if of_examples is None else lambda outputs, *block: of_examples(outputs.to(home), *block),
    )


def numbered(chain: Chain, bases: dict[str, Basis]) -> dict[str, list[str]]:
    """Features by their place in the basis."""
    return {
        layer: [
            CONSTANT if index == 0 and bases[layer].has_constant else f"feature {index}"
            for index in range(bases[layer].n_features)
        ]
        for layer in chain.node_layers
    }
