"""A model joins from outside the source tree: by a function that makes it, or by an installed package with a room."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from added_models import MODULE, own_config, own_folder, plain_config, write_module, write_package
from hydra import initialize_config_dir
from pydantic import ValidationError
from running import assert_same_tensors, assert_says, read_json, reused, tensors_of
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from experiments.config.explanations import explain_validation
from experiments.config.folder import CONFIG_DIRECTORY
from experiments.config.model_checks import check_model
from experiments.config.schema import RunConfig
from experiments.pipeline.run_pipeline import run_pipeline
from models import model_kinds
from models.errors import UserError
from models.room import room_of

__all__ = ["own_folder"]

MINE = {"kind": "mine", "factory": "my_models:make", "width": 4}
STAGES = ("model", "score", "statistics", "basis", "identification", "edges", "ablation", "names")


def run_of(folder: Path, name: str, config: RunConfig) -> Path:
    check_model(config)
    run_pipeline(config, folder / name, sweep=None)
    return folder / name


class TestFactory:
    def test_a_run_of_what_a_function_makes(self, own_folder):
        write_module(own_folder, MODULE)
        run = run_of(own_folder, "run", own_config(own_folder, MINE))
        metrics, features = read_json(run / "metrics.json"), read_json(run / "features.json")
        assert (metrics["score/train"], metrics["score/test"]) == (1.0, 1.0)
        assert list(features["labels"]) == ["inputs", "hidden", "logits"]
        assert features["labels"]["inputs"] == ["constant", "feature 1", "feature 2", "feature 3"]
        assert metrics["features/needed_0.001/hidden"] <= metrics["features/kept/hidden"]
        own = room_of(own_config(own_folder, MINE).model_settings).own
        first = load_file(run / "model.safetensors")["sections.0.weight_in"]
        assert torch.equal(first, own.model.sections[0].weight_in.double())
        found, inputs = tensors_of(run)["mean/inputs"][:-1], own.train.inputs
        torch.testing.assert_close(found, inputs.double().mean(0), rtol=1e-6, atol=1e-6)

    def test_what_changes_the_model_makes_its_stages_anew(self, own_folder):
        write_module(own_folder, MODULE)
        first = run_of(own_folder, "first", own_config(own_folder, MINE))
        again = run_of(own_folder, "again", own_config(own_folder, MINE))
        assert reused(again) == dict.fromkeys(STAGES, True)
        assert_same_tensors(tensors_of(again), tensors_of(first))
        for name, source, config in (
            ("seed", MODULE, own_config(own_folder, MINE, seed=1)),
            ("argument", MODULE, own_config(own_folder, MINE | {"width": 5})),
            ("labels", MODULE, own_config(own_folder, MINE | {"noise": 1.0})),
            ("source", MODULE + "\n# changed\n", own_config(own_folder, MINE)),
            ("function", MODULE.replace("torch.relu", "torch.tanh"), own_config(own_folder, MINE)),
        ):
            write_module(own_folder, source)
            assert reused(run_of(own_folder, name, config)) == dict.fromkeys(STAGES, False), name

    def test_code_beside_the_function_s_own_is_seen(self, own_folder):
        write_module(own_folder, MODULE, "networks")
        write_module(own_folder, "from networks import make\n")
        config = own_config(own_folder, MINE)
        before = room_of(config.model_settings).depends_on
        write_module(own_folder, MODULE.replace("torch.relu", "torch.tanh"), "networks")
        write_module(own_folder, "from networks import make\n")
        after = room_of(config.model_settings).depends_on
        assert before["source"] != after["source"]
        assert before["activations"] != after["activations"]

    def test_a_function_that_takes_no_seed_makes_one_model(self, own_folder):
        write_module(own_folder, f"{MODULE}\ndef one():\n    return make(3, 0)\n")
        model = {"kind": "mine", "factory": "my_models:one"}
        run_of(own_folder, "first", own_config(own_folder, model, seed=0))
        assert reused(run_of(own_folder, "second", own_config(own_folder, model, seed=1))) == dict.fromkeys(
            STAGES, True
        )

    def test_fewer_node_layers(self, own_folder):
        write_module(own_folder, MODULE)
        config = own_config(own_folder, MINE, analysis={"node_layers": ["inputs", "log*"], "stages": ["basis"]})
        assert {name.partition("/")[2] for name in tensors_of(run_of(own_folder, "run", config))} == {
            "inputs",
            "logits",
        }

    def test_a_module_is_taken_apart(self, own_folder):
        write_module(
            own_folder,
            f"""{MODULE}
from torch import nn

def module():
    torch.manual_seed(0)
    net, inputs = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(30, 3)
    labels = net(inputs).argmax(1)
    return OwnModel(net, accuracy(inputs[:20], labels[:20]), accuracy(inputs[20:], labels[20:]))
""",
        )
        config = own_config(own_folder, {"kind": "mine", "factory": "my_models:module"})
        run = run_of(own_folder, "run", config)
        net = room_of(config.model_settings).own.model
        assert isinstance(net, nn.Module)
        assert_same_tensors(load_file(run / "model.safetensors"), dict(net.state_dict()))
        assert read_json(run / "metrics.json")["score/test"] == 1.0

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ("* torch.nan", "weight 0.weight holds numbers that are not finite"),
            (".to(torch.complex64)", "weight 0.weight has dtype complex64; expected float16"),
            (".to('meta')", "weight 0.weight is a meta tensor"),
        ],
    )
    def test_a_module_s_weights_are_looked_at_first(self, own_folder, change, expected):
        write_module(
            own_folder,
            f"""{MODULE}
from torch import nn

def module():
    net, inputs, labels = nn.Sequential(nn.Linear(3, 2)), torch.randn(30, 3), torch.ones(30, dtype=torch.int64)
    net[0].weight = nn.Parameter(net[0].weight.detach(){change})
    return OwnModel(net, accuracy(inputs, labels), accuracy(inputs, labels))
""",
        )
        with pytest.raises(UserError) as error:
            check_model(own_config(own_folder, {"kind": "mine", "factory": "my_models:module"}))
        assert_says(str(error.value), "model.factory=my_models:module", expected)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"factory": "my_models"}, ("model.factory=my_models: expected package.module:function",)),
            (
                {"factory": "nowhere:make"},
                ("nowhere cannot be imported: ModuleNotFoundError: No module named",),
            ),
            ({"factory": "my_models:mak"}, ("my_models has no function mak (did you mean make?)",)),
            ({"factory": "my_models:number"}, ("my_models has no function number",)),
            ({"factory": "broken:make"}, ("broken cannot be imported: SyntaxError",)),
            ({"widht": 5}, ("unknown configuration key model.widht (did you mean model.width?)", "takes width, seed")),
            ({"checkpoint": "weights.pt"}, ("model.checkpoint=weights.pt", "loads its own weights; expected null")),
            ({"kind": "a/b"}, ("model.kind=a/b", "expected letters")),
            ({"kind": "cifar10_mlp"}, ("model.kind=cifar10_mlp: is another model", "name of its own")),
            ({"factory": "my_models:nothing"}, ("model.factory=my_models:nothing: returns int; expected", "OwnModel")),
            ({"factory": "my_models:fails"}, ("fails: ZeroDivisionError: division by zero (my_models.py, line ",)),
            ({"factory": "my_models:no_chain"}, ("its model gives int; expected a Chain",)),
            ({"factory": "my_models:no_constant"}, ("ValueError: inputs: the last coordinate is 3;",)),
            ({"factory": "my_models:wrong_sizes"}, ("wrong_sizes: RuntimeError: mat1 and mat2",)),
            ({"factory": "my_models:empty"}, ("a split without inputs",)),
            ({"factory": "my_models:error"}, ("analysis.tolerances=null", "accuracy, cross-entropy", "model's error")),
        ],
        ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
    )
    def test_one_line_says_what_is_to_be_mended(self, own_folder, change, expected):
        write_module(own_folder, "def make(:\n", "broken")
        write_module(
            own_folder,
            f"""{MODULE}
from dataclasses import replace

number = 3

def nothing(width):
    return 1

def fails(width):
    return 1 / 0

def no_chain(width):
    return replace(make(3, 0), model=lambda dtype: 1)

def no_constant(width):
    own = make(3, 0)
    return replace(own, model=replace(own.model, embed=lambda inputs: torch.full((len(inputs), 1, 4), 3.0)))

def wrong_sizes(width):
    own = make(3, 0)
    return replace(own, model=replace(own.model, embed=lambda inputs: torch.ones(len(inputs), 1, 5)))

def empty(width):
    own = make(3, 0)
    return replace(own, test=own.test.first(0))

def error(width):
    own = make(3, 0)
    return replace(own, test=replace(own.test, score_name="error"))
""",
        )
        assert_says(refusal(plain_config(own_folder, MINE | change)), *expected)

    def test_a_parameter_without_a_value(self, own_folder):
        write_module(own_folder, MODULE)
        model = {"kind": "mine", "factory": "my_models:make"}
        assert_says(refusal(plain_config(own_folder, model)), "configuration key model.width is missing")

    def test_other_parts_of_the_configuration(self, own_folder):
        write_module(own_folder, MODULE)
        text = plain_config(own_folder, MINE, data={"path": "text.txt"})
        assert refusal(text) == "data.path=text.txt: model=mine reads no text; expected null"
        layers = plain_config(own_folder, MINE, analysis={"node_layers": ["input", "logits"]})
        assert_says(refusal(layers), "analysis.node_layers=input: no such node layer (did you mean inputs?)")
        many = plain_config(own_folder, MINE, analysis={"n_examples": 21})
        assert_says(refusal(many), "analysis.n_examples=21: the training split has 20")

    @pytest.mark.parametrize(
        ("entry_point", "expected"),
        [
            ("tiny = tiny_package.schema:Schema", "cannot be imported"),
            ("tiny = tiny_package.nothing:TinySchema", "cannot be imported"),
            ("tiny = tiny_package.networks:make", "is no schema"),
        ],
    )
    def test_an_entry_point_that_is_none(self, own_folder, entry_point, expected):
        write_package(own_folder, entry_point)
        assert_says(refusal(plain_config(own_folder, {"kind": "tiny", "width": 3})), "model.kind=tiny", expected)


def refusal(plain: dict) -> str:
    """The one line that a configuration is refused with."""
    try:
        check_model(RunConfig.model_validate(plain))
    except UserError as error:
        line = str(error)
    except ValidationError as error:
        with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
            line = explain_validation(error)
    else:
        pytest.fail("it was accepted")
    assert "\n" not in line
    return line


class TestInstalledPackage:
    TINY = {"kind": "tiny", "checkpoint": None, "width": 4}  # noqa: RUF012 - never changed

    def test_a_run_of_a_room_that_a_package_adds(self, own_folder):
        write_package(own_folder)
        assert model_kinds()["tiny"] == "tiny_package.schema:TinySchema"
        run = run_of(own_folder, "run", own_config(own_folder, self.TINY))
        assert read_json(run / "features.json")["labels"]["hidden"][0] == "tiny"
        assert read_json(run / "metrics.json")["score/test"] == 1.0
        with safe_open(run / "model.safetensors", "pt") as file:
            assert file.metadata() == {"made by": "hand"}
        again = run_of(own_folder, "again", own_config(own_folder, self.TINY))
        assert reused(again) == dict.fromkeys(STAGES, True)

    def test_its_stages_are_made_anew_when_its_source_changes(self, own_folder):
        write_package(own_folder)
        config = own_config(own_folder, self.TINY)
        before = room_of(config.model_settings).source_hash()
        (own_folder / "tiny_package" / "networks.py").write_text(MODULE + "\n# changed\n")
        assert room_of(config.model_settings).source_hash() != before

    def test_its_schema_is_as_strict_as_any(self, own_folder):
        write_package(own_folder)
        assert refusal(plain_config(own_folder, self.TINY | {"width": 0})).startswith("model.width=0: expected greater")
        assert_says(
            refusal(plain_config(own_folder, self.TINY | {"depth": 1})), "unknown configuration key model.depth"
        )
        checkpoint = plain_config(own_folder, self.TINY | {"checkpoint": "x.pt"})
        assert_says(refusal(checkpoint), "model.checkpoint=x.pt: model=tiny has no checkpoints; expected null")
