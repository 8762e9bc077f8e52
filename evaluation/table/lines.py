"""What is printed of a table: a block of lines for every row, and what its reader must know."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.published import COLUMNS
from evaluation.tabular import MISSING, Cell, Row, Table, count_range, estimate, number


def table_of(found: Mapping[str, Any]) -> Table:
    """The table as it is printed: a block of lines for every row."""
    columns = list(found["columns"])
    lines = [line for row in found["rows"] for line in _lines(row, columns)]
    chances = [found["chance"][name] for name in columns]
    if any(chance is not None for chance in chances):
        mean = None if None in chances else sum(chances) / len(chances)
        lines.append(["a blind guess", *map(number, chances), number(mean)])
    return Table(["", *found["columns"].values(), "mean"], lines)


def _lines(row: Mapping[str, Any], columns: Sequence[str]) -> list[Row]:
    lines: list[Row] = []
    first = row["label"]  # stands on the first line of the block
    if "cells" in row:
        lines.append([first, *(_cell(row["cells"].get(name)) for name in columns), _cell(row["mean"])])
        first = ""
    if "published" in row:
        published = row["published"]
        label = "... published" if not first else f"{first}, published"
        shown = [number(published["cells"].get(name)) for name in columns]
        mean = MISSING if published["mean"] is None else f"{published['mean']:.2f}"  # as the paper prints it
        lines.append([label, *shown, mean])
    if "less_published" in row:
        less = row["less_published"]
        shown = [number(less["cells"].get(name), sign=True) for name in columns]
        lines.append(["... minus published", *shown, number(less["mean"], sign=True)])
    if "against" in row:
        against = row["against"]
        pairs = [_cell(against["cells"].get(name), sign=True) for name in columns]
        lines.append([f"... minus {against['label']}", *pairs, _cell(against["mean"], sign=True)])
    return lines or [[first, *[MISSING] * (len(columns) + 1)]]


def _cell(found: Mapping[str, Any] | None, sign: bool = False) -> Cell:
    """A value with its interval, and with the p of its test if there is one."""
    if found is None:
        return Cell(MISSING)
    cell = estimate(found, sign=sign)
    return Cell(cell.text, f"{cell.beside}\np {found['p_value']:g}") if "p_value" in found else cell


def note(found: Mapping[str, Any]) -> str:
    """What the reader of the table must know."""
    parts = [
        "Pass@1 in percent with 95 % intervals; the mean is the plain one, where every column is there. Published "
        "numbers have no intervals, so a difference from them has none. Differences between rows are on the samples "
        "that both have scored; p is McNemar's exact test, each column by itself."
    ]
    counts = [text for name in found["columns"] if (text := _samples(found, name))]
    if counts:
        parts.append(f"Samples: {', '.join(counts)}.")
    unscored = sum(cell["num_unscored"] for row in found["rows"] for cell in row.get("cells", {}).values())
    parts.append(f"Unscored, and in no number: {unscored}.")
    absent = [row["label"] for row in found["rows"] if row["run"] is not None and "cells" not in row]
    if absent:
        parts.append(f"Not run: {', '.join(absent)}.")
    return " ".join(parts)


def _samples(found: Mapping[str, Any], column: str) -> str:
    """How many samples the rows have in a column; beside it how many the published set has, if that differs."""
    counts = {row["cells"][column]["num_samples"] for row in found["rows"] if column in row.get("cells", {})}
    if not counts:
        return ""
    whole = COLUMNS[column].num_samples if column in COLUMNS else None
    return f"{found['columns'][column]} {count_range(counts)}" + (f" of {whole}" if whole and counts != {whole} else "")
