"""A table of claims as Markdown: a line for each comparison, and below it each task by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.claims.numbers import HOLDS, NO_DATA
from evaluation.tabular import MISSING, Cell, Row, Table, count_range, estimate, markdown_table, markdown_text, number

TITLES = {"pass_at_1": "Pass@1", "edits": "matching edits"}
NOTE = (
    "Differences in percentage points, mean of the tasks, on the same samples and seed by seed, with 95 % intervals "
    "that join the uncertainty of the samples and of the seeds. A claim holds where its interval excludes 0 on the "
    "claimed side, does not hold where it excludes 0 on the other, and is not shown where it includes 0; of several "
    "comparisons (where it says so, of every task too) all must hold. Matching edits: the pixel check, without any "
    "model. Shallow and deep samples part where a task's halves are most even."
)


def markdown(found: Mapping[str, Any]) -> str:
    """The document."""
    lines = [
        f"# {markdown_text(found['title'])}",
        "",
        *markdown_table(_claims(found)),
        "",
        NOTE,
        "",
        _counts(found),
        "",
    ]
    for measure, title in TITLES.items():
        table = _tasks(found, measure)
        if table.rows:
            lines += [f"## {title[0].upper()}{title[1:]}, task by task", "", *markdown_table(table), ""]
    return "\n".join(lines)


def _claims(found: Mapping[str, Any]) -> Table:
    rows: list[Row] = []
    for claim in found["claims"]:
        for place, comparison in enumerate(claim["comparisons"]):
            names = ["", ""] if place else [claim["claim"], claim["paper"]]
            cells = [cell for measure in TITLES for cell in _cells(comparison[measure], claim["each_task"])]
            rows.append([*names, comparison["label"], *cells])
        if len(claim["comparisons"]) > 1 or claim["each_task"]:
            verdicts = [cell for measure in TITLES for cell in ("", "", claim[f"verdict_{measure}"])]
            rows.append(["", "", "all of it", *verdicts])
    head = [
        "claim",
        "paper",
        "compared",
        *(word for title in TITLES.values() for word in (title, "each seed", "verdict")),
    ]
    return Table(head, rows, 3)


def _cells(measured: Mapping[str, Any] | None, each_task: bool) -> list[Cell | str]:
    """A difference with its interval, those of the seeds, and the verdict."""
    if measured is None:
        return [MISSING, "", NO_DATA]
    seeds = ", ".join(number(value, sign=True) for value in measured["seeds"])
    words = measured["verdict"]
    if each_task:
        verdicts = [cell["verdict"] for cell in measured["tasks"].values()]
        words += f"; in {verdicts.count(HOLDS)} of {len(verdicts)} tasks"
    return [estimate(measured, sign=True), seeds if len(measured["seeds"]) > 1 else "", words]


def _tasks(found: Mapping[str, Any], measure: str) -> Table:
    rows: list[Row] = []
    for claim in found["claims"]:
        for comparison in claim["comparisons"]:
            if comparison[measure] is not None:
                rows.append([comparison["label"], *(_task(comparison, measure, task) for task in found["tasks"])])
    return Table(["compared", *found["tasks"]], rows)


def _task(comparison: Mapping[str, Any], measure: str, task: str) -> Cell:
    cell = comparison[measure]["tasks"].get(task)
    if cell is None:
        return Cell(MISSING)
    shown = estimate(cell, sign=True)
    limit = comparison["shallow_up_to"][task] if comparison["by_depth"] else None
    return shown if limit is None else Cell(shown.text, f"{shown.beside}, shallow up to {limit:g}")


def _counts(found: Mapping[str, Any]) -> str:
    counts: Sequence[int] = list(found["tasks"].values())
    return f"Samples a task: {count_range(set(counts))}. Runs: {', '.join(map(markdown_text, found['runs']))}."
