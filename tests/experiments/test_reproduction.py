"""The paper's claims: what their file says exists, which verdict follows from what, and the page that runs make."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from math import exp, log
from pathlib import Path
from statistics import fmean, stdev

import pytest
import yaml
from PIL import Image
from running import (
    REPOSITORY,
    STORIES,
    TOY,
    assert_says,
    command,
    configs_of,
    few_settings,
    files_below,
    read_json,
    write_run,
)

from experiments.config.folder import CONFIG_DIRECTORY
from experiments.config.scores import with_tolerances
from experiments.evidence.comparison import compared, corrected
from experiments.evidence.pairs import Pairs
from experiments.reproduce import main
from experiments.reproduction.claims import BySameWeights, Claim, read_claims
from experiments.reproduction.findings import finding_of, measure_of
from experiments.reproduction.inputs import OPTIONS, missing_inputs, overrides_of, quoted
from experiments.reproduction.provenance import words
from experiments.reproduction.verdicts import (
    outcome_of_band,
    outcome_of_direction,
    outcome_of_value,
    verdict_of,
)
from experiments.sweeps.objective import metric_keys
from models.errors import UserError
from models.room import room_of

CLAIMS = read_claims()
TOTAL = "edges/needed_0.001/total"
EDGES = "paper_modular_addition_edges"


class TestTheClaimsFile:
    def test_it_has_every_experiment_of_the_paper(self):
        assert sorted(CLAIMS.experiments) == sorted(
            path.stem for path in (CONFIG_DIRECTORY / "experiment").glob("paper_*.yaml")
        )

    @pytest.mark.parametrize("claim", CLAIMS.claims, ids=lambda claim: f"{claim.experiment}: {claim.metrics[0]}")
    def test_what_a_claim_is_about_is_measured(self, claim: Claim):
        needs = CLAIMS.experiments[claim.experiment].needs
        if "stories" in needs and not STORIES.is_dir():
            pytest.skip("the pretrained model is not there")
        configs = configs_of(f"experiment={claim.experiment}", *([f"model.name={STORIES}"] * ("stories" in needs)))
        how = claim.compared
        methods = {how.method} | (set() if isinstance(how, BySameWeights) else {how.against})
        assert methods <= {config.method.name for config in configs}
        for config in configs:
            room = room_of(config.model_settings)
            assert set(claim.metrics) <= set(metric_keys(with_tolerances(config, room.score_name), room))
        for metric in claim.metrics:
            assert measure_of(metric).scale in ("ratio", "difference")

    def test_the_published_ratio_is_that_of_the_published_counts(self):
        lib, pca = (
            claim.compared.values
            for claim in CLAIMS.claims
            if isinstance(claim.compared, BySameWeights) and claim.metrics == [TOTAL]
        )
        ratios = [log(lib[seed] / pca[seed]) for seed in lib]
        half = 2.776 * stdev(ratios) / len(ratios) ** 0.5
        ends = [exp(fmean(ratios) + sign * half) for sign in (-1, 0, 1)]
        (claim,) = (one for one in CLAIMS.claims if one.compared.by == "band" and one.experiment == EDGES)
        assert f"{ends[0]:.2f} to {ends[2]:.2f}" in claim.source
        assert claim.compared.value == round(ends[1], 2)
        assert claim.compared.tolerance == round((ends[2] - ends[0]) / 2, 2)
        assert ", ".join(str(int(count)) for count in lib.values()) in claim.source

    def test_left_out_claims_name_commands_that_compose(self):
        for left_out in CLAIMS.left_out:
            assert configs_of(*left_out.command.split())

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda content: content["claims"][0].update(experiment="paper_nothing"), "paper_nothing"),
            (
                lambda content: content["experiments"].update(paper_no={"needs": [], "figures": ["communities"]}),
                "paper_no.yaml",
            ),
            (lambda content: content["claims"][0]["metrics"].append(TOTAL), "compares one metric"),
            (lambda content: content["claims"][0].update(verdict="holds"), "claims.0.verdict"),
            (lambda content: content["claims"][0]["compared"].update(by="eye"), "eye"),
        ],
    )
    def test_what_is_wrong_with_another_one_is_said_in_one_line(self, change, said, tmp_path):
        content = yaml.safe_load((CONFIG_DIRECTORY / "paper_claims.yaml").read_text())
        change(content)
        path = tmp_path / "claims.yaml"
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(UserError, match=said) as refused:
            read_claims(path)
        assert "\n" not in str(refused.value)


def comparison(ours, theirs, n_tests: int = 1):
    pairs = Pairs(tuple(map(float, ours)), tuple(map(float, theirs)))
    return corrected([compared(pairs, "ratio")] * n_tests)[0]


FEWER = [90.0, 91.0, 92.0, 90.0, 89.0, 88.0, 91.0]
HUNDRED = [100.0] * 7


class TestVerdicts:
    @pytest.mark.parametrize(
        ("outcomes", "verdict"),
        [
            ([], "not run"),
            (["agrees", "agrees"], "holds"),
            (["agrees", "undecided"], "holds partly"),
            (["agrees", "disagrees"], "holds partly"),
            (["disagrees", "undecided"], "does not hold"),
            (["undecided", "undecided"], "undecided"),
        ],
    )
    def test_of_a_claim_by_its_metrics(self, outcomes, verdict):
        assert verdict_of(outcomes) == verdict

    @pytest.mark.parametrize(
        ("ours", "theirs", "n_tests", "outcome"),
        [
            (FEWER, HUNDRED, 1, "agrees"),
            (HUNDRED, FEWER, 1, "disagrees"),
            (FEWER[:5], HUNDRED[:5], 1, "undecided"),  # five models cannot decide, however far apart
            (FEWER[:6], HUNDRED[:6], 1, "agrees"),
            (FEWER[:6], HUNDRED[:6], 3, "undecided"),  # nor can six, of three metrics
            (FEWER, HUNDRED, 3, "agrees"),
            ([90, 110, 95, 105, 90, 110, 100], HUNDRED, 1, "undecided"),
            (HUNDRED, HUNDRED, 1, "disagrees"),  # as many in each of enough models are not fewer
            (HUNDRED[:5], HUNDRED[:5], 1, "undecided"),
            # Decided by the test, while the interval holds both sides.
            ([10, 99, 99, 99, 99, 99, 99], HUNDRED, 1, "undecided"),
        ],
    )
    def test_by_direction(self, ours, theirs, n_tests, outcome):
        found = comparison(ours, theirs, n_tests)
        assert outcome_of_direction(found, "smaller") == outcome
        opposite = {"agrees": "disagrees", "disagrees": "agrees", "undecided": "undecided"}[outcome]
        if found.pairs.n_equal < len(found.pairs):
            assert outcome_of_direction(found, "larger") == opposite

    @pytest.mark.parametrize(
        ("ours", "value", "tolerance", "outcome"),
        [
            (FEWER, 0.9, 0.05, "agrees"),
            (FEWER, 1.0, 0.05, "disagrees"),
            (FEWER, 0.95, 0.05, "undecided"),  # the interval reaches over the band's end
            (FEWER[:2], 0.9, 0.05, "undecided"),
            ([90.0] * 3, 0.9, 0.05, "agrees"),  # without a spread there is one value
            ([90.0] * 3, 1.0, 0.05, "disagrees"),
        ],
    )
    def test_by_a_number(self, ours, value, tolerance, outcome):
        assert outcome_of_band(comparison(ours, HUNDRED[: len(ours)]), value, tolerance) == outcome

    def test_by_the_same_weights(self):
        assert outcome_of_value(848.0, 848.0, 0.0) == "agrees"
        assert outcome_of_value(873.0, 848.0, 0.03) == "agrees"
        assert outcome_of_value(822.0, 848.0, 0.03) == "disagrees"


def runs_of(tmp_path: Path, values: dict[str, list[float]], metric: str = TOTAL):
    from experiments.reporting.finished_runs import find_runs

    for method, of_method in values.items():
        for seed, value in enumerate(of_method):
            write_run(tmp_path / method / str(seed), few_settings(method, seed), {metric: value})
    return find_runs([tmp_path])[0]


def claim_by(**how) -> Claim:
    texts = {"about": "a", "claim": "b", "source": "c", "experiment": EDGES}
    return Claim.model_validate(texts | {"metrics": [TOTAL], "compared": how})


class TestFindings:
    def test_by_direction_with_interval_and_test(self, tmp_path):
        found = finding_of(
            claim_by(by="direction", method="lib", against="pca", direction="smaller"),
            runs_of(tmp_path, {"lib": FEWER, "pca": HUNDRED}),
        )
        assert found.verdict == "holds"
        assert_says(
            found.ours[0],
            "LIB 90.1, PCA 100 (means)",
            "fewer edges than PCA in 7 of 7 models",
            "95 % interval",
            "p = 0.016",
        )

    def test_of_one_model_nothing_is_decided(self, tmp_path):
        found = finding_of(
            claim_by(by="band", method="lib", against="pca", value=1.0, tolerance=0.5),
            runs_of(tmp_path, {"lib": [90], "pca": [100]}),
        )
        assert found.verdict == "undecided"
        assert_says(found.ours[0], "90 against 100", "says nothing of others")

    def test_by_the_same_weights_some_of_which_were_run(self, tmp_path):
        values = {0: 100, 1: 100, 5: 100}
        runs = runs_of(tmp_path, {"lib": [99, 120], "pca": [1, 1]})
        found = finding_of(claim_by(by="same weights", method="lib", values=values, relative_tolerance=0.05), runs)
        assert found == type(found)("holds partly", ("99 (seed 0), 120 (seed 1); not run: seed 5.",))

    def test_without_a_value(self, tmp_path):
        runs = runs_of(tmp_path, {"lib": [1.0], "pca": [1.0]}, metric="graph/modularity")
        for how in (
            {"by": "same weights", "method": "lib", "values": {0: 1}, "relative_tolerance": 0.1},
            {"by": "band", "method": "lib", "against": "pca", "value": 1.0, "tolerance": 0.5},
        ):
            found = finding_of(claim_by(**how), runs)
            assert found.verdict == "undecided"
            assert "no model with a value" in found.ours[0]


class TestInputs:
    def test_what_an_experiment_needs_is_an_option_or_an_override(self):
        assert missing_inputs(["stories", "text"], {"stories": "x"}, []) == ["text"]
        assert missing_inputs(["stories", "text"], {"stories": "x"}, ["data.path=y"]) == []
        assert overrides_of(["text"], {"cifar": "elsewhere", "text": "no such file"}) == ["data.path='no such file'"]
        assert overrides_of([], {"cifar": "elsewhere"}) == []

    def test_seeds_of_the_published_networks_are_those_there_are(self, tmp_path):
        for seed in (3, 0):
            (tmp_path / "modular_addition" / f"seed{seed}").mkdir(parents=True)
            (tmp_path / "modular_addition" / f"seed{seed}" / "checkpoint.safetensors").touch()
        root = quoted(str(tmp_path / "modular_addition"))
        assert overrides_of(["published"], {"published": str(tmp_path)}) == [f"data.root={root}", "seed=0,3"]

    def test_a_path_is_quoted_for_hydra(self):
        assert [quoted(text) for text in ("/a/b-c_1.txt", "a b", "a'b")] == ["/a/b-c_1.txt", "'a b'", "'a\\'b'"]


def test_an_environment_in_words():
    recorded = {
        "git_commit": "0123456789abcdef+changes",
        "versions": {"torch": "2.14.1"},
        "device": "CPU",
        "threads": 1,
    }
    assert words(recorded) == "CPU, 1 thread, torch 2.14.1, commit 0123456789+changes"
    assert words(None) == "not recorded"


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """An output directory with the finished sweep of one experiment, seven seeds, in a folder that is stood in."""
    monkeypatch.chdir(tmp_path)
    folder, lines = tmp_path / "outputs" / "reports" / "20260101-000000", []
    (folder / "figures").mkdir(parents=True)
    Image.effect_noise((1600, 400), 50).save(folder / "figures" / "edge_ablation.png")
    for number, (method, seed) in enumerate((method, seed) for method in ("lib", "pca") for seed in range(7)):
        value = FEWER[seed] if method == "lib" else 100
        directory = tmp_path / "outputs" / "modular_addition" / method / f"seed{seed}"
        metrics = {
            claim_metric: value for one in CLAIMS.claims if one.experiment == EDGES for claim_metric in one.metrics
        }
        status = {
            "status": "finished",
            "started": "2026-01-01T00:00:00+00:00",
            "ended": "2026-01-01T00:00:30+00:00",
            "sweep": str(folder),
            "environment": {"device": "A CPU", "threads": 2, "git_commit": "abc", "versions": {"torch": "2.0"}},
        }
        write_run(directory, few_settings(method, seed), metrics, status)
        overrides = [f"method={method}", f"seed={seed}", f"experiment={EDGES}"]
        job = {"number": number, "overrides": overrides, "directory": str(directory), "status": "finished"}
        lines.append(json.dumps(job))
    (folder / "report.md").touch()
    begun = {"arguments": [f"experiment={EDGES}"], "jobs": 14, "objective": None, "direction": None}
    (folder / "sweep.json").write_text(json.dumps(begun))
    (folder / "runs.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def page_of(tmp_path: Path, *arguments: str, status: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--out", str(tmp_path / "docs" / "page.md"), *arguments])
    assert ended.value.code == status
    return (tmp_path / "docs" / "page.md").read_text(encoding="utf-8")


def rows_of(page: str, about: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if about in line]


class TestThePage:
    def test_from_recorded_runs(self, recorded, tmp_path):
        page = page_of(tmp_path, "--no-runs")
        rows = rows_of(page, f"experiment={EDGES}`")
        assert [row[3] for row in rows] == ["**holds**", "**holds**", "**holds**"]
        assert rows[0][1] == "LIB's is smaller; no number"
        assert_says(rows[0][2], "LIB 90.1, PCA 100", "95 % interval 0.889 to 0.914", "p = 0.016")
        assert rows[1][1] == "ratio 0.92 ± 0.07"
        assert rows[0][4] == f"[edge ablation](reproduction/{EDGES}_edge_ablation.png)"
        (provenance,) = rows_of(page, f"| `{EDGES}` |")
        assert provenance[1:] == [
            "`modular_addition`",
            "14",
            "7.0",
            "2026-01-01",
            "A CPU, 2 threads, torch 2.0, commit abc",
        ]
        with Image.open(tmp_path / "docs" / "reproduction" / f"{EDGES}_edge_ablation.png") as picture:
            assert picture.size == (1000, 250)
        assert str(tmp_path) not in page
        assert page == page_of(tmp_path, "--no-runs")

    def test_every_claim_has_a_row(self, recorded, tmp_path):
        page = page_of(tmp_path, "--no-runs")
        table = page.split("\n\n")[4].splitlines()[2:]
        assert len(table) == len(CLAIMS.claims) + len(CLAIMS.left_out)
        assert {line.count(" | ") for line in table} == {5}
        assert f"Of {len(table)} claims: holds 3, not run {len(table) - 3}." in page

    def test_what_is_not_run_has_its_reason(self, recorded, tmp_path, capsys):
        page = page_of(tmp_path, "--only", EDGES)
        assert "INFO" not in capsys.readouterr().out  # nothing was run
        cifar = rows_of(page, "`experiment=paper_cifar10_mlp_ablations`<br>`data.root=DIR`")
        assert {(row[2], row[3]) for row in cifar} == {("not given: folder of CIFAR-10 (--cifar).", "not run")}
        assert rows_of(page, "experiment=paper_modular_addition_nodes`")[0][2:4] == ["not begun.", "not run"]
        assert rows_of(page, "language, GPT-2 small")[0][3] == "not run"

    def test_overrides_that_change_numbers_are_said_and_are_of_another_sweep(self, recorded, tmp_path):
        given = ("model.training.max_steps=9", "tracking.mode=disabled", f"model.checkpoint={tmp_path}/seed0.pt")
        page = page_of(tmp_path, "--no-runs", *given)
        assert f"`experiment={EDGES}`<br>`model.training.max_steps=9`<br>`model.checkpoint=seed0.pt`" in page
        assert rows_of(page, f"experiment={EDGES}`")[0][2:4] == ["not begun.", "not run"]
        page = page_of(tmp_path, "--no-runs", "tracking.mode=disabled", "threads=1")
        assert rows_of(page, f"experiment={EDGES}`")[0][3] == "**holds**"

    def test_a_sweep_of_which_a_run_is_missing_says_nothing(self, recorded, tmp_path):
        status = tmp_path / "outputs" / "modular_addition" / "pca" / "seed3" / "status.json"
        content = read_json(status) | {"status": "failed", "reason": f"no luck with {tmp_path}/data.bin"}
        status.write_text(json.dumps(content))
        page = page_of(tmp_path, "--no-runs")
        row = rows_of(page, f"experiment={EDGES}`")[0]
        assert row[2:4] == ["1 of 14 runs have not finished.", "not run"]
        (recorded / "runs.jsonl").write_text(
            (recorded / "runs.jsonl").read_text()
            + json.dumps({"number": 10, "overrides": ["x"], "directory": str(status.parent), "status": "failed"})
            + "\n"
        )
        row = rows_of(page_of(tmp_path, "--no-runs"), f"experiment={EDGES}`")[0]
        assert row[2] == "1 of 14 runs have not finished: failed: no luck with data.bin."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "paper_modular_addition_edge"], ["--only paper_modular_addition_edge", f"did you mean {EDGES}"]),
        (["seed"], ["seed: expected KEY=VALUE"]),
        (["experiment=demo"], ["experiment=demo", "--only"]),
        (["output_directory=x"], ["output_directory=x", "--output-directory"]),
        (["--published", "."], ["--published .", "import_published CLONE"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    (line,) = (line for line in capsys.readouterr().err.splitlines())
    assert ended.value.code == 2
    assert_says(line, "error: ", *said)


class TestCarryingOut:
    """Through the commands, at toy size."""

    SPECTRA = "paper_modular_addition_spectra"
    TOYS = ("--only", SPECTRA, "--out", "page.md", *TOY, "seed=0", "tracking.mode=disabled")
    PROGRAM = ("-m", "experiments.reproduce")

    def test_what_has_finished_is_not_run_again_and_what_has_not_is(self, tmp_path):
        first = command(tmp_path, *self.TOYS, program=self.PROGRAM)
        assert first.returncode == 0, first.stderr
        assert f"{self.SPECTRA}: 2 runs" in first.stdout
        page, before = (tmp_path / "page.md").read_text(), files_below(tmp_path)
        assert f"reproduction/{self.SPECTRA}_importance_spectrum.png" in before

        again = command(tmp_path, *self.TOYS, program=self.PROGRAM)
        assert again.returncode == 0
        assert "INFO" not in again.stdout
        assert files_below(tmp_path) == before
        assert (tmp_path / "page.md").read_text() == page

        (report,) = tmp_path.glob("outputs/reports/*/report.md")
        report.unlink()
        (run, *_) = sorted(tmp_path.glob("outputs/*/pca/seed0/*/status.json"))
        assert read_json(run)["environment"].keys() == {
            *("git_commit", "versions", "python", "device", "cores", "threads", "processes")
        }
        assert f"torch {version('torch')}" in page
        run.write_text(json.dumps(read_json(run) | {"status": "interrupted"}))
        resumed = command(tmp_path, *self.TOYS, program=self.PROGRAM)
        assert resumed.returncode == 0, resumed.stderr
        assert resumed.stdout.count("INFO    finished: ") == 1
        assert len(re.findall("finished before: ", resumed.stdout)) == 1
        assert f"{self.SPECTRA}: 2 runs" in resumed.stdout
        assert report.is_file()

    def test_an_experiment_that_is_refused_ends_with_one_line_and_the_others_go_on(self, tmp_path):
        both = ("--only", "paper_modular_addition_graph", "--only", self.SPECTRA, "--out", "page.md")
        done = command(tmp_path, *both, "model.training.max_steps=nothing", program=self.PROGRAM)
        assert done.returncode == 2
        errors = [line for line in done.stderr.splitlines() if line]
        assert len(errors) == 2, "each of the two is refused in its own line"
        assert all(line.startswith("error: ") for line in errors)
        page = (tmp_path / "page.md").read_text()
        (row,) = rows_of(page, f"experiment={self.SPECTRA}`<br>`model.training.max_steps=nothing`")
        assert row[3] == "not run"
        assert_says(row[2], "model.training.max_steps=nothing: expected")


def test_make_passes_on_what_is_at_hand():
    text = (REPOSITORY / "Makefile").read_text()
    recipe = text.partition("\npaper:")[2].partition("\n\n")[0]
    assert set(OPTIONS) == {"cifar", "stories", "text", "published"}
    for name in OPTIONS:
        assert f"$(if $({name.upper()}),--{name} $({name.upper()}))" in recipe
