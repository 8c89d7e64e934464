"""Self-contained HTML pages: a template with everything it needs inside, the data it shows as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps

from experiments.pipeline.json_files import write_text
from libcore.regular_files import regular_text

EMBEDDED = re.compile(r'<script type="application/json" id="page-data">(.*?)</script>', re.DOTALL)


def write_html_page(path: Path, template: str, data: object, **values: object) -> None:
    """Fill in one of `templates/` and write it; the file appears whole or not at all.

    Args:
        path: where to; its folder is made if it is missing.
        template: the file's name.
        data: what its script reads; numbers must be finite.
        values: what the template itself names.
    """
    environment = Environment(loader=PackageLoader("experiments.pages"), autoescape=True, undefined=StrictUndefined)
    # Every `<`, `>`, `&` and `'` leaves as \uXXXX, so no label can close the script element it is embedded in.
    embedded = htmlsafe_json_dumps(data, separators=(",", ":"), allow_nan=False)
    write_text(path, environment.get_template(template).render(data=embedded, **values))


def read_page_data(path: Path) -> dict[str, Any]:
    """What `write_html_page` embedded. Raises ValueError for a file that is no such page, OSError for none."""
    found = EMBEDDED.search(regular_text(path, errors="replace"))
    try:
        data = json.loads(found[1]) if found else None
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise ValueError(f"{path}: no data of a page inside; expected a graph.html that a run of this version wrote")
    return data
