"""Models from outside the source tree: a module with a function that makes one, and a package with a room."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from running import QUICK, config_of

from experiments.config.schema import RunConfig

MODULE = '''
import torch

from libcore.chain import Chain
from libcore.constant import beside_constant, constant_alone, folded, with_constant
from libcore.sections import AffineSection, ResidualElementwiseSection
from libcore import accuracy
from models.own.own_model import OwnModel


def make(width: int, seed: int, noise: float = 0.0) -> OwnModel:
    """Random weights between three inputs and two logits; the labels are mostly what the network says."""
    generator = torch.Generator().manual_seed(seed)
    first, bias, last = (torch.randn(*shape, generator=generator) for shape in ((3, width), (width,), (width, 2)))
    chain = Chain(
        ("inputs", "hidden", "logits"),
        (
            ResidualElementwiseSection(
                constant_alone(3, width).float(), folded(first, bias), beside_constant(torch.eye(width)), torch.relu
            ),
            AffineSection(folded(last, None)),
        ),
        embed=lambda inputs: with_constant(inputs)[:, None],
        last_has_constant=False,
    )
    inputs = torch.randn(30, 3, generator=generator)
    logits = chain.activation(inputs, 2)[:, 0] + noise * torch.randn(30, 2, generator=generator)
    labels = logits.argmax(1)
    return OwnModel(chain, accuracy(inputs[:20], labels[:20]), accuracy(inputs[20:], labels[20:]))
'''

SCHEMA = """
from models.schema import Count, ModelSchema


class TinySchema(ModelSchema):
    room = "tiny_package.room:TinyRoom"
    width: Count
"""

ROOM = """
from models.analysed import AnalysedModel
from models.room import Room, Trained
from models.training_state import TrainingEvaluation
from models.weights import ModelFile
from tiny_package.networks import make


class TinyRoom(Room):
    all_node_layers = ("inputs", "hidden", "logits")

    @property
    def own(self):
        return make(self.model.width, self.settings.seed)

    def split_sizes(self):
        return 20, 10

    def initial(self):
        hidden, logits = self.own.model.sections
        return ModelFile({"first": hidden.weight_in, "last": logits.weight}, {"made by": "hand"})

    def train(self, device, state, progress):
        progress(1, 1, TrainingEvaluation(1, 0.0, 1.0, 0.0))
        return Trained(self.initial(), {"summary": "drawn", "reached_target": True})

    def chain(self, file, dtype, device):
        chain = self.own.model
        sections = tuple(section.to(dtype=dtype, device=device) for section in chain.sections)
        embed = lambda inputs: chain.embed(inputs).to(dtype=dtype)
        return type(chain)(chain.node_layers, sections, embed, False).restricted_to(self.node_layers)

    def analysed(self, file, device):
        labels = lambda chain, bases: {layer: ["tiny"] * bases[layer].n_features for layer in chain.node_layers}
        return AnalysedModel(self.chains(file, device), self.own.train, self.own.test, labels)
"""


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, from which modules are imported for the time of one test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def write_module(folder: Path, content: str, name: str = "my_models") -> None:
    """The module, imported anew by whoever imports it next."""
    (folder / f"{name}.py").write_text(content)
    sys.modules.pop(name, None)
    importlib.invalidate_caches()


def write_package(folder: Path, entry_point: str = "tiny = tiny_package.schema:TinySchema") -> None:
    """`tiny_package` as if it were installed in the folder."""
    for name, content in (("__init__", ""), ("schema", SCHEMA), ("room", ROOM), ("networks", MODULE)):
        (folder / "tiny_package").mkdir(exist_ok=True)
        (folder / "tiny_package" / f"{name}.py").write_text(content)
    metadata = folder / "tiny_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[local_interaction_basis.models]\n{entry_point}\n")
    sys.path.append(str(folder))
    importlib.invalidate_caches()


def plain_config(folder: Path, model: dict[str, Any], **others: dict[str, Any] | int) -> dict[str, Any]:
    """A whole configuration without figures and tracker, with this model and with other values in its groups."""
    plain = config_of(*QUICK, f"output_directory={folder / 'outputs'}").model_dump()
    for group, values in others.items():
        plain[group] = plain[group] | values if isinstance(values, dict) else values
    return plain | {"model": model}


def own_config(folder: Path, model: dict[str, Any], **others: dict[str, Any] | int) -> RunConfig:
    """The same, checked."""
    return RunConfig.model_validate(plain_config(folder, model, **others))
