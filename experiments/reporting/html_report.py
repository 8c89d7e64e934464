"""The report as one page that needs nothing else: tables that sort, figures within, links to the runs' own pages."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from experiments.reporting.contents import Report
from experiments.reporting.markdown_report import TITLE


def to_html(report: Report, out: Path) -> str:
    """The whole page; figures are read from below `out`."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("experiments.reporting"), PackageLoader("experiments.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "code_spans": code_spans,
        "breakable": breakable,
        "unbroken": unbroken,
        "embedded": lambda address: embedded(out / address),
    }
    environment.filters.update(filters)
    return environment.get_template("report.html").render(title=TITLE, report=report, summary=summary_of(report))


def summary_of(report: Report) -> dict[str, str]:
    """How much is compared."""
    n_runs = sum(len(one.runs) for model in report.models for one in model.runs.settings)
    counts = {
        "models": ", ".join(model.title for model in report.models),
        "settings": str(len(report.sections)),
        "runs": str(n_runs),
    }
    return counts | ({"without results": str(len(report.unfinished))} if report.unfinished else {})


def code_spans(note: str) -> Markup:
    """What stands between backticks as code."""
    parts = note.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )


def breakable(name: str) -> Markup:
    """A dotted key that may go on in the next line."""
    return Markup(".<wbr>").join(re.split(r"\.(?=[A-Za-z_])", name))


def unbroken(title: str) -> Markup:
    """A title whose parts stay on one line where they fit: `1e-15` is not broken at its sign."""
    part = Markup('<span class="part">{}</span>')
    return Markup(" ").join(part.format(text) for text in re.split(r"(?<=[,:]) ", title))


@dataclass(frozen=True)
class EmbeddedImage:
    """A figure as the address of itself, and its size in pixels, so that the page does not move while it loads."""

    address: str
    width: int
    height: int


def embedded(path: Path) -> EmbeddedImage:
    """A PNG in 256 colours: a quarter of the file's size (measured on graphs)."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        few_colours = image.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few_colours.save(buffer, "PNG", optimize=True)
        encoded = base64.b64encode(buffer.getvalue()).decode()
        return EmbeddedImage(f"data:image/png;base64,{encoded}", *image.size)
