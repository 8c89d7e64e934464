"""A basis from a file: what it is taken for with and without constant, mean, importance and last node layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import AMPLE, FITTED, largest_difference, random, random_activation, random_chain, random_orthogonal
from torch import Generator, Tensor

from libcore.chain import Chain
from libcore.fit_settings import FitSettings
from libcore.fitting import fit
from libcore.graph import InteractionGraph
from libcore.methods import METHODS

Tensors = dict[str, Tensor]
LAYERS = ("before", "middle", "after")


@dataclass
class Setting:
    """A chain of three node layers with the constant (three coordinates beside it) and five logits."""

    chain: Chain
    inputs: Tensor
    path: Path

    def graph(self, tensors: Tensors) -> InteractionGraph:
        """Of the basis in a file with these tensors."""
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, self.path)
        return fit(self.chain, self.inputs, "file", memory_budget=AMPLE, path=self.path)

    def fitted(self, method: str) -> InteractionGraph:
        """By a method of the project."""
        return fit(self.chain, self.inputs, method, memory_budget=AMPLE)


@pytest.fixture
def setting(generator: Generator, tmp_path: Path) -> Setting:
    return Setting(random_chain(generator), random_activation(generator, 8, 3, 4), tmp_path / "basis.safetensors")


@pytest.fixture
def rotations(generator: Generator) -> Tensors:
    """An orthogonal basis of every node layer with the constant, without the constant."""
    turned = {layer: random_orthogonal(generator, 3) for layer in LAYERS}
    to_basis = {f"to_basis/{layer}": rotation for layer, rotation in turned.items()}
    return to_basis | {f"from_basis/{layer}": rotation.T for layer, rotation in turned.items()}


def assert_same_edges(found: InteractionGraph, expected: InteractionGraph, tolerance: float = 1e-11) -> None:
    for layer in LAYERS:
        assert largest_difference(found.edges[layer], expected.edges[layer]) < tolerance


@pytest.mark.parametrize("method", FITTED)
def test_a_saved_graph_gives_its_own_bases_and_edges_bit_for_bit(setting: Setting, tmp_path: Path, method: str) -> None:
    expected = setting.fitted(method)
    expected.save(tmp_path / "graph.safetensors")
    found = fit(setting.chain, setting.inputs, "file", memory_budget=AMPLE, path=tmp_path / "graph.safetensors")
    for layer in setting.chain.node_layers:
        basis = expected.bases[layer]
        assert torch.equal(found.bases[layer].to_basis, basis.to_basis)
        assert torch.equal(found.bases[layer].from_basis, basis.from_basis)
        assert torch.equal(found.bases[layer].importance, basis.importance[: basis.n_features])
        assert found.bases[layer].has_constant is basis.has_constant
        assert layer == "output" or torch.equal(found.edges[layer], expected.edges[layer])


def test_a_saved_graph_of_more_node_layers_than_the_chain_has(setting: Setting, tmp_path: Path) -> None:
    expected = setting.fitted("pca")
    expected.save(tmp_path / "graph.safetensors")
    fewer = setting.chain.restricted_to(("before", "output"))
    found = fit(fewer, setting.inputs, "file", memory_budget=AMPLE, path=tmp_path / "graph.safetensors")
    assert torch.equal(found.bases["before"].to_basis, expected.bases["before"].to_basis)


def test_the_path_may_be_a_string(setting: Setting, rotations: Tensors) -> None:
    expected = setting.graph(rotations)
    found = fit(setting.chain, setting.inputs, "file", memory_budget=AMPLE, path=str(setting.path))
    assert torch.equal(found.bases["middle"].to_basis, expected.bases["middle"].to_basis)


def test_without_the_constant_the_features_are_those_of_the_module_s_own_activation(setting: Setting) -> None:
    """PCA as another tool writes it: directions of the activation without its constant, the mean beside them."""
    expected = setting.fitted("pca")
    tensors: Tensors = {}
    for layer in LAYERS:
        basis = expected.bases[layer]
        tensors[f"to_basis/{layer}"] = basis.to_basis[:-1, 1:]
        tensors[f"from_basis/{layer}"] = basis.from_basis[1:, :-1]
        tensors[f"mean/{layer}"] = expected.statistics[layer].mean[:-1]
    found = setting.graph(tensors)
    for layer in LAYERS:
        for kind in ("to_basis", "from_basis", "importance"):
            got = getattr(found.bases[layer], kind)
            assert largest_difference(got, getattr(expected.bases[layer], kind)[: len(got)]) < 1e-12
    assert_same_edges(found, expected)
    assert torch.equal(found.bases["output"].to_basis, torch.eye(5, dtype=torch.float64))


class TestMean:
    def test_of_the_data_where_the_file_has_none(self, setting: Setting, rotations: Tensors) -> None:
        graph = setting.graph(rotations)
        for index, layer in enumerate(LAYERS):
            activation = setting.chain.activation(setting.inputs, index)
            features = graph.bases[layer].features(activation)
            variable = activation[..., :-1]
            centred = variable - variable.mean((0, 1))
            order = torch.cdist(graph.bases[layer].to_basis[:-1, 1:].T, rotations[f"to_basis/{layer}"].T).argmin(1)
            assert largest_difference(features[..., 1:], (centred @ rotations[f"to_basis/{layer}"])[..., order]) < 1e-12
            assert torch.equal(features[..., 0], torch.ones(8, activation.shape[1], dtype=torch.float64))
            assert largest_difference(graph.bases[layer].activation(features), activation) < 1e-12

    @pytest.mark.parametrize("with_constant", [False, True])
    def test_of_the_file(self, setting: Setting, rotations: Tensors, generator: Generator, with_constant: bool) -> None:
        """With the constant coordinate's 1 behind it, as a run writes it, or without."""
        centre = random(generator, 3)
        mean = torch.cat([centre, torch.ones(1).double()]) if with_constant else centre
        graph = setting.graph(rotations | {"mean/middle": mean})
        assert largest_difference(graph.bases["middle"].from_basis[0, :-1], centre) < 1e-15
        activation = setting.chain.activation(setting.inputs, 1)
        features = graph.bases["middle"].features(activation)
        assert features[..., 1:].mean((0, 1)).abs().max() > 0.1
        assert largest_difference(graph.bases["middle"].activation(features), activation) < 1e-12


class TestOrder:
    def test_by_variance_where_the_file_has_no_importance(self, setting: Setting, rotations: Tensors) -> None:
        graph = setting.graph(rotations)
        for index, layer in enumerate(LAYERS):
            basis = graph.bases[layer]
            features = basis.features(setting.chain.activation(setting.inputs, index)).flatten(0, 1)
            variance = features.var(0, correction=0)[1:]
            assert largest_difference(basis.importance[1:], variance) < 1e-12
            assert (variance[:-1] >= variance[1:]).all()
            assert basis.importance[0] == 1.0

    @pytest.mark.parametrize("given", [[1.0, 3.0, 2.0], [9.0, 1.0, 3.0, 2.0], [0.1, 1.0, 3.0, 2.0, 5.0]])
    def test_by_the_file_s_importance(self, setting: Setting, rotations: Tensors, given: list[float]) -> None:
        """For the three features, for the constant too, or for dropped directions behind them as well."""
        graph = setting.graph(rotations | {"importance/middle": torch.tensor(given)})
        basis = graph.bases["middle"]
        assert basis.importance.tolist() == [1.0 if len(given) == 3 else pytest.approx(given[0]), 3.0, 2.0, 1.0]
        expected = rotations["to_basis/middle"][:, [1, 2, 0]]
        assert torch.equal(basis.to_basis[:-1, 1:], expected)
        assert torch.equal(basis.from_basis[1:, :-1], expected.T)

    def test_equal_importances_stay_in_the_file_s_order(self, setting: Setting, rotations: Tensors) -> None:
        graph = setting.graph(rotations | {"importance/middle": torch.ones(3)})
        assert torch.equal(graph.bases["middle"].to_basis[:-1, 1:], rotations["to_basis/middle"])

    def test_edges_do_not_depend_on_the_file_s_order(self, setting: Setting, rotations: Tensors) -> None:
        order = torch.tensor([2, 0, 1])
        turned = {
            name: tensor[:, order] if name.startswith("to_basis") else tensor[order]
            for name, tensor in rotations.items()
        }
        assert_same_edges(setting.graph(turned), setting.graph(rotations))


class TestLastNodeLayer:
    def test_logits_in_a_basis_of_their_own_keep_the_file_s_order(
        self, setting: Setting, rotations: Tensors, generator: Generator
    ) -> None:
        """Without a constant nothing is centred: the features are those of the logits themselves."""
        logits = random_orthogonal(generator, 5)
        graph = setting.graph(rotations | {"to_basis/output": logits, "from_basis/output": logits.T})
        basis = graph.bases["output"]
        assert torch.equal(basis.to_basis, logits)
        assert not basis.has_constant
        variance = (setting.chain.activation(setting.inputs, 3) @ logits).flatten(0, 1).var(0, correction=0)
        assert largest_difference(basis.importance, variance) < 1e-12
        assert graph.edges["after"].shape == (5, 4)

    def test_a_residual_stream_that_the_file_leaves_out_takes_its_principal_components(
        self, setting: Setting, rotations: Tensors
    ) -> None:
        setting.chain = setting.chain.restricted_to(LAYERS)
        found, expected = setting.graph({n: t for n, t in rotations.items() if "after" not in n}), setting.fitted("pca")
        assert torch.equal(found.bases["after"].to_basis, expected.bases["after"].to_basis)


def test_fewer_features_than_coordinates(setting: Setting, rotations: Tensors) -> None:
    few = rotations | {
        "to_basis/middle": rotations["to_basis/middle"][:, :2],
        "from_basis/middle": rotations["from_basis/middle"][:2],
    }
    graph = setting.graph(few)
    assert graph.bases["middle"].n_features == 3
    assert graph.edges["before"].shape == (3, 4)
    assert graph.edges["middle"].shape == (4, 3)


def test_float32_files_are_read_in_float64(setting: Setting, rotations: Tensors) -> None:
    single = {name: tensor.float() for name, tensor in rotations.items()}
    graph = setting.graph(single)
    assert graph.bases["middle"].to_basis.dtype == torch.float64
    assert_same_edges(graph, setting.graph({name: tensor.double() for name, tensor in single.items()}), 1e-14)


WITH_CONSTANT = torch.eye(4, dtype=torch.float64)[:, [3, 0, 1, 2]]
"""Neurons of a layer with its constant coordinate; feature 0 is the constant."""


def changed(rotations: Tensors, **tensors: Tensor | None) -> Tensors:
    """With other tensors of node layer `middle`, or without them."""
    new = {f"{kind}/middle": tensor for kind, tensor in tensors.items()}
    return {name: tensor for name, tensor in (rotations | new).items() if tensor is not None}


class TestRefusals:
    """One line each, with the file, the tensor and what was expected."""

    @pytest.mark.parametrize(
        ("tensors", "expected"),
        [
            ({"to_basis": None}, r": to_basis/middle is missing \(found from_basis/m"),
            ({"from_basis": None}, r"from_basis/middle is missing \(found to_basis/m"),
            ({"to_basis": torch.zeros(3)}, r"to_basis/middle of shape \(3,\); expected a matrix of finite numbers"),
            (
                {"to_basis": torch.full((3, 3), torch.nan)},
                r"to_basis/middle of shape \(3, 3\); expected a matrix",
            ),
            ({"from_basis": torch.full((3, 3), torch.inf)}, r"from_basis/middle of shape \(3, 3\); expected a matrix"),
            (
                {"from_basis": torch.eye(4)},
                r"from_basis/middle has shape \(4, 4\); expected \(3, 3\), to_basis",
            ),
            (
                {"to_basis": torch.eye(5), "from_basis": torch.eye(5)},
                r"to_basis/middle has 5 rows; expected 4 \(or 3, without the constant coordinate\), the width",
            ),
            (
                {"to_basis": torch.eye(4), "from_basis": torch.eye(4)},
                "column 0 of to_basis/middle reads other coordinates than the constant; expected the constant feature ",
            ),
            (
                {"to_basis": torch.zeros(4, 3), "from_basis": torch.zeros(3, 4)},
                "column 0 of to_basis/middle reads other coordinates than the constant",
            ),
            (
                {"to_basis": WITH_CONSTANT, "from_basis": 2 * WITH_CONSTANT.T},
                "from_basis/middle does not restore the constant coordinate; expected",
            ),
            (
                {"to_basis": WITH_CONSTANT, "from_basis": WITH_CONSTANT.T + 0.1},
                "from_basis/middle does not restore the constant coordinate; expected",
            ),
            (
                {"importance": torch.ones(2)},
                r"importance/middle of shape \(2,\); expected a finite number for each",
            ),
            ({"importance": torch.ones(3, 1)}, r"importance/middle of shape \(3, 1\); expected a finite number"),
            ({"importance": torch.tensor([1.0, torch.nan, 2.0])}, r"importance/middle of shape \(3,\); expected a fin"),
            ({"mean": torch.ones(2)}, r"mean/middle of shape \(2,\); expected 3 finite numbers"),
            ({"mean": torch.ones(1, 3)}, r"mean/middle of shape \(1, 3\); expected 3 finite numbers"),
            ({"mean": torch.full((3,), torch.nan)}, r"mean/middle of shape \(3,\); expected 3 finite numbers"),
        ],
    )
    def test_tensors(self, setting: Setting, rotations: Tensors, tensors: dict[str, Tensor | None], expected) -> None:
        with pytest.raises(ValueError, match=expected) as raised:
            setting.graph(changed(rotations, **tensors))
        assert str(raised.value).startswith(f"{setting.path}: ")
        assert "\n" not in str(raised.value)

    def test_a_file_of_other_tensors(self, setting: Setting) -> None:
        with pytest.raises(ValueError, match=r"to_basis/before is missing \(found weight\); expected to_basis"):
            setting.graph({"weight": torch.zeros(2)})

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            (
                "importence/middle",
                r"importence/middle is no entry .* \(did you mean importance/middle\?\); expected to_b",
            ),
            ("mean/midle", r"mean/midle is no entry of a basis file \(did you mean mean/middle\?\); expected to_b"),
            ("to_basis/ouput", r"to_basis/ouput is no entry .* \(did you mean to_basis/output\?\); expected to_b"),
            ("from_basis/output", r"to_basis/output is missing \(found from_basis/output\)"),
        ],
    )
    def test_what_nothing_would_read(self, setting: Setting, rotations: Tensors, name: str, expected: str) -> None:
        with pytest.raises(ValueError, match=expected) as raised:
            setting.graph(rotations | {name: torch.ones(3)})
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
    def test_numbers_that_are_not_real_and_floating(self, setting: Setting, rotations: Tensors, dtype) -> None:
        with pytest.raises(ValueError, match=rf"to_basis/middle has dtype {dtype}; expected real floating-point numb"):
            setting.graph(changed(rotations, to_basis=torch.eye(3, dtype=dtype)))

    def test_an_empty_file(self, setting: Setting) -> None:
        with pytest.raises(ValueError, match=r"to_basis/before is missing \(found no tensor\)"):
            setting.graph({})

    def test_a_wrong_width_of_the_logits(self, setting: Setting, rotations: Tensors) -> None:
        with pytest.raises(ValueError, match=r"to_basis/output has 4 rows; expected 5, the width of the node layer"):
            setting.graph(rotations | {"to_basis/output": torch.eye(4), "from_basis/output": torch.eye(4)})

    @pytest.mark.parametrize("content", [None, b"", b"no safetensors at all"])
    def test_no_readable_file_before_anything_is_computed(self, setting: Setting, content: bytes | None) -> None:
        if content is not None:
            setting.path.write_bytes(content)
        expected = "no such file; expected safetensors with" if content is None else "not readable as safetensors"
        with pytest.raises(ValueError, match=expected) as raised:
            METHODS["file"].refuse(FitSettings(), {"path": setting.path})
        assert str(raised.value).startswith(f"method.path={setting.path}: ")
        assert "\n" not in str(raised.value)

    def test_a_folder(self, setting: Setting, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="is a directory"):
            fit(setting.chain, setting.inputs, "file", path=tmp_path)

    def test_no_path(self, setting: Setting) -> None:
        with pytest.raises(ValueError, match=r"^path: method file needs it; expected path=$"):
            fit(setting.chain, setting.inputs, "file")


def test_the_file_itself_is_left_as_it_is(setting: Setting, rotations: Tensors) -> None:
    setting.graph(rotations)
    assert load_file(setting.path).keys() == rotations.keys()
