"""A value, a name or a combination that makes no sense is refused in one line before anything starts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from running import MID, NODE_LAYERS, OUTPUT, PRE, TOY, assert_says, refusal

from libcore.chain import Chain
from libcore.sections import ClosedForm, FunctionSection
from models.modular_addition import model as modular_addition
from models.modular_addition.transformer import chain_of


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Calls the command in `tmp_path` with arguments that it must refuse; returns the one line that it says."""
    return partial(refusal, tmp_path, monkeypatch, capsys)


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("argument", "expected"),
        [
            ("model.modulsu=7", ("model.modulsu", "did you mean model.modulus?")),
            ("sed=1", ("sed", "did you mean seed?")),
            ("analysis.tolerance=[0.1]", ("analysis.tolerance", "did you mean analysis.tolerances?")),
            ("model.training.lr=1", ("model.training.lr", "--help")),
            ("+model.modulsu=7", ("model.modulsu", "did you mean model.modulus?")),
            ("+surprise=1", ("surprise", "--help")),
            ("methd=lib", ("methd", "did you mean method?")),
            ("method=libb", ("method=libb", "did you mean lib?", "lib, pca")),
            ("model=modular", ("model=modular", "did you mean modular_addition?")),
            ("experiment=dmo", ("experiment=dmo", "did you mean demo?")),
            ("analysis=quick", ("analysis=quick", "expected one of default")),
            ("analysis.node_layers=[blocks.0.resid_pre,output]", ("blocks.0.resid_pre", f"did you mean {PRE}?")),
        ],
    )
    def test_the_nearest_name_is_suggested(self, refused, argument, expected):
        assert_says(refused(argument), *expected)

    @pytest.mark.parametrize("argument", ["~seed", "~method", "~tracking.mode", "~model.modulus", "seed=???"])
    def test_a_key_that_was_taken_away_is_named(self, refused, argument):
        assert_says(refused(argument), argument.strip("~?="))

    @pytest.mark.parametrize("argument", ["seed", "=1", "seed=[1"])
    def test_what_is_no_override_is_repeated(self, refused, argument):
        assert_says(refused(argument), argument)


class TestValues:
    @pytest.mark.parametrize(
        ("argument", "expected"),
        [
            ("model.modulus=1", "greater than or equal to 2"),
            ("model.modulus=seven", "integer"),
            ("model.modulus=7.5", "integer"),
            ("model.n_heads=0", "greater than or equal to 1"),
            ("model.train_fraction=1", "less than 1"),
            ("model.training.learning_rate=inf", "finite"),
            ("model.training.target_accuracy=nan", "1"),
            ("seed=-1", "greater than or equal to 0"),
            ("seed=1.5", "integer"),
            ("dtype=float16", "float64"),
            ("device=gpu", "auto, cpu, cuda or cuda:N"),
            ("analysis.stages=basis", "list"),
            ("analysis.tolerances=0.1", "list"),
            ("analysis.integration=gauss-legendre", "did you mean gauss_legendre?"),
            ("analysis.n_points=0", "greater than or equal to 1"),
            ("analysis.truncation=-1", "greater than or equal to 0"),
            ("analysis.memory_budget=12", "at least 1MB"),
            ("analysis.memory_budget=lots", "such as 128MB"),
            ("analysis.memory_budget=1.5", "expected"),
            ("tracking.mode=ofline", "did you mean offline?"),
            ("tracking.project=", "at least 1 character"),
        ],
    )
    def test_key_value_and_what_would_be_right_are_named(self, refused, argument, expected):
        assert_says(refused(argument), f"{argument}: ", expected)

    def test_an_entry_of_a_list_is_named_by_its_place(self, refused):
        line = refused("analysis.tolerances=[0.01,-0.1]")
        assert_says(line, "analysis.tolerances[1]=-0.1", "greater than or equal to 0")

    def test_an_option_s_name_set_by_hand(self, refused):
        assert_says(refused("method.name=svd"), "method", "svd", "'lib'", "'pca'")
        assert_says(refused("method=null"), "method")

    def test_an_interpolation_of_nothing(self, refused):
        assert_says(refused("tracking.group=${surprise}"), "surprise")

    def test_a_split_that_would_be_empty(self, refused):
        assert_says(refused("model.modulus=3", "model.train_fraction=0.1"), "train_fraction=0.1", "9 pairs")

    def test_more_examples_than_the_training_split_has(self, refused):
        """39 of the toy's 49 pairs are for training."""
        assert_says(refused(*TOY, "analysis.n_examples=40"), "analysis.n_examples=40", "39")


class TestCombinations:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["method.jacobian=path"], ("method.jacobian=path", "analysis.integration=gradient", "trapezoidal")),
            (["analysis.n_points=5"], ("n_points=5", "integration=gradient", "trapezoidal")),
            (["analysis.stages=[edges]"], ("stages=['edges']", "expected basis")),
            (["analysis.stages=[ablation,edges]"], ("stages=", "expected basis")),
            (
                ["analysis.communities.edge_weight=log", "analysis.stages=[basis,edges]"],
                ("communities.edge_weight=log", "ablation"),
            ),
            (["method=pca", "method.jacobian=path"], ("method.jacobian",)),
            (["method.name=pca"], ("method.jacobian",)),
            (["analysis.truncation=2"], ("truncation=2", "under 1")),
        ],
    )
    def test_what_makes_no_sense_together(self, refused, arguments, expected):
        assert_says(refused(*arguments), *expected)

    @pytest.mark.parametrize("layers", [[OUTPUT, PRE], [PRE, PRE], [PRE, OUTPUT, MID]])
    def test_node_layers_out_of_order(self, refused, layers):
        assert_says(refused(f"analysis.node_layers=[{','.join(layers)}]"), *layers, "order", ", ".join(NODE_LAYERS))

    def test_a_single_node_layer(self, refused):
        assert_says(refused("analysis.node_layers=[output]"), "analysis.node_layers=['output']", "at least 2")

    def test_a_closed_form_that_there_is_not(self, refused, monkeypatch):
        monkeypatch.setattr(modular_addition, "chain_of", chain_that_begins_with_an_unknown_section)
        line = refused(*TOY, "analysis.estimator=closed_form")
        assert_says(line, "analysis.estimator=closed_form", "FunctionSection", "auto", "exact")


def chain_that_begins_with_an_unknown_section(*arguments) -> Chain:
    chain = chain_of(*arguments)
    first = FunctionSection(chain.sections[0])
    assert not isinstance(first, ClosedForm)
    return replace(chain, sections=(first, *chain.sections[1:]))
