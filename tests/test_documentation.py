"""What documents and docstrings cite is there: equations, sections, files, names, keys of commands and of runs."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

import libcore

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("libcore", "models", "experiments")
DOCUMENTS = (*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md")))
METHOD = (REPOSITORY / "docs" / "METHOD.md").read_text(encoding="utf-8")
NUMBER = r"\d+b?(?:\.\d+)?"
NUMBERS = rf"(?P<numbers>{NUMBER}(?:(?:-|, | and | to (?:eq\. )?){NUMBER}(?![\w.]*\w))*)"
SECTIONS = re.compile(rf"METHOD\.md {NUMBERS}")
EQUATIONS = re.compile(rf"\beqs?\. ?{NUMBERS}", re.IGNORECASE)
DOCUMENT = re.compile(r"\b[A-Z][A-Z_]+\.md\b")
PYTHON_FILE = re.compile(r"`((?:[\w.-]+/)*\w+\.py)`")
FILE = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:md|py|yaml|ipynb|png|toml|txt|cff))`")
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:home|root|work|tmp|Users|mnt|data)/")
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:lib-run|lib-benchmark|python -m experiments\.(?:run|benchmark))((?:\s+[^\s`#]+)+)")
MENTION = re.compile(r"`[^`\n]*?\b((?:analysis|method|tracking|data)\.(?!py\b)[a-z_]+(?:\.[a-z_]+)*)=?")
KEY = re.compile(r"(?:^|\s)'?\+{0,2}([a-z_]+(?:[./][a-z_]+)*)=")
OF_RUNS = {"config.yaml", "report.md", "multirun.yaml", "benchmark.md"}


def equations(numbers: str) -> set[str]:
    """`7-8`, `4, 5` and `eq. 1 to eq. 3` as single numbers."""
    found: set[str] = set()
    for part in re.split(r", | and ", numbers):
        first, *last = re.split(r"-| to (?:eq\. )?", part)
        found |= {str(n) for n in range(int(first), int(last[0]) + 1)} if last else {first}
    return found


def cited(text: str) -> tuple[set[str], set[str]]:
    """Equations, and sections of METHOD.md, over the ends of lines."""
    text = re.sub(r"\s*\n\s*(?:#\s*)?", " ", text)
    of_equations, of_sections = (
        {number for match in pattern.finditer(text) for number in equations(match["numbers"])}
        for pattern in (EQUATIONS, SECTIONS)
    )
    return of_equations, of_sections


def labelled_equations() -> set[str]:
    return set(re.findall(r"\(eq\. (\d+b?)\)", METHOD))


def numbered_sections() -> set[str]:
    """Sections, and the steps that are numbered in them."""
    found, section = set(), ""
    for line in METHOD.splitlines():
        if heading := re.match(r"## (\d+)\. ", line):
            section = heading[1]
            found.add(section)
        elif step := re.match(r"(\d+)\. ", line):
            found.add(f"{section}.{step[1]}")
    return found


@cache
def texts() -> dict[str, str]:
    """Source, tests, configuration and documents by their paths."""
    files = [*DOCUMENTS, *(path for folder in (*PACKAGES, "tests") for path in (REPOSITORY / folder).rglob("*.py"))]
    files += (REPOSITORY / "conf").rglob("*.yaml")
    by_path = {path.relative_to(REPOSITORY).as_posix(): path for path in files if path != Path(__file__)}
    return {name: path.read_text(encoding="utf-8") for name, path in sorted(by_path.items())}


def blocks(text: str, language: str) -> list[str]:
    """The code that a document prints."""
    return [code for found, code in BLOCK.findall(text) if found == language]


class TestCitations:
    def test_how_citations_are_read(self):
        text = (
            "(METHOD.md 2.7). eq. 7-8; METHOD.md eq. 2, 5, (METHOD.md\n    # 4), METHOD.md 1-3, eq. 6b, eq. 1 to eq. 3"
        )
        assert cited(text) == ({"7", "8", "2", "5", "6b", "1", "3"}, {"2.7", "4", "1", "2", "3"})

    def test_the_method_s_page(self):
        assert labelled_equations() == {*map(str, range(1, 13)), "6b"}
        assert numbered_sections() == {*"1234567", *(f"2.{step}" for step in range(1, 8))}

    def test_equations_and_sections_that_are_cited_are_there(self):
        broken = {
            name: missing
            for name, text in texts().items()
            if (missing := [*cited(text)[0] - labelled_equations(), *cited(text)[1] - numbered_sections()])
        }
        assert broken == {}
        assert sum("METHOD.md" in text for name, text in texts().items() if name.endswith(".py")) > 30

    def test_documents_and_modules_that_are_cited_are_there(self):
        documents, names = {path.name for path in DOCUMENTS}, [f"/{name}" for name in texts()]
        broken = {}
        for name, text in texts().items():
            missing = {*DOCUMENT.findall(text)} - documents
            if name.startswith(PACKAGES):
                missing |= {
                    file for file in PYTHON_FILE.findall(text) if not any(n.endswith(f"/{file}") for n in names)
                }
            if missing:
                broken[name] = missing
        assert broken == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
class TestDocuments:
    def test_what_it_links_and_names_is_there(self, document):
        text = document.read_text(encoding="utf-8")
        targets = [target.partition("#")[0] for target in LINK.findall(BLOCK.sub("", text)) if "://" not in target]
        assert [target for target in targets if not (document.parent / target).exists()] == []
        assert [name for name in FILE.findall(text) if name not in OF_RUNS and not is_there(document, name)] == []

    def test_no_path_of_somebody_s_machine(self, document):
        assert MACHINE_PATH.findall(document.read_text(encoding="utf-8")) == []

    def test_its_code_can_be_read_and_imports_what_there_is(self, document):
        text = document.read_text(encoding="utf-8")
        for code in blocks(text, "python"):
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom) and node.module == "libcore":
                    assert {alias.name for alias in node.names} <= set(libcore.__all__)
        assert all(isinstance(yaml.safe_load(code), dict) for code in blocks(text, "yaml"))

    def test_keys_of_its_commands_exist(self, document):
        text = document.read_text(encoding="utf-8")
        of_examples = {
            f"{part}.{key}"
            for code in blocks(text, "yaml")
            for key in yaml.safe_load(code)
            for part in ("model", "method")
        }
        found = {key for command in COMMAND.findall(text) for key in KEY.findall(command)} | set(MENTION.findall(text))
        # Of Hydra's own plugins, whose keys are not the project's.
        of_plugins = {key for key in found if key.startswith(("hydra.launcher.", "hydra.sweeper."))}
        assert found - configuration_keys() - of_examples - of_plugins == set()


def is_there(document: Path, name: str) -> bool:
    """From the root or a package, beside the document, or printed by the document itself."""
    places = (
        REPOSITORY,
        document.parent,
        *(REPOSITORY / package for package in PACKAGES),
        REPOSITORY / "libcore" / "methods",
    )
    is_printed = re.search(rf"`{re.escape(name)}`[^\n]*\n\n```", document.read_text(encoding="utf-8")) is not None
    return is_printed or any((place / name).is_file() for place in places)


@cache
def configuration_keys() -> frozenset[str]:
    """Groups, keys of the root and of every option, dotted; and what Hydra and the project take beside them."""
    found = {"install", "hydra.searchpath", "hydra/launcher", "hydra/sweeper", "method.function", "model.factory"}

    def collect(node: object, prefix: str) -> None:
        for key, value in node.items() if isinstance(node, dict) else ():
            found.add(f"{prefix}{key}")
            collect(value, f"{prefix}{key}.")

    for path in (REPOSITORY / "conf").rglob("*.yaml"):
        group = path.relative_to(REPOSITORY / "conf").parent.as_posix()
        found.add(group)
        collect(yaml.safe_load(path.read_text(encoding="utf-8")), "" if group == "." else f"{group}.")
    return frozenset(found)


class TestReadme:
    TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")

    def test_it_is_short(self):
        assert len(self.TEXT.splitlines()) <= 120

    def test_options_of_its_commands_exist(self):
        options = re.findall(r"\b(model|method|experiment)=([a-z0-9_,]+)", self.TEXT)
        files = [f"{group}/{name}.yaml" for group, names in options for name in names.split(",")]
        assert len(files) > 3
        assert [file for file in files if not (REPOSITORY / "conf" / file).is_file()] == []

    def test_targets_of_make_exist(self):
        makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
        targets = re.findall(r"\bmake ([a-z][a-z-]+)", self.TEXT + texts()["CONTRIBUTING.md"])
        assert {"demo", "test"} <= set(targets)
        assert [target for target in targets if f"\n{target}:" not in makefile] == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's directory."""
    from experiments.config.composition import config_of
    from experiments.pipeline.run_pipeline import run_pipeline

    folder = tmp_path_factory.mktemp("run")
    overrides = ["model=block_diagonal_mlp", "model.n_blocks=2", "model.n_layers=2", "tracking.mode=disabled"]
    overrides += ["analysis.estimator=stochastic", "analysis.stages=[score,basis,edges,ablation]"]
    overrides += ["analysis.resamples=200"]
    run_pipeline(config_of([*overrides, f"output_directory={folder / 'outputs'}"]), folder / "run", None)
    return folder / "run"


class TestFilesOfRuns:
    """`docs/FILES.md` explains what a run leaves, and nothing else."""

    TEXT = (REPOSITORY / "docs" / "FILES.md").read_text(encoding="utf-8")

    def test_metrics(self, run):
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        graph = libcore.InteractionGraph.load(run / "graph.safetensors")
        found = {general(key, graph.node_layers) for key in metrics}
        assert found == set(
            re.findall(r"`((?:score|features|edges|estimator|graph|time|memory)/[^`]+)`", self.TEXT)
        ) - {"edges/<layer>"}

    def test_files(self, run):
        explained = set(
            re.findall(r"^\| `([\w.]+\.(?:json|yaml|log|safetensors))` \|", self.TEXT.partition("## A sweep")[0], re.M)
        )
        assert {path.name for path in run.iterdir()} | {"run.log", "status.json"} == explained

    def test_the_graph_s_file(self, run):
        with safe_open(run / "graph.safetensors", "pt") as file:
            header, names = set(file.metadata()), {f"{name.split('/')[0]}/<layer>" for name in file.keys()}  # noqa: SIM118
        section = self.TEXT.partition("### `graph.safetensors`")[2].partition("### ")[0]
        explained = set(re.findall(r"^\| `([\w/<>]+)` \|", section, re.MULTILINE))
        assert names | header | {"options"} == explained

    def test_ablations(self, run):
        keys = set(json.loads((run / "ablations.json").read_text(encoding="utf-8")))
        section = self.TEXT.partition("### `ablations.json`")[2].partition("### ")[0]
        assert keys == {
            key for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)
        }


def general(key: str, node_layers: tuple[str, ...]) -> str:
    """A metric's key with its node layer, tolerance and stage named as such."""
    for layer in node_layers:
        key = key.replace(f"/{layer}", "/<layer>")
    key = re.sub(r"(needed(?:_low|_high)?)_[\d.]+", r"\1_<tol>", key)
    return re.sub(r"^(time|memory)/.*", r"\1/<stage>", key)


def test_examples_of_sections_run():
    """Those of EXTENDING.md that need neither data nor files."""
    codes = blocks((REPOSITORY / "docs" / "EXTENDING.md").read_text(encoding="utf-8"), "python")
    examples = [code for code in codes if "FunctionSection(" in code or "MeanSection(" in code]
    assert len(examples) == 2
    for number, code in enumerate(examples):
        names: dict[str, object] = {"__name__": f"example_{number}"}
        exec(compile(code, f"example {number}", "exec"), names)
        assert isinstance(names["chain"], libcore.Chain)
