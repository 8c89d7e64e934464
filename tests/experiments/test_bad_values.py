"""A value, a name or a combination that makes no sense is refused in one line before anything starts."""

from __future__ import annotations

import pytest
from running import MID, NODE_LAYERS, OUTPUT, PRE, TOY, TOY_MODELS, assert_says


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
            (
                "method=libb",
                ("method=libb", "did you mean lib?", "file, gradient_pca, ica, ", "svd, varimax, whitened_pca"),
            ),
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

    @pytest.mark.parametrize(
        "argument", ["seed", "=1", "seed=[1", "+", "\\", 'seed="1', "seed=<1>", "--no-such-option"]
    )
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
            ("model.training.batch_size=0", "greater than or equal to 1"),
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
            ("tracking.project=", "expected a text"),
        ],
    )
    def test_key_value_and_what_would_be_right_are_named(self, refused, argument, expected):
        assert_says(refused(argument), f"{argument}: ", expected)

    def test_an_entry_of_a_list_is_named_by_its_place(self, refused):
        line = refused("analysis.tolerances=[0.01,-0.1]")
        assert_says(line, "analysis.tolerances[1]=-0.1", "greater than or equal to 0")

    def test_an_option_s_name_set_by_hand(self, refused):
        assert_says(refused("method.name=libb"), "method.name=libb", "did you mean lib?", "lib, lib_integrated")
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
            (
                ["analysis.communities.edge_weight=log", "analysis.ablate.edges=[]"],
                ("communities.edge_weight=log", "ablate.edges=null"),
            ),
            (["method=pca", "method.jacobian=path"], ("method.jacobian",)),
            (["method.name=pca"], ("method.jacobian",)),
            (["analysis.truncation=2"], ("truncation=2", "under 1")),
            (
                ["analysis.tolerances=[0.1,0.10]"],
                ("analysis.tolerances=", "0.1 and 0.1 are both 0.1", "expected each once"),
            ),
            (["analysis.tolerances=[0,1e-14]"], ("0 and 1e-14 are both 0 in the metrics' keys",)),
            (["analysis.tolerances=[1e-14]"], ("1e-14 is 0 in the metrics' keys; expected 0, or at least 1e-12",)),
            (["analysis.tolerances=[0.01,5]"], ("analysis.tolerances=[0.01, 5.0]", "expected shares, up to 1")),
            (["analysis.tolerances=[1e300]"], ("analysis.tolerances[0]=1e+300", "less than or equal to 1000")),
            (["analysis.stages=[basis,basis]"], ("analysis.stages=", "basis is there twice")),
            (["method=lib", "method=pca"], ("method=lib method=pca: two options of one group; expected one",)),
            (["-m", "model=cifar10_mlp", "model=modular_addition"], ("two options of one group",)),
            (["hydra/launcher=basic", "hydra/launcher=joblib"], ("hydra/launcher=basic hydra/launcher=joblib: two",)),
            (["analysis.resamples=20"], ("resamples=20", "200 or more")),
            (["analysis.resamples=500", "analysis.ablate.node_search=bisection"], ("resamples=500", "=every")),
            (["analysis.resamples=500", "analysis.stages=[basis,edges]"], ("resamples=500", "expected ablation")),
        ],
    )
    def test_what_makes_no_sense_together(self, refused, arguments, expected):
        assert_says(refused(*arguments), *expected)

    @pytest.mark.parametrize("layers", [[OUTPUT, PRE], [PRE, PRE], [PRE, OUTPUT, MID]])
    def test_node_layers_out_of_order(self, refused, layers):
        assert_says(refused(f"analysis.node_layers=[{','.join(layers)}]"), *layers, "order", ", ".join(NODE_LAYERS))

    def test_a_single_node_layer(self, refused):
        assert_says(refused("analysis.node_layers=[output]"), "analysis.node_layers=['output']", "at least 2")

    def test_a_closed_form_that_there_is_not(self, refused):
        line = refused(
            "model=cifar10_cnn", *TOY_MODELS["cifar10_cnn"], "model.pooling=max", "analysis.estimator=closed_form"
        )
        assert_says(line, "analysis.estimator=closed_form", "no closed form", "auto", "exact")

    def test_ablated_node_layers_that_are_none(self, refused):
        line = refused("analysis.ablate.nodes=[blocks.0.hook_resid_prf]")
        assert_says(line, "analysis.ablate.nodes=blocks.0.hook_resid_prf", "did you mean blocks.0.hook_resid_pre")
        line = refused("analysis.ablate.edges=[output]")  # the last node layer, which no edges leave
        assert_says(line, "analysis.ablate.edges=output", "expected some of")

    def test_more_edge_examples_than_are_fitted_on(self, refused):
        line = refused("analysis.n_examples=20", "analysis.half=first", "analysis.n_edge_examples=11")
        assert_says(line, "analysis.n_edge_examples=11", "the basis is fitted on 10")

    def test_more_test_examples_than_there_are(self, refused):
        line = refused("model=cifar10_mlp", "model.dataset=digits", "analysis.n_test_examples=361")
        assert_says(line, "analysis.n_test_examples=361", "the test split has 360")

    def test_too_few_points_to_span_a_block(self, refused):
        line = refused("model=block_diagonal_mlp", "model.points_per_block=4")
        assert_says(line, "points_per_block=4", "expected more than block_width=4")

    def test_images_that_are_nowhere(self, refused, tmp_path):
        line = refused("model=cifar10_mlp", f"data.root={tmp_path / 'nowhere'}")
        assert_says(line, "cifar10", "no such folder", "data.root=", "uoft-cs/cifar10", "model.dataset=digits")

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (("model=block_diagonal_mlp", "analysis.n_test_examples=10"), "analysis.n_test_examples=10"),
            (("model=block_diagonal_mlp", "model.correlation=0.999999"), "expected at most 1e6"),
            (("model=block_diagonal_mlp", "model.n_blocks=100000"), "less than or equal to 20"),
            (
                (
                    "model=block_diagonal_mlp",
                    "model.n_blocks=2",
                    "model.block_width=20",
                    "model.points_per_block=21",
                ),
                "expected more points or a smaller width",
            ),
            (("model=cifar10_cnn", "model.training.batch_size=1"), "expects at least 2"),
            (("model=cifar10_mlp", "model.hidden_sizes=[10000000]"), "less than or equal to 8192"),
            (("seed=18446744073709551616",), "less than 4294967296"),
        ],
    )
    def test_what_could_not_be_carried_out(self, refused, arguments, expected):
        assert expected in refused(*arguments)
