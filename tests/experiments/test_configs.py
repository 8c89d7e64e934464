"""Every option of every group is a valid configuration, and every named experiment runs."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel
from running import STORIES, TOY_MODELS, config_of, configs_of

from experiments.config.folder import CONFIG_DIRECTORY
from experiments.config.schema import RunConfig
from experiments.config.scores import TOLERANCES
from experiments.pipeline.json_files import write_json
from experiments.pipeline.run_pipeline import run_pipeline
from experiments.reporting.report_files import write_report
from libcore.methods import METHODS
from models import model_kinds, schema_of


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIRECTORY / group).glob("*.yaml"))


def chosen(method: str) -> list[str]:
    """Overrides that choose a method, with what it cannot do without."""
    return [f"method={method}", *(["method.path=basis.safetensors"] if method == "file" else [])]


EXPERIMENTS = options("experiment")


def models_within(annotation) -> set[type[BaseModel]]:
    """Every pydantic model that a type mentions, through unions, lists and annotations."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        return {annotation}.union(*(models_within(field.annotation) for field in fields))
    return set().union(*(models_within(argument) for argument in get_args(annotation)))


@pytest.mark.parametrize(("model", "method"), list(product(options("model"), options("method"))))
def test_every_model_with_every_method(model, method):
    config = config_of(f"model={model}", *chosen(method))
    assert (config.model.kind, config.method.name) == (model, method)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("method", options("method"))
def test_every_experiment_with_every_method(experiment, method):
    configs = configs_of(f"experiment={experiment}", *chosen(method))
    assert {config.method.name for config in configs} == {method}
    assert len({config.model.kind for config in configs}) == 1
    # All runs of an experiment differ, in its seed or in what else it sweeps over.
    assert len({config.model_dump_json() for config in configs}) == len(configs)


@pytest.mark.parametrize(
    ("group", "option"), [(group, option) for group in ("analysis", "tracking") for option in options(group)]
)
def test_every_other_option(group, option):
    assert len(configs_of(f"{group}={option}")) == 1


def test_options_are_called_as_what_they_choose():
    assert set(options("model")) == set(model_kinds())
    assert set(options("method")) == set(METHODS)
    for group, key in (("model", "kind"), ("method", "name")):
        for option in options(group):
            assert yaml.safe_load((CONFIG_DIRECTORY / group / f"{option}.yaml").read_text())[key] == option


def test_the_schema_has_no_defaults_of_its_own():
    """A key that the YAML files leave out is then refused, as is one that the schema does not know."""
    schemas = models_within(RunConfig).union(*(models_within(schema_of(kind)) for kind in model_kinds()))
    optional = [
        f"{model.__module__}.{model.__name__}.{name}"
        for model in schemas
        for name, field in model.model_fields.items()
        # Models of other packages need not name a control; all of the project's do.
        if not (field.is_required() or name == "randomize")
    ]
    assert optional == []
    for path in (CONFIG_DIRECTORY / "model").glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["randomize"] is None
    assert {model.model_config.get("extra") for model in schemas} == {"forbid"}


def test_validation_changes_no_value():
    config = config_of()
    top = yaml.safe_load((CONFIG_DIRECTORY / "config.yaml").read_text())
    written = {key: value for key, value in top.items() if key not in ("defaults", "hydra")}
    chosen = {
        group: option
        for entry in top["defaults"]
        if entry != "_self_"
        for group, option in entry.items()
        if "hydra/" not in group
    }
    assert chosen.pop("experiment") is None
    for group, option in chosen.items():
        written[group] = yaml.safe_load((CONFIG_DIRECTORY / group / f"{option}.yaml").read_text())
    assert config.model_dump() == written


def test_the_defaults_are_the_paper_s():
    config = config_of()
    model, analysis = config.model, config.analysis
    assert (model.modulus, model.d_model, model.n_heads, model.d_head, model.d_mlp) == (113, 128, 4, 32, 512)
    assert (model.train_fraction, model.split_seed, model.checkpoint) == (0.3, 0, None)
    assert (analysis.integration, analysis.n_points, analysis.n_examples) == ("gradient", None, None)
    assert (config.dtype, analysis.ablation_dtype) == ("float64", "float32")
    assert 0.001 in TOLERANCES["accuracy"]
    assert (config.tracking.mode, config.tracking.artifacts) == (None, False)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_s_file_says_how_to_run_it(experiment):
    text = (CONFIG_DIRECTORY / "experiment" / f"{experiment}.yaml").read_text()
    assert f"python -m experiments.run experiment={experiment}\n" in text


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs_at_toy_size_and_its_runs_are_comparable(experiment, tmp_path):
    (kind,) = {config.model.kind for config in configs_of(f"experiment={experiment}")}
    if kind == "pretrained_transformer" and not STORIES.is_dir():
        pytest.skip("the pretrained model is not there")
    small = (*TOY_MODELS[kind], "analysis.stages=[basis]", "tracking.mode=disabled", f"output_directory={tmp_path}")
    small = (*small, "model.checkpoint=null")  # the paper's own weights are of another size
    # More seeds are more of the same.
    planned = [config for config in configs_of(f"experiment={experiment}", *small) if config.seed < 3]
    for number, config in enumerate(planned):
        directory = tmp_path / "runs" / str(number)
        run_pipeline(config, directory, sweep=None)
        write_json(directory / "status.json", {"status": "finished"})
    report = write_report([tmp_path / "runs"], tmp_path / "report")
    assert report.unfinished == []
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for config in planned:
        half = f" {config.analysis.half} |" if config.analysis.half is not None else ""
        assert f"| {config.method.name} | {config.seed} |{half}" in text
