"""The YAML file of a table's rows: what stands in it is checked here, before any record is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.published import COLUMNS, TABLE
from evaluation.spec import read_spec, with_keys

ROW_KEYS = ("label", "run", "system", "published", "against")
FILE_KEYS = ("title", "columns", "rows")


@dataclass(frozen=True)
class WantedRow:
    """A row as the YAML file has it."""

    label: str
    run: str | None = None  # folder
    system: tuple[str, ...] = ()  # of the run; several are seeds of one method
    published: str | None = None  # row of the paper's table
    against: str | None = None  # label of the row that it is compared with, sample by sample


@dataclass(frozen=True)
class Sheet:
    """A YAML file of rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[WantedRow, ...]


def read_sheet(path: Path) -> Sheet:
    """The rows in a YAML file; `ValueError` in one sentence for what does not fit."""
    content = read_spec(path, "rows", "configs/table", FILE_KEYS)
    if not isinstance(content.get("rows"), list) or not content["rows"]:
        raise ValueError(f"{path} needs rows: a list of {{{', '.join(ROW_KEYS)}}}")
    rows = tuple(_wanted(row, f"{path}, row {place}") for place, row in enumerate(content["rows"], 1))
    labels = [row.label for row in rows]
    for row in rows:
        if labels.count(row.label) > 1:
            raise ValueError(f"{path} has several rows labelled {row.label!r}; labels must differ")
        if row.against is not None and (row.against not in labels or row.against == row.label):
            raise ValueError(f"{path}, {row.label}: against={row.against!r} is no other row's label")
    columns = content.get("columns", list(COLUMNS))
    if not isinstance(columns, list) or not columns or not all(isinstance(name, str) for name in columns):
        raise ValueError(f"{path}: columns must be a list of benchmarks")
    return Sheet(str(content.get("title", path.stem)), tuple(dict.fromkeys(columns)), rows)


def _wanted(value: Any, where: str) -> WantedRow:
    row = with_keys(value, ROW_KEYS, where)
    systems = row.get("system", [])
    systems = [systems] if isinstance(systems, str) else systems
    label, run, published, against = texts = [row.get(key) for key in ("label", "run", "published", "against")]
    if not isinstance(systems, list) or not all(isinstance(text, str) for text in systems):
        raise ValueError(f"{where}: system must be the name of a system, or a list of names that are seeds of a method")
    if any(text is not None and not isinstance(text, str) for text in texts) or not label:
        raise ValueError(f"{where} needs a label, and texts for run, published and against")
    if bool(run) != bool(systems) or not (systems or published):
        raise ValueError(f"{where} needs run and system, or published, or all of them")
    if published is not None and published not in TABLE:
        raise ValueError(f"{where}: no published row {published!r}; there are: {', '.join(TABLE)}")
    return WantedRow(label, run, tuple(systems), published, against)
