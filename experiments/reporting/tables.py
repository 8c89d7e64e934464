"""A table of the report, whatever it is written in: Markdown, HTML, LaTeX, a terminal or the tracker."""

from __future__ import annotations

from dataclasses import dataclass, field

MISSING = "–"


@dataclass(frozen=True)
class Link:
    """Text that leads somewhere; `address` is relative to the report."""

    text: str
    address: str


@dataclass(frozen=True)
class Entry:
    """One cell.

    Attributes:
        text: what is read.
        value: what it is sorted by, where it is a number.
        is_code: a name that is typed as it stands: a key, a path.
        links: what stands in the cell after the text.
    """

    text: str
    value: float | int | None = None
    is_code: bool = False
    links: tuple[Link, ...] = ()


NOTHING = Entry(MISSING)


@dataclass(frozen=True)
class Table:
    """Rows under a head of equal length.

    Attributes:
        caption: what it shows, in a few words.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    n_left: int = field(default=1)
    """How many columns from the left name the row; the others are aligned as numbers are."""

    def texts(self) -> list[list[str]]:
        """Head and rows as texts."""
        return [list(self.head), *([entry.text for entry in row] for row in self.rows)]
