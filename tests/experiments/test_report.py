"""The report over run directories made by hand: every run is in it, or named with the reason why not."""

from __future__ import annotations

import pytest
from running import FEW_METRICS, MID, PRE, command, few_settings, files_below, report_of, write_run

from experiments.pipeline.json_files import write_json
from experiments.report import main
from experiments.reporting.finished_runs import find_runs


class TestReport:
    def test_methods_side_by_side_over_seeds(self, tmp_path):
        for method, seed, score in (("lib", 0, 0.5), ("lib", 1, 0.75), ("pca", 0, 0.25)):
            write_run(
                tmp_path / "runs" / f"{method}{seed}", few_settings(method, seed), FEW_METRICS | {"score/test": score}
            )
        text, (table,), unfinished = report_of(tmp_path)
        assert "| metric | LIB (n = 2) | PCA (n = 1) |" in text
        assert "| `score/test` | 0.625 ± 0.1768 | 0.25 |" in text
        assert table.keys() == FEW_METRICS.keys() - {"score/train", "time/model"}
        assert unfinished == []
        assert "without results" not in text
        assert "Both halves" not in text
        for method, seed, score in (("lib", 0, 0.5), ("lib", 1, 0.75), ("pca", 0, 0.25)):
            assert f"| `{tmp_path}/runs/{method}{seed}` | {method} | {seed} | {score:.4f} |" in text

    @pytest.mark.parametrize(
        ("parts", "columns"),
        [
            (
                [{"name": "mine", "function": "my:fit", "label": "Mine", "power": power} for power in (1, 2)],
                ["Mine (power=1)", "Mine (power=2)"],
            ),
            (
                [{"name": "file", "path": path, "label": "SAE"} for path in ("a", "b")],
                ["SAE (path=a)", "SAE (path=b)"],
            ),
            ([{"name": name, "label": "PCA"} for name in ("pca", "file")], ["PCA (name=pca)", "PCA (name=file)"]),
            ([{"name": "pca"}, {"name": "pca"}], ["PCA"]),
        ],
    )
    def test_one_method_s_options_are_told_apart(self, tmp_path, parts, columns):
        for number, part in enumerate(parts):
            write_run(tmp_path / "runs" / str(number), few_settings("lib", 0) | {"method": part})
        text, _, _ = report_of(tmp_path)
        heads = [line for line in text.splitlines() if line.startswith("| metric |")]
        assert len(heads) == 1
        assert {cell.strip() for cell in heads[0].split("|")[2:-1]} == {f"{column} (n = 1)" for column in columns}

    def test_a_model_that_is_chosen_by_name_is_called_by_it(self, tmp_path):
        for number, name in enumerate(("openai/gpt2", "../models/stories260k/")):
            write_run(tmp_path / "runs" / str(number), few_settings("lib", 0, kind="pretrained_transformer", name=name))
        text, _, _ = report_of(tmp_path)
        assert "## gpt2\n" in text
        assert "## stories260k\n" in text

    def test_a_missing_metric_is_a_dash(self, tmp_path):
        write_run(tmp_path / "runs" / "lib", few_settings("lib", 0), {"score/test": 0.5, "graph/modularity": 0.1})
        write_run(tmp_path / "runs" / "pca", few_settings("pca", 0), {"score/test": 0.5, "graph/modularity": None})
        text, _, _ = report_of(tmp_path)
        assert "| `graph/modularity` | 0.1 | – |" in text

    @pytest.mark.parametrize(
        ("status", "reason"),
        [
            ({"status": "failed", "reason": "RuntimeError: no luck"}, "failed: RuntimeError: no luck"),
            ({"status": "running"}, "running"),
        ],
    )
    def test_runs_that_did_not_finish_are_named_with_the_reason(self, tmp_path, status, reason):
        write_run(tmp_path / "runs" / "good", few_settings("lib", 0))
        bad = write_run(tmp_path / "runs" / "bad", few_settings("lib", 1), FEW_METRICS | {"score/test": 0.0}, status)
        text, (table,), (line,) = report_of(tmp_path)
        assert line.startswith(f"{bad}: {reason}")
        assert line in text
        assert table["score/test"]["lib_n"] == "1"

    def test_a_directory_that_a_run_never_wrote_its_status_to_is_named(self, tmp_path):
        write_run(tmp_path / "runs" / "good", few_settings("lib", 0))
        bad = write_run(tmp_path / "runs" / "bad", few_settings("lib", 1))
        (bad / "status.json").unlink()
        (bad / "run.log").touch()
        _, _, (line,) = report_of(tmp_path)
        assert line.startswith(f"{bad}: ")

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("metrics.json", '{"score/te'),
            ("metrics.json", None),
            ("config.yaml", None),
            ("config.yaml", ""),
            ("config.yaml", "model: {"),
            ("status.json", "{}"),
        ],
    )
    def test_a_damaged_run_is_named_and_the_others_are_reported(self, tmp_path, file, content):
        write_run(tmp_path / "runs" / "good", few_settings("lib", 0))
        bad = write_run(tmp_path / "runs" / "bad", few_settings("lib", 1))
        (bad / file).unlink() if content is None else (bad / file).write_text(content)
        _, (table,), (line,) = report_of(tmp_path)
        assert line.startswith(f"{bad}: ")
        assert table["score/test"]["lib_n"] == "1"

    def test_a_run_that_is_found_twice_counts_once(self, tmp_path):
        run = write_run(tmp_path / "runs" / "lib0", few_settings("lib", 0))
        (tmp_path / "link").symlink_to(run)
        finished, unfinished = find_runs([tmp_path / "runs", run, tmp_path / "runs", tmp_path / "link"])
        assert ([one.directory for one in finished], unfinished) == ([run], [])

    def test_of_runs_that_are_equal_in_everything_the_latest_counts(self, tmp_path):
        for name, score in (("20260101", 0.25), ("20260103", 0.75), ("20260102", 0.5)):
            write_run(tmp_path / "runs" / name, few_settings("lib", 0), {"score/test": score})
        _, (table,), _ = report_of(tmp_path)
        assert (table["score/test"]["lib_mean"], table["score/test"]["lib_n"]) == ("0.75", "1")

    def test_where_a_run_was_tracked_or_kept_makes_no_difference(self, tmp_path):
        elsewhere = {"tracking": {"mode": "offline", "group": "g"}, "output_directory": "elsewhere"}
        write_run(tmp_path / "runs" / "one", few_settings("lib", 0))
        write_run(tmp_path / "runs" / "two", few_settings("lib", 1) | elsewhere)
        _, (table,), _ = report_of(tmp_path)
        assert table["score/test"]["lib_n"] == "2"

    def test_halves_of_the_data_are_runs_like_seeds(self, tmp_path):
        for half, score in (("first", 0.5), ("second", 0.75)):
            settings = few_settings("lib", 0) | {"analysis": {"n_examples": None, "half": half}}
            write_run(tmp_path / "runs" / half, settings, FEW_METRICS | {"score/test": score})
        text, (table,), _ = report_of(tmp_path)
        assert (table["score/test"]["lib_mean"], table["score/test"]["lib_n"]) == ("0.625", "2")
        assert "over 2 runs of a method (seed 0; halves of the data: first, second)" in text
        assert f"| `{tmp_path}/runs/first` | lib | 0 | first | 0.5000 |" in text
        assert "Both halves are tested on the same examples" in text

    @pytest.mark.parametrize(("kind", "n_runs"), [("modular_addition", ["2"]), ("pretrained_transformer", ["1", "1"])])
    def test_checkpoints_of_trained_models_are_seeds_and_those_of_pretrained_ones_models(self, tmp_path, kind, n_runs):
        for name in "ab":
            settings = few_settings("lib", 0, kind=kind, checkpoint=f"{name}.safetensors", name="gpt2")
            write_run(tmp_path / "runs" / name, settings)
        _, tables, _ = report_of(tmp_path)
        assert [table["score/test"]["lib_n"] for table in tables] == n_runs

    def test_a_half_of_the_data_is_not_averaged_with_all_of_it(self, tmp_path):
        settings = few_settings("lib", 0)
        write_run(tmp_path / "runs" / "all", settings)
        write_run(tmp_path / "runs" / "null", few_settings("lib", 1) | {"analysis": {"n_examples": None, "half": None}})
        write_run(tmp_path / "runs" / "half", settings | {"analysis": {"n_examples": None, "half": "first"}})
        _, tables, _ = report_of(tmp_path)
        assert sorted(table["score/test"]["lib_n"] for table in tables) == ["1", "2"]


SCORE = {"name": "cross-entropy", "lower_is_better": True}
NO_CURVES = {"node_ablation": {}, "edge_ablation": {}, "edges_needed": {}, "nodes_needed": {}}


class TestVerdicts:
    """Two halves of LIB and of PCA on a language model."""

    @pytest.fixture
    def text(self, tmp_path) -> str:
        for method, half, values in (
            ("lib", "first", (10, 20, 100, 40, 0.5)),
            ("lib", "second", (12, 20, 110, 40, 0.7)),
            ("pca", "first", (12, 20, 90, 41, 0.4)),
            ("pca", "second", (14, 20, 90, 49, 0.4)),
        ):
            keys = (f"features/needed_0.01/{PRE}", f"features/needed_0.01/{MID}")
            keys += (f"edges/needed_0.01/{PRE}", f"edges/needed_0.01/{MID}", "graph/modularity")
            metrics = dict(zip(keys, values, strict=True)) | {"score/test": 1.5}
            metrics |= {"edges/needed_0.01/total": values[2] + values[3], f"edges/needed_0.1/{PRE}": 1}
            settings = few_settings(method, 0) | {"analysis": {"half": half}}
            run = write_run(tmp_path / "runs" / f"{method}_{half}", settings, metrics)
            write_json(run / "ablations.json", {"test_score": 1.5, "score": SCORE} | NO_CURVES)
        return report_of(tmp_path)[0]

    def test_one_sentence_says_who_needs_less_for_each_criterion(self, text):
        sentences = [line.removeprefix("- ") for line in text.splitlines() if line.startswith("- ")]
        assert sentences == [
            "Features needed (cross-entropy + 0.01 nats): in means over runs LIB needs fewer than PCA in 1 of 2 node "
            "layers and as many in 1; in all 31 ± 1.414 against 33 ± 1.414.",
            "Edges needed (cross-entropy + 0.01 nats): in means over runs LIB needs fewer than PCA in 1 of 2 pairs of "
            "node layers; in all 145 ± 7.071 against 135 ± 5.657. Of one model: nothing is said of others. The "
            "difference is 1.1 times what two halves of the data differ by (a factor of 1.066 on the mean of 2 pairs "
            "of halves, as logarithms).",
            "Modularity: 0.6 ± 0.1414 (LIB) against 0.4 ± 0 (PCA). Of one model: nothing is said of others. The "
            "difference is 2 times what two halves of the data differ by (0.1 on the mean of 2 pairs of halves).",
        ]

    def test_totals_are_in_a_table_of_their_own(self, text):
        assert "| over all node layers | LIB | PCA |" in text
        assert "| features needed, 0.01 | 31 ± 1.414 | 33 ± 1.414 |" in text
        assert "| edges needed, 0.01 | 145 ± 7.071 | 135 ± 5.657 |" in text
        assert "| edges needed, 0.1 | 1 ± 0 | 1 ± 0 |" in text
        assert "| modularity | 0.6 ± 0.1414 | 0.4 ± 0 |" in text

    def test_the_score_is_called_what_it_is(self, text):
        assert "a test cross-entropy at most 0.01, 0.1 nats per token above the unablated model's" in text
        assert "| run | method | seed | half | test cross-entropy (nats per token) |" in text

    def test_without_lib_nothing_is_said_of_it(self, tmp_path):
        write_run(tmp_path / "runs" / "pca", few_settings("pca", 0))
        write_run(tmp_path / "runs" / "svd", few_settings("svd", 0))
        text, _, _ = report_of(tmp_path)
        assert "LIB" not in text.replace("`evidence.csv`", "")

    def test_a_run_without_a_part_of_the_metrics_has_no_total(self, tmp_path):
        more = FEW_METRICS | {f"features/needed_0.001/{MID}": 3}
        write_run(tmp_path / "runs" / "lib0", few_settings("lib", 0), more)
        write_run(tmp_path / "runs" / "lib1", few_settings("lib", 1))
        write_run(tmp_path / "runs" / "pca", few_settings("pca", 0), more)
        text, _, _ = report_of(tmp_path)
        assert "| features needed, 0.001 | – | 15 |" in text
        assert "LIB needs fewer than PCA in 0 of 2 node layers and as many in 2.\n" in text


class TestCommand:
    def test_help_does_without_torch(self, tmp_path):
        code = "import sys; from experiments.report import command_line; print(command_line().format_help())"
        done = command(tmp_path, "-c", f"{code}; sys.exit('torch' in sys.modules)", program=())
        assert (done.returncode, done.stderr) == (0, "")
        assert "--latex" in done.stdout

    def refused(self, arguments: list[str], capsys) -> str:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, "")
        (line,) = err.splitlines()
        return line

    def test_no_runs(self, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        line = self.refused([str(tmp_path / "empty"), "--out", str(tmp_path / "report")], capsys)
        assert f"{tmp_path / 'empty'}: no runs here" in line
        assert files_below(tmp_path) == {"empty"}

    def test_no_folder(self, tmp_path, capsys):
        line = self.refused([str(tmp_path / "nowhere"), "--out", str(tmp_path / "report")], capsys)
        assert f"{tmp_path / 'nowhere'}: no such folder" in line

    def test_a_folder_without_runs_beside_one_with(self, tmp_path, capsys):
        run = write_run(tmp_path / "runs" / "lib0", few_settings("lib", 0))
        (tmp_path / "empty").mkdir()
        line = self.refused([str(run), str(tmp_path / "empty"), "--out", str(tmp_path / "report")], capsys)
        assert "empty: no runs here" in line

    def test_no_run_that_finished(self, tmp_path, capsys):
        bad = write_run(
            tmp_path / "runs" / "bad", few_settings("lib", 0), status={"status": "failed", "reason": "no luck"}
        )
        line = self.refused([str(tmp_path / "runs"), "--out", str(tmp_path / "report")], capsys)
        assert "no finished run" in line
        assert f"{bad}: failed: no luck" in line
        assert not (tmp_path / "report").exists()

    def test_no_place_to_write(self, tmp_path, capsys):
        write_run(tmp_path / "runs" / "good", few_settings("lib", 0))
        (tmp_path / "file").touch()
        line = self.refused([str(tmp_path / "runs"), "--out", str(tmp_path / "file" / "report")], capsys)
        assert "file/report: cannot be written" in line
        assert "--out" in line

    def test_tables_and_the_report_s_path_are_printed(self, tmp_path, capsys):
        write_run(tmp_path / "runs" / "lib0", few_settings("lib", 0))
        bad = write_run(
            tmp_path / "runs" / "bad", few_settings("lib", 1), status={"status": "failed", "reason": "no luck"}
        )
        main([str(tmp_path / "runs"), "--out", str(tmp_path / "report")])
        out, err = capsys.readouterr()
        assert err == ""
        lines = out.splitlines()
        report = tmp_path / "report"
        ends = [f"{bad}: failed: no luck", f"page: {report / 'report.html'}", f"report: {report / 'report.md'}"]
        assert lines[-3:] == ends
        printed = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in lines if line.startswith("│")}
        # Needed counts at the tightest tolerance only.
        assert printed == {"score/test": "0.5", f"features/needed_0.001/{PRE}": "12", f"edges/hoyer/{PRE}": "0.75"}

    def test_without_a_place_it_is_below_outputs(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write_run(tmp_path / "runs" / "lib0", few_settings("lib", 0))
        main(["runs"])
        (report,) = tmp_path.glob("outputs/reports/*/report.md")
        assert capsys.readouterr().out.splitlines()[-1] == f"report: {report.relative_to(tmp_path)}"
