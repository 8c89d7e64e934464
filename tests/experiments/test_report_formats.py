"""The report as Markdown, LaTeX, a page and a W&B run: whatever things are called, they stay in their places."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from chromium import Page, chromium_path
from offline_run import read_offline_run
from running import FEW_METRICS, QUICK, few_settings, files_below, read_json, run_here, write_run

from experiments.pipeline.json_files import write_json
from experiments.report import main
from experiments.reporting import latex_report, markdown_report
from experiments.reporting.html_report import code_spans

STRANGE = r"a|b `c` *d* <e> _f_ [g] & 100% #1 $\x_1$ {h} ~i^j \k"
needs_chromium = pytest.mark.skipif(chromium_path() is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings with two methods, one of a strange name, a run with pages and one without results."""
    folder = tmp_path_factory.mktemp("formats")
    run = run_here(folder, "whole", *QUICK)
    write_json(run / "status.json", {"status": "finished"})
    (run / "figures").mkdir()
    for page in ("graph.html", "features.html"):
        (run / "figures" / page).write_text("<p>a page</p>")
    other = Path(folder / "runs" / "other|one `x` #1%20")
    settings = yaml.safe_load((run / "config.yaml").read_text()) | {"dtype": "float32"}
    write_run(other, settings | {"method": {"name": "mine", "label": STRANGE}}, FEW_METRICS | {"score/test": 0.25})
    write_run(folder / "runs" / "third", settings | {"method": {"name": "pca"}})
    write_run(folder / "runs" / "failed", settings, status={"status": "failed", "reason": "a | `b` <script>"})
    main([str(folder / "runs"), "--out", str(folder / "report"), "--latex", "--wandb", "--wandb-project", "mine"])
    return folder / "report"


class TestMarkdown:
    def test_every_row_of_a_table_has_as_many_cells_as_its_head(self, report):
        text = (report / "report.md").read_text(encoding="utf-8")
        tables = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
        assert len(tables) == 6
        for table in tables:
            assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(re.findall(r"\|", table[1]))}

    def test_signs_that_mean_something_are_escaped(self):
        assert markdown_report.escaped("a|b*c*\n<d>") == r"a\|b\*c\* \<d\>"
        assert markdown_report.escaped("modular_addition and _this_") == r"modular_addition and \_this\_"
        assert markdown_report.code("a`b") == "``a`b``"
        assert markdown_report.code("`a`") == "`` `a` ``"

    def test_links_lead_to_the_runs_pages(self, report):
        text = (report / "report.md").read_text(encoding="utf-8")
        links = re.findall(r"\]\(((?:\.\./).*?)\)", text)
        assert links == ["../runs/whole/figures/graph.html", "../runs/whole/figures/features.html"]
        assert all((report / link).is_file() for link in links)


class TestLatex:
    def test_tables_are_whole(self, report):
        text = (report / "report.tex").read_text(encoding="utf-8")
        assert text.startswith("% ")
        begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
        assert sorted(begun) == sorted(ended)
        tabulars = re.findall(r"\\begin{tabular}{([lr]+)}(.*?)\\end{tabular}", text, re.DOTALL)
        assert len(tabulars) == 4
        for columns, body in tabulars:
            rows = [line for line in body.splitlines() if line.endswith(r"\\")]
            assert len(rows) > 1
            assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}
            assert [len(re.findall(rf"\\{rule}", body)) for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]
        labels = re.findall(r"\\label{(.*?)}", text)
        assert len(set(labels)) == len(labels) == 4

    def test_signs_that_latex_takes_for_its_own(self):
        expected = (
            r"a\textbar{}b \textasciigrave{}c\textasciigrave{} *d* \textless{}e\textgreater{} \_f\_ [g] \& 100\% "
            r"\#1 \$\textbackslash{}x\_1\$ \{h\} \textasciitilde{}i\textasciicircum{}j \textbackslash{}k"
        )
        assert latex_report.escaped(STRANGE) == expected
        assert latex_report.escaped("1 ± 2 –") == r"1 $\pm$ 2 --"


class Parts(HTMLParser):
    """Addresses, and whether every element is closed."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class TestPage:
    def test_it_is_whole_and_needs_nothing_else(self, report):
        text = (report / "report.html").read_text(encoding="utf-8")
        parts = Parts()
        parts.feed(text)
        assert parts.open == []
        kinds = {re.split(r"[:/#,]", address)[0] for address in parts.addresses}
        assert kinds == {"data", "", "..", "evidence.csv", "metrics.csv", "report.md"}
        linked = [address for address in parts.addresses if address.startswith("..")]
        assert [(report / address).is_file() for address in linked] == [True, True]
        assert text.count("data:image/png") == len(list((report / "figures").glob("*.png")))
        assert "<script>\n" in text
        assert "&lt;script&gt;" in text
        assert text.count("<script>") == 1

    def test_every_colour_that_it_names_is_there(self, report):
        text = (report / "report.html").read_text(encoding="utf-8")
        used, defined = set(re.findall(r"var\((--\w+)\)", text)), set(re.findall(r"(--\w+):", text))
        assert len(used) > 4
        assert used <= defined

    def test_code_between_backticks(self):
        assert code_spans("see `a<b` & c") == "see <code>a&lt;b</code> &amp; c"

    @needs_chromium
    @pytest.mark.parametrize("width", [400, 800, 1400])
    def test_nothing_is_wider_than_the_window(self, report, browser: Page, width):
        browser.open(report / "report.html", width)
        assert browser.run("document.documentElement.scrollWidth") == width
        inside = (
            "[...document.querySelectorAll('h1, h2, li, p, figure, .scrolling')]"
            ".filter(one => one.getBoundingClientRect().right > innerWidth + 0.5).length"
        )
        assert browser.run(inside) == 0
        assert (browser.errors, browser.requests) == ([], [])

    @needs_chromium
    def test_tables_sort_by_number_with_a_click_and_with_a_key(self, report, browser: Page):
        browser.open(report / "report.html")
        head = "document.querySelector('thead').rows[0]"
        column = browser.run(f"[...{head}.cells].findIndex(cell => cell.textContent === 'test accuracy')")
        cells = f"[...document.querySelector('tbody').rows].map(row => row.cells[{column}].textContent.trim())"
        state = f"[...{head}.cells].map(cell => cell.getAttribute('aria-sort'))"
        browser.run(f"{head}.cells[{column}].firstChild.focus()")
        for kind in ("keyDown", "keyUp"):
            enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
            browser.send("Input.dispatchKeyEvent", type=kind, **enter)
        ascending = [float(text) for text in browser.run(cells)]
        assert browser.run(state)[column] == "ascending"
        browser.run(f"{head}.cells[{column}].firstChild.click()")
        descending = [float(text) for text in browser.run(cells)]
        assert browser.run(state)[column] == "descending"
        assert len(ascending) == 3
        assert ascending == sorted(ascending) == descending[::-1]
        browser.run(f"{head}.cells[0].firstChild.click()")
        assert browser.run(state)[column] == "none"

    @needs_chromium
    def test_what_is_missing_stays_at_the_end(self, report, browser: Page):
        browser.open(report / "report.html")
        head = "document.querySelector('thead').rows[0]"
        column = browser.run(f"[...{head}.cells].findIndex(cell => cell.textContent === 'modularity')")
        last = f"document.querySelector('tbody').rows[2].cells[{column}].textContent.trim()"
        for _ in range(2):
            browser.run(f"{head}.cells[{column}].firstChild.click()")
            assert browser.run(last) == "–"

    @needs_chromium
    def test_on_a_phone_figures_fit_and_can_be_enlarged(self, report, browser: Page):
        browser.open(report / "report.html", 400)
        box = "document.querySelector('.paper')"
        assert browser.run(f"{box}.scrollWidth <= {box}.clientWidth")
        browser.run("document.querySelector('.enlarge').click()")
        assert browser.run(f"{box}.scrollWidth > 1.5 * {box}.clientWidth")
        assert browser.run("document.documentElement.scrollWidth") == 400

    @needs_chromium
    def test_figures_can_be_enlarged(self, report, browser: Page):
        browser.open(report / "report.html", 1400)
        width = "document.querySelector('figure img').getBoundingClientRect().width"
        before = browser.run(width)
        browser.run("document.querySelector('.enlarge').click()")
        assert browser.run(width) > 1.5 * before
        assert browser.run("document.querySelector('.enlarge').getAttribute('aria-pressed')") == "true"


class TestTracker:
    def test_the_comparison_is_a_run_with_tables(self, report):
        (path,) = report.glob("wandb/offline-run-*/run-*.wandb")
        found = read_offline_run(path)
        assert (found.run.project, found.run.job_type, found.exit_code) == ("mine", "report", 0)
        tables = {name: value for name, value in found.summary.items() if value.get("_type") == "table-file"}
        assert set(tables) == {"report/metrics", "report/modular_addition"}
        logged = {name: read_json(next(path.parent.glob(f"files/{value['path']}"))) for name, value in tables.items()}
        overview = logged["report/modular_addition"]
        assert overview["columns"][:3] == ["dtype", "method", "n"]
        column = overview["columns"].index("test accuracy")
        scores = {row[1]: row[column] for row in overview["data"]}
        assert scores[STRANGE] == 0.25
        assert {"value", "metric", "dtype"} <= set(logged["report/metrics"]["columns"])
        n_lines = len((report / "metrics.csv").read_text(encoding="utf-8").splitlines())
        assert len(logged["report/metrics"]["data"]) == n_lines - 1
        assert {"figures/sweep_dtype", "report/page"} <= set(found.summary)

    def test_one_that_refuses_takes_nothing_with_it(self, tmp_path, capsys, monkeypatch):
        write_run(tmp_path / "runs" / "lib", few_settings("lib", 0))
        monkeypatch.setenv("WANDB_MODE", "sideways")
        with pytest.raises(SystemExit) as ended:
            main([str(tmp_path / "runs"), "--out", str(tmp_path / "report"), "--wandb"])
        (line,) = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2
        assert line == "error: WANDB_MODE=sideways: expected online, offline or disabled"
        assert "report.html" in files_below(tmp_path / "report")
