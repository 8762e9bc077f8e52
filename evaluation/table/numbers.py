"""The numbers of a table, from the records of any runs: what `table.json` holds.

What a cell means is what `summary.py` says: Pass@1 over the scored samples, an interval over units, a mean only where
every column is there. Rows are compared on the same samples, which need not come from the same run: they are joined by
id, and must be the same by their digest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.benchmarks import BENCHMARKS
from evaluation.published import COLUMNS, TABLE
from evaluation.records import EvalFolder, Key, Record
from evaluation.statistics import mean_over_seeds
from evaluation.summary import by_seed, interval, outcomes_of, rounded, tested, unit
from evaluation.table.sheet import Sheet, WantedRow

Seeds = list[dict[Key, Record]]  # a row's records, of each of its systems


def compute(sheet: Sheet, skip_missing: bool = False) -> dict[str, Any]:
    """What `table.json` holds. `ValueError` if a run or a system is not there, or runs hold different samples."""
    seeds = {row.label: _read(row, sheet.columns, skip_missing) for row in sheet.rows}
    _check_same_samples(sheet, seeds)
    rows = [_row(row, seeds, sheet.columns) for row in sheet.rows]
    return {
        "title": sheet.title,
        "columns": {name: _title(name) for name in sheet.columns},
        "rows": rows,
        "chance": {name: _chance(name, seeds) for name in sheet.columns},
    }


def _title(column: str) -> str:
    if column in COLUMNS:
        return COLUMNS[column].title
    return BENCHMARKS[column].title if column in BENCHMARKS else column


def _read(row: WantedRow, columns: Sequence[str], skip_missing: bool) -> Seeds:
    """The records of a row's systems in the columns; none for a row without a run."""
    if row.run is None:
        return []
    folder = EvalFolder(row.run)
    if not folder.exists():
        if skip_missing:
            return []
        raise ValueError(f"{row.label}: no run at {row.run}; make it, take the row out, or set skip_missing=true")
    found = []
    for system in row.system:
        records = folder.records(system).read()
        if not records:
            there = sorted({path.name.partition(".")[0] for path in (folder.path / "records").glob("*.jsonl")})
            raise ValueError(f"{row.label}: {row.run} has no records of {system!r}; there are: {', '.join(there)}")
        found.append({key: record for key, record in records.items() if record["task"] in columns})
    return found


def _check_same_samples(sheet: Sheet, seeds: Mapping[str, Seeds]) -> None:
    """`ValueError` unless records of one sample, by its id, are of the same sample in all rows."""
    known: dict[str, tuple[str, str]] = {}  # sample id -> digest, and the row that has it
    for row in sheet.rows:
        for records in seeds[row.label]:
            for (sample_id, _), record in records.items():
                digest, label = known.setdefault(sample_id, (record["sample"], row.label))
                if digest != record["sample"]:
                    raise ValueError(
                        f"sample {sample_id!r} of {record['task']} is not the same in the rows {label!r} and "
                        f"{row.label!r}: their runs used different data, so they cannot stand in one table"
                    )


def _row(row: WantedRow, seeds: Mapping[str, Seeds], columns: Sequence[str]) -> dict[str, Any]:
    mine = seeds[row.label]
    out: dict[str, Any] = {"label": row.label, "run": row.run, "systems": list(row.system)}
    if mine:
        out |= _ours(mine, columns)
    if row.published is not None:
        out["published"] = _published(row.published, columns)
        if mine:
            out["less_published"] = _less(out, out["published"], columns)
    if row.against is not None and mine and seeds[row.against]:
        out["against"] = {"label": row.against, **_paired(row, mine, seeds[row.against], columns)}
    return out


def _ours(seeds: Seeds, columns: Sequence[str]) -> dict[str, Any]:
    """Every column's Pass@1, and the mean of a row that has them all."""
    outcomes = [outcomes_of(rows, columns) for rows in seeds]
    cells: dict[str, Any] = {}
    for name in columns:
        rows = [record for records in seeds for record in records.values() if record["task"] == name]
        if rows:
            cells[name] = {
                **interval("value", mean_over_seeds(by_seed(outcomes, [], [name]), least=0.0)),
                "num_samples": len({record["sample_id"] for record in rows}),
                "num_units": len({unit(record) for record in rows}),
                "num_unscored": sum(record["correct"] is None for record in rows),
            }
    mean = mean_over_seeds(by_seed(outcomes, [], columns), least=0.0)
    return {"cells": cells, "mean": interval("value", mean)}


def _published(name: str, columns: Sequence[str]) -> dict[str, Any]:
    """A row of the paper in these columns, and its plain mean if the paper has them all."""
    scores = dict(zip(COLUMNS, TABLE[name].scores, strict=True))
    there = {column: scores[column] for column in columns if column in scores}
    mean = sum(there.values()) / len(there) if len(there) == len(columns) else None
    return {"row": name, "cells": there, "mean": None if mean is None else round(mean, 2)}


def _less(ours: Mapping[str, Any], published: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Ours minus the published numbers, where both are there."""
    pairs = {
        name: (ours["cells"][name]["value"], published["cells"][name])
        for name in columns
        if name in ours["cells"] and name in published["cells"]
    }
    cells = {name: round(mine - other, 2) for name, (mine, other) in pairs.items() if mine is not None}
    means = ours["mean"]["value"], published["mean"]
    return {"cells": cells, "mean": None if None in means else round(means[0] - means[1], 2)}


def _paired(row: WantedRow, mine: Seeds, others: Seeds, columns: Sequence[str]) -> dict[str, Any]:
    """The differences on the samples that both rows have scored, seed by seed where both are of several seeds."""
    if len(mine) != len(others) and 1 not in (len(mine), len(others)):
        raise ValueError(
            f"{row.label} has {len(mine)} seeds and {row.against} has {len(others)}; give equal numbers, or one"
        )
    ours, theirs = ([outcomes_of(rows, columns) for rows in seeds] for seeds in (mine, others))
    cells = {}
    for name in columns:
        seeds = by_seed(ours, theirs, [name])
        if not seeds[0][name]:  # no sample that both have scored
            continue
        cell = {**interval("value", mean_over_seeds(seeds, least=-100.0)), "num_units": len(seeds[0][name])}
        cells[name] = cell | (tested(seeds[0][name]) if len(seeds) == 1 else {})
    mean = None
    if len(cells) == len(columns):
        mean = interval("value", mean_over_seeds(by_seed(ours, theirs, columns), least=-100.0))
    return {"cells": cells, "mean": mean}


def _chance(column: str, seeds: Mapping[str, Seeds]) -> float | None:
    """The chance level of a column over all its samples."""
    chances = {
        sample_id: record["chance"]
        for row in seeds.values()
        for records in row
        for (sample_id, _), record in records.items()
        if record["task"] == column
    }
    return rounded(100 * sum(chances.values()) / len(chances)) if chances else None
