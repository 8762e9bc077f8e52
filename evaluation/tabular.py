"""Numbers and tables as text, for every report: percent with one decimal, intervals in brackets, Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etchr.pages import short

MISSING = "-"  # where there is no number


class Cell(NamedTuple):
    """What stands in a cell: a value and, smaller beside it, its interval or whatever goes with it."""

    text: str
    beside: str = ""


Row = Sequence[Cell | str]


class Table(NamedTuple):
    """A table: its first column, or its first ones, hold words, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Row]
    words: int = 1  # columns of words


def number(value: float | None, sign: bool = False) -> str:
    """A percentage with one decimal, with its sign if it is a difference; a dash if there is none."""
    return MISSING if value is None else f"{value:+.1f}" if sign else f"{value:.1f}"


def interval(value: float | None, low: float | None, high: float | None, sign: bool = False) -> Cell:
    """A value with its interval."""
    return Cell(number(value, sign), "" if value is None else f"[{number(low, sign)}, {number(high, sign)}]")


def estimate(parts: Mapping[str, Any] | None, key: str = "value", sign: bool = False) -> Cell:
    """The value called `key` of a dict that holds its bounds as `low` and `high`; an empty cell without a dict."""
    return interval(parts[key], parts["low"], parts["high"], sign) if parts else Cell("")


def count_range(counts: set[int]) -> str:
    """`200`, or `191 to 800`."""
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def text_of(cell: Cell | str) -> Cell:
    """A cell in its long form."""
    return Cell(cell) if isinstance(cell, str) else cell


def markdown_table(table: Table) -> list[str]:
    """The lines of a table in Markdown; whatever a name holds, it stays in its cell."""
    lines = [table.head, [*["---"] * table.words, *["---:"] * (len(table.head) - table.words)]]
    lines += [[" ".join(filter(None, text_of(cell))) for cell in row] for row in table.rows]
    return [f"| {' | '.join(map(markdown_text, line))} |" for line in lines]


def text_table(table: Table) -> list[str]:
    """The lines of a table for a terminal: names to the left, numbers to the right."""
    lines = [[short(word) for word in table.head]]
    lines += [[short(" ".join(filter(None, text_of(cell)))) for cell in row] for row in table.rows]
    wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join([line[0].ljust(wide[0]), *map(str.rjust, line[1:], wide[1:])]).rstrip() for line in lines]


def markdown_text(words: str) -> str:
    """`words` on one line, without what Markdown would take for the end of a cell, an element of HTML or a link."""
    words = short(words)
    marks = (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("![", "&#33;&#91;"), ("](", "&#93;("), ("://", "&#58;//"))
    for mark, escaped in marks:
        words = words.replace(mark, escaped)
    return words
