"""Settings of a report: what splits runs, what they are called, and the keys that a sweep varied as columns."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from running import FEW_METRICS, MID, PRE, config_of, few_settings, files_below, write_run

from experiments.config.schema import RunConfig
from experiments.figures.hyperparameter_values import distinct, is_numeric, value_text
from experiments.figures.hyperparameters import hyperparameter_figure
from experiments.pipeline.metric_keys import MetricKey, parse_metric
from experiments.report import write_and_print
from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.report_files import write_report
from experiments.reporting.settings import WITHOUT_EFFECT, defaults_of, flat, identity, is_below, setting_of


def with_key(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The configuration with one dotted key set."""
    group, _, name = key.rpartition(".")
    return config | ({group: config[group] | {name: value}} if group else {name: value})


def whole_config(*overrides: str) -> dict[str, Any]:
    return config_of("model=modular_addition", *overrides).model_dump()


def run_of(config: dict[str, Any]) -> FinishedRun:
    return FinishedRun(Path("."), config, {})


class TestWhatSplitsRuns:
    @pytest.mark.parametrize(
        "override",
        [
            "analysis.memory_budget=1GB",
            "analysis.resamples=200",
            "analysis.stages=[basis,edges,ablation]",
            "data.root=elsewhere",
            "device=cpu",
            "output_directory=elsewhere",
            "tracking.mode=disabled",
            "tracking.tags=[a]",
            "seed=3",
            "method=pca",
        ],
    )
    def test_not_what_no_number_depends_on(self, override):
        assert identity(run_of(whole_config(override))) == identity(run_of(whole_config()))

    @pytest.mark.parametrize(
        "override",
        [
            "analysis.integration=gauss_legendre",
            "analysis.truncation=1e-12",
            "analysis.n_examples=10",
            "analysis.half=first",
            "analysis.communities.resolution=2",
            "analysis.estimator=exact",
            "data.path=text",
            "dtype=float32",
            "model.modulus=59",
            "model.training.max_steps=7",
        ],
    )
    def test_everything_else(self, override):
        config = whole_config()
        key, _, value = override.partition("=")
        name = key.partition(".")[2]
        if key == "data.path":  # this model reads no text, others do
            other = with_key(config, key, value)
        elif name == "training.max_steps":
            training = config["model"]["training"] | {"max_steps": 7}
            other = config | {"model": config["model"] | {"training": training}}
        else:
            other = whole_config(override)
        assert identity(run_of(other)) != identity(run_of(config))

    def test_stages_split_where_the_weight_of_edges_comes_from_the_ablation(self):
        without = whole_config("analysis.stages=[basis,edges]")
        setting = setting_of(run_of(without))
        assert setting["analysis.communities.edge_weight"] == "sqrt"
        assert identity(run_of(without)) != identity(run_of(whole_config()))
        same = whole_config("analysis.communities.edge_weight=sqrt")
        assert identity(run_of(without)) == identity(run_of(same))

    def test_keys_of_the_list_are_the_configuration_s_or_belong_to_the_command(self):
        known = flat(config_of("model=modular_addition").model_dump())
        beside = {"hydra", "threads", "objective", "analysis.estimate_only"}
        assert [key for key in WITHOUT_EFFECT if not any(is_below(name, [key]) for name in known)] == [
            key for key in WITHOUT_EFFECT if key in beside - known.keys()
        ]

    @pytest.mark.parametrize("key", ["analysis.integration", "analysis.probes", "dtype", "model.modulus"])
    def test_a_key_that_an_older_run_lacks_is_at_its_default(self, key):
        config = whole_config()
        older = {name: dict(part) if isinstance(part, dict) else part for name, part in config.items()}
        group, _, name = key.rpartition(".")
        del (older[group] if group else older)[name]
        assert identity(run_of(older)) == identity(run_of(config))

    def test_and_apart_from_a_run_with_another_value(self):
        older = whole_config("model.modulus=59")
        del older["model"]["modulus"]
        assert identity(run_of(older)) != identity(run_of(whole_config("model.modulus=59")))

    def test_a_model_of_the_user_s_own_has_no_defaults(self):
        assert not any(key.startswith("model.") for key in defaults_of("somebody_s"))
        assert defaults_of("modular_addition")["model.modulus"] == 113


class TestTitles:
    def sweep(self, tmp_path: Path) -> None:
        number = 0
        for integration in ("gradient", "gauss_legendre"):
            for truncation in (1e-15, 1e-12):
                for method, score in (("lib", 0.5), ("pca", 0.25)):
                    analysis = {
                        "integration": integration,
                        "truncation": truncation,
                        "memory_budget": f"{number + 1}MB",
                    }
                    config = few_settings(method, 0) | {"analysis": analysis}
                    write_run(tmp_path / "runs" / str(number), config, FEW_METRICS | {"score/test": score})
                    number += 1

    def test_a_sweep_over_two_keys_names_both_with_a_plot_each(self, tmp_path):
        self.sweep(tmp_path)
        report = write_report([tmp_path / "runs"], tmp_path / "report")
        titles = [section.title for section in report.sections]
        assert titles == [
            f"modular_addition: analysis.integration={integration}, analysis.truncation={truncation}"
            for integration in ("gauss_legendre", "gradient")
            for truncation in ("1e-15", "1e-12")
        ]
        text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
        assert all(f"## {title}\n" in text for title in titles)
        for key in ("analysis.integration", "analysis.truncation"):
            assert f"](figures/sweep_{key}.png)" in text
            assert (tmp_path / "report" / "figures" / f"sweep_{key}.png").is_file()
        assert {"report_1.csv", "report_4.csv"} <= files_below(tmp_path / "report")

    def test_the_overview_has_a_column_for_each_key_and_a_row_for_each_method(self, tmp_path):
        self.sweep(tmp_path)
        report = write_report([tmp_path / "runs"], tmp_path / "report")
        (model,) = report.models
        assert model.overview is not None
        head, *rows = model.overview.texts()
        measures = ["test score", "features needed, 0.001", "modularity"]
        assert head == ["analysis.integration", "analysis.truncation", "method", "n", *measures]
        assert rows[0] == ["gauss_legendre", "1e-15", "LIB", "1", "0.5", "12", "–"]
        assert rows[3] == ["gauss_legendre", "1e-12", "PCA", "1", "0.25", "12", "–"]
        assert len(rows) == 8

    def test_one_setting_is_called_by_its_model_alone_and_has_no_overview(self, tmp_path):
        write_run(tmp_path / "runs" / "lib", few_settings("lib", 0))
        (model,) = write_report([tmp_path / "runs"], tmp_path / "report").models
        assert ([section.title for section in model.sections], model.overview) == (["modular_addition"], None)

    def test_settings_stand_in_the_order_of_their_values(self, tmp_path):
        for n_examples in (100, 20, None, 3):
            config = few_settings("lib", 0) | {"analysis": {"n_examples": n_examples}}
            write_run(tmp_path / "runs" / f"n{n_examples}", config)
        report = write_report([tmp_path / "runs"], tmp_path / "report")
        values = [section.title.partition("=")[2] for section in report.sections]
        assert values == ["3", "20", "100", "null"]

    def test_models_are_told_apart_before_their_keys(self, tmp_path):
        write_run(tmp_path / "runs" / "a", few_settings("lib", 0, modulus=59))
        write_run(tmp_path / "runs" / "b", few_settings("lib", 0, modulus=113))
        write_run(tmp_path / "runs" / "c", few_settings("lib", 0, kind="block_diagonal_mlp"))
        report = write_report([tmp_path / "runs"], tmp_path / "report")
        titles = ["block_diagonal_mlp", "modular_addition: model.modulus=59", "modular_addition: model.modulus=113"]
        assert [section.title for section in report.sections] == titles

    def test_counts_are_summed_over_all_layers_of_the_setting(self, tmp_path):
        more = FEW_METRICS | {f"features/needed_0.001/{MID}": 3}
        for name, budget, metrics in (("a", 1, more), ("b", 2, FEW_METRICS)):
            write_run(tmp_path / "runs" / name, few_settings("lib", budget), metrics)
        config = few_settings("lib", 0) | {"dtype": "float32"}
        write_run(tmp_path / "runs" / "c", config, more)
        (model,) = write_report([tmp_path / "runs"], tmp_path / "report").models
        assert model.overview is not None
        column = model.overview.head.index("features needed, 0.001")
        assert [row[column].text for row in model.overview.rows] == ["15", "15"]
        assert [row[2].text for row in model.overview.rows] == ["1", "2"]

    def test_keys_that_took_their_values_together_share_a_plot(self, tmp_path):
        for number, (modulus, width) in enumerate(((59, 64), (113, 128))):
            for n_examples in (10, 20):
                config = few_settings("lib", 0, modulus=modulus, d_model=width)
                write_run(
                    tmp_path / "runs" / f"{number}_{n_examples}", config | {"analysis": {"n_examples": n_examples}}
                )
        (model,) = write_report([tmp_path / "runs"], tmp_path / "report").models
        assert list(model.figures) == [
            "Against analysis.n_examples",
            "Against model.modulus, and with it model.d_model",
        ]

    def test_a_terminal_s_table_of_many_keys_has_one_column_for_them(self, tmp_path, capsys):
        for number, change in enumerate(({}, {"modulus": 59, "d_model": 64, "n_heads": 2, "d_mlp": 256})):
            write_run(tmp_path / "runs" / str(number), few_settings("lib", 0, **change))
        write_and_print([tmp_path / "runs"], tmp_path / "report")
        lines = [line.strip("│┃ \n") for line in capsys.readouterr().out.splitlines()]
        (head,) = (line for line in lines if line.startswith("setting"))
        assert [part.strip() for part in head.split("┃")][:3] == ["setting", "method", "n"]
        found = {line.split("│")[0].strip() for line in lines}
        assert {"modulus=59", "d_model=64", "n_heads=2", "d_mlp=256", "modulus=113", "d_model=128"} <= found

    def test_figures_of_very_many_settings_are_left_out_and_it_is_said(self, tmp_path, monkeypatch):
        monkeypatch.setattr("experiments.reporting.contents.MOST_DRAWN", 2)
        self.sweep(tmp_path)
        write_report([tmp_path / "runs"], tmp_path / "report")
        text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
        assert text.count("No figures: only the first 2 settings") == 2


class TestOptionsOfAMethod:
    def report(self, tmp_path: Path):
        """A method with an option at two values in two settings, beside one without."""
        for number in (1, 2):
            for power in (1, 8):
                part = {"name": "mine", "function": "my:fit", "label": "Mine", "power": power, "rule": "a"}
                config = few_settings("lib", 0) | {"analysis": {"n_examples": number}, "method": part}
                write_run(tmp_path / "runs" / f"mine{number}{power}", config, FEW_METRICS | {"score/test": power / 8})
            config = few_settings("pca", 0) | {"analysis": {"n_examples": number}}
            write_run(tmp_path / "runs" / f"pca{number}", config)
        return write_report([tmp_path / "runs"], tmp_path / "report")

    def test_what_differs_is_a_column(self, tmp_path):
        (model,) = self.report(tmp_path).models
        assert model.overview is not None
        head, *rows = model.overview.texts()
        assert head[:4] == ["analysis.n_examples", "method.power", "method", "n"]
        assert [row[:3] for row in rows[:3]] == [
            ["1", "–", "PCA"],
            ["1", "1", "Mine (power=1)"],
            ["1", "8", "Mine (power=8)"],
        ]

    def test_and_has_a_plot_of_the_methods_that_have_it(self, tmp_path, monkeypatch):
        drawn = {}

        def figure(runs, key, measures):
            drawn[key] = runs
            return hyperparameter_figure(runs, key, measures)

        monkeypatch.setattr("experiments.figures.hyperparameters.hyperparameter_figure", figure)
        self.report(tmp_path)
        assert list(drawn) == ["analysis.n_examples", "method.power"]
        assert {run.group for run in drawn["method.power"]} == {"Mine"}
        found = {(run.values["method.power"], run.measures["test score"]) for run in drawn["method.power"]}
        assert found == {(1, 0.125), (8, 1.0)}
        assert {run.group for run in drawn["analysis.n_examples"]} == {"pca", "Mine (power=1)", "Mine (power=8)"}
        assert (tmp_path / "report" / "figures" / "sweep_method.power.png").is_file()

    def test_and_is_in_the_long_table(self, tmp_path):
        self.report(tmp_path)
        text = (tmp_path / "report" / "metrics.csv").read_text(encoding="utf-8")
        rows = list(csv.DictReader(text.splitlines()))
        assert {(row["method"], row["method.power"]) for row in rows} == {
            ("pca", ""),
            ("Mine (power=1)", "1"),
            ("Mine (power=8)", "8"),
        }


class TestLongTable:
    def rows(self, tmp_path: Path) -> list[dict[str, str]]:
        for number, truncation in enumerate((1e-15, 1e-12)):
            config = few_settings("lib", 7) | {"analysis": {"truncation": truncation, "half": "first"}}
            write_run(tmp_path / "runs" / str(number), config, FEW_METRICS | {"graph/modularity": None})
        write_report([tmp_path / "runs"], tmp_path / "report")
        return list(csv.DictReader((tmp_path / "report" / "metrics.csv").read_text(encoding="utf-8").splitlines()))

    def test_every_metric_of_every_run_is_a_row(self, tmp_path):
        rows = self.rows(tmp_path)
        assert len(rows) == 2 * (len(FEW_METRICS) + 1)
        row = next(row for row in rows if row["metric"] == f"features/needed_0.01/{PRE}")
        assert row == {
            "model": "modular_addition",
            "method": "lib",
            "seed": "7",
            "half": "first",
            "analysis.truncation": "1e-15",
            "metric": f"features/needed_0.01/{PRE}",
            "kind": "features/needed",
            "tolerance": "0.01",
            "layer": PRE,
            "value": "9",
            "directory": f"{tmp_path}/runs/0",
        }
        assert next(row for row in rows if row["metric"] == "graph/modularity")["value"] == ""

    def test_pandas_reads_it_without_work(self, tmp_path):
        pandas = pytest.importorskip("pandas")
        self.rows(tmp_path)
        frame = pandas.read_csv(tmp_path / "report" / "metrics.csv")
        needed = frame[(frame.kind == "features/needed") & (frame.tolerance == 0.001)]
        assert needed.groupby("analysis.truncation").value.sum().to_dict() == {1e-15: 12.0, 1e-12: 12.0}
        assert frame.value.dtype == float

    @pytest.mark.parametrize(
        ("name", "parsed"),
        [
            ("edges/needed_0.001/total", MetricKey("edges/needed", 0.001, "total")),
            (f"features/needed_1/{PRE}", MetricKey("features/needed", 1.0, PRE)),
            (f"edges/hoyer/{PRE}", MetricKey("edges/hoyer", None, PRE)),
            ("score/test", MetricKey("score/test", None, None)),
            ("graph/modularity", MetricKey("graph/modularity", None, None)),
            ("time/basis", MetricKey("time/basis", None, None)),
            ("features/needed_tight/a", MetricKey("features/needed_tight", None, "a")),
            ("mine", MetricKey("mine", None, None)),
            ("features/kept/a/b", MetricKey("features/kept", None, "a/b")),
        ],
    )
    def test_a_key_in_its_parts(self, name, parsed):
        assert parse_metric(name) == parsed


class TestValues:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (1e-12, "1e-12"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (50, "50"),
            (True, "true"),
            (None, "null"),
            ([50, None, "a"], "[50, null, a]"),
            ("two\nlines", "two lines"),
        ],
    )
    def test_as_one_would_write_them(self, value, text):
        assert value_text(value) == text

    def test_each_once_in_order(self):
        assert distinct(["b", 10, None, 2, "a", 2, 1e-3]) == [1e-3, 2, 10, "a", "b", None]

    def test_what_an_axis_has_a_place_for(self):
        assert [is_numeric(value) for value in (1, 0.5, True, None, "1", float("nan"), 10**400)] == [
            True,
            True,
            *[False] * 5,
        ]


def test_a_whole_configuration_is_one_setting() -> None:
    assert isinstance(config_of("model=modular_addition"), RunConfig)
    setting = setting_of(run_of(whole_config()))
    assert {"analysis.truncation", "model.modulus", "dtype"} <= setting.keys()
    assert not {"seed", "device", "method.name", "tracking.mode", "analysis.memory_budget"} & setting.keys()
