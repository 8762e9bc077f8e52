"""The tables of a report, once for Markdown and for the page: what stands in them, not how it looks."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from evaluation.report.story import sentence
from evaluation.tabular import Cell, Row, Table, count_range, estimate, number

Report = Mapping[str, Any]  # what `summary.summarise` gives
SHEET = "The first sample of each task, not the best one: source, ground-truth edit, and what the systems drew"


class Section(NamedTuple):
    """A heading, what the tables under it mean, and the tables."""

    title: str
    about: str
    tables: list[Table]


def sections(report: Report) -> list[Section]:
    """All that a report has to say, in the order of reading; what the run has nothing of is left out."""
    parts = (
        _table,
        _seeds,
        _cells_in_full,
        _differences,
        _unscored,
        _repeats,
        _parts,
        _edits,
        _verification,
        _worth,
        _cost,
        _power,
    )
    return [section for part in parts if (section := part(report)) is not None]


def _cells(report: Report) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every system, task and cell."""
    for name, system in report["systems"].items():
        for task, cell in system["tasks"].items():
            yield name, task, cell


def _tasks(report: Report) -> list[str]:
    return list(next(iter(report["systems"].values()))["tasks"])


def main_table(report: Report, against: bool = False) -> Table:
    """A line for each system: its tasks, their mean, and how many of its edits are right; `against` the reference."""
    tasks = _tasks(report)
    edits = {name: _matching(system["tasks"]) for name, system in report["systems"].items()}
    edited = any(value is not None for value in edits.values())
    rows: list[Row] = []
    for name, system in report["systems"].items():
        row: list[Cell | str] = [name, *(number(system["tasks"][task]["pass_at_1"]) for task in tasks)]
        row += [estimate(system, "mean"), *([number(edits[name])] if edited else [])]
        rows.append([*row, *([estimate(report["paired"].get(name), "difference", sign=True)] if against else [])])
    chances = [_chance(report, task) for task in tasks]
    mean = None if None in chances else sum(value or 0 for value in chances) / len(chances)
    rows.append(["a blind guess", *map(number, chances), number(mean), *[""] * (edited + against)])
    head = ["system", *tasks, "mean", *(["matching edits"] if edited else [])]
    return Table([*head, *([f"against {report['reference']}"] if against else [])], rows)


def _matching(cells: Mapping[str, Mapping[str, Any]]) -> float | None:
    """The plain mean over tasks of the share of edits that match; None unless every task has one."""
    shares = [cell["edit_correct"] for cell in cells.values() if cell.get("edit_correct") is not None]
    return sum(shares) / len(shares) if len(shares) == len(cells) else None


def _table(report: Report) -> Section:
    counts = {cell["num_samples"] for _, _, cell in _cells(report)}
    failed = sum(cell["num_unscored"] for _, _, cell in _cells(report))
    about = (
        f"Samples per cell: {count_range(counts)}. Unscored (a call or an edit failed; in no cell): {failed}. "
        "The mean is the plain one over the tasks, in brackets its 95 % interval. Matching edits: percent of the edits "
        "that match the ground truth in every one of 16x16 blocks, mean over the tasks. The last column compares the "
        "same samples."
    )
    story = sentence(report.get("story", ()))
    return Section("Pass@1 in percent", f"{story}\n\n{about}".strip(), [main_table(report, against=True)])


def _cells_in_full(report: Report) -> Section:
    tasks = _tasks(report)
    rows = [
        [name, *(estimate(system["tasks"][task], "pass_at_1") for task in tasks)]
        for name, system in report["systems"].items()
    ]
    about = (
        "Wilson's interval of each cell; where several rows are about one question, a bootstrap over the questions. "
        "They join to that of the mean."
    )
    return Section("Pass@1 in percent, with 95 % intervals", about, [Table(["system", *tasks], rows)])


def _chance(report: Report, task: str) -> float | None:
    """The chance level of a task: of the system that has most of its samples."""
    cells = [cell for _, name, cell in _cells(report) if name == task]
    return max(cells, key=lambda cell: cell["num_samples"])["chance"]


def _seeds(report: Report) -> Section | None:
    tasks, against = _tasks(report), f"against {report['reference']}"
    rows: list[Row] = []
    for name, group in report["groups"].items():
        shares = [number(group["tasks"][task]) for task in tasks]
        signed = [estimate(group.get(key), sign=True) for key in ("against", "edits_against")]
        mean, edits = estimate(group["mean"]), estimate(group["edits"])
        rows.append([name, str(len(group["systems"])), *shares, mean, signed[0], edits, signed[1]])
    if not rows:
        return None
    head = ["method", "seeds", *tasks, "mean", against, "matching edits", against]
    about = (
        "Systems of one group are seeds of one method. The intervals say what other seeds on other samples would give."
    )
    return Section("Means over seeds", about, [Table(head, rows)])


def _differences(report: Report) -> Section | None:
    tasks = _tasks(report)
    rows = [
        [name, *(_difference(paired["tasks"][task]) for task in tasks)] for name, paired in report["paired"].items()
    ]
    if not rows:
        return None
    about = (
        "Points gained or lost on the samples that both have scored. In brackets the 95 % interval; then samples that "
        "only this system has right, samples that only the reference has right, and the p of McNemar's exact test, "
        "each task by itself (not corrected for their number; none where one question is put several times)."
    )
    return Section(f"Differences from {report['reference']}, task by task", about, [Table(["system", *tasks], rows)])


def _difference(cell: Mapping[str, Any]) -> Cell:
    found = estimate(cell, "difference", sign=True)
    if "p_value" not in cell or not found.beside:
        return found
    return Cell(found.text, f"{found.beside}\n+{cell['gained']} −{cell['lost']}, p {cell['p_value']:g}")


def _unscored(report: Report) -> Section | None:
    rows = [
        [f"{name}: {task}", f"{cell['num_unscored']} of {cell['num_samples']}"]
        + [number(cell[key]) for key in ("pass_at_1", "if_wrong", "if_right")]
        for name, task, cell in _cells(report)
        if cell["num_unscored"]
    ]
    if not rows:
        return None
    about = (
        "A failed call or edit is no wrong answer. The last columns say what Pass@1 would be if it were, or were not."
    )
    head = ["system: task", "unscored", "Pass@1 without them", "if all were wrong", "if all were right"]
    return Section("Unscored samples", about, [Table(head, rows)])


def _repeats(report: Report) -> Section | None:
    found = [(name, task, cell["pass_at_k"]) for name, task, cell in _cells(report) if "pass_at_k" in cell]
    if not found:
        return None
    numbers = sorted({int(k) for _, _, values in found for k in values})
    rows = [[f"{name}: {task}", *(number(values.get(str(k))) for k in numbers)] for name, task, values in found]
    about = (
        "The chance in percent that one of k tries is right, over the samples whose tries are all scored. pass@1 is "
        "what others call mean@k, the mean over all tries."
    )
    return Section("Several tries", about, [Table(["system: task", *(f"pass@{k}" for k in numbers)], rows)])


def _parts(report: Report) -> Section | None:
    tables = []
    for task in _tasks(report):
        for key, what in (("categories", "by category"), ("parts", "by other rules")):
            found = {name: cell[key] for name, other, cell in _cells(report) if other == task and key in cell}
            names = sorted({part for values in found.values() for part in values})
            rows = [[name, *(number(values.get(part)) for part in names)] for name, values in found.items()]
            if rows:
                tables.append(Table([f"{task}, {what}", *names], rows))
    return (
        Section("Categories, and other rules of scoring", "Percent of the scored samples.", tables) if tables else None
    )


def _edits(report: Report) -> Section | None:
    tasks = _tasks(report)
    tables = []
    for key, what in (
        ("edit_correct", "edit matches the ground truth"),
        ("edit_judged", "edit is right, says the edit judge"),
        ("edit_used", "answered from the edit"),
    ):
        systems = {name: system["tasks"] for name, system in report["systems"].items()}
        rows = [
            [name, *(number(cells[task].get(key)) for task in tasks)]
            for name, cells in systems.items()
            if any(cells[task].get(key) is not None for task in tasks)
        ]
        if rows:
            tables.append(Table([what, *tasks], rows))
    return (
        Section(
            "Edits",
            "Percent of the samples that have an edit, or a verdict of the judge; the last table of all.",
            tables,
        )
        if tables
        else None
    )


def _verification(report: Report) -> Section | None:
    rows: list[Row] = []
    for name, parts in report["verification"].items():
        for task, seen in parts.items():
            if name == "all" or task == "all":  # each task's verdicts are shown over all systems together
                shares = [number(seen[key]) for key in ("accept_rate", "precision", "recall", "specificity")]
                label = name if task == "all" else f"{name}: {task}"
                rows.append([label, str(seen["num_verdicts"]), *shares, str(seen["num_unparsable"])])
    if not rows:
        return None
    head = ["edits of", "verdicts", "accepted %", "precision %", "recall %", "wrong rejected %", "unparsable"]
    about = (
        "Verdicts against pixels. Precision: accepted edits that match the ground truth. Recall: matching edits that "
        "were accepted. On ground-truth edits a verdict that rejects is the verifier's mistake."
    )
    return Section("Verification", about, [Table(head, rows)])


def _worth(report: Report) -> Section | None:
    rows: list[Row] = []
    for name, worth in report["worth"].items():
        for verdict, counts in worth["table"].items():
            effects = [str(counts[key]) for key in ("helps", "harms", "both_right", "both_wrong")]
            rows.append([f"{name}: {verdict}", worth["without"], worth["unverified"], *effects])
    if not rows:
        return None
    about = (
        "Samples by the verdict on their edit, and by what that edit does to the answer: it helps if the answer is "
        "wrong without it and right with it, unverified. Good verification accepts what helps and not what harms."
    )
    head = ["verdict", "without", "with, unverified", "helps", "harms", "both right", "both wrong"]
    return Section("What verification is worth", about, [Table(head, rows)])


def _cost(report: Report) -> Section:
    steps = list(dict.fromkeys(step for cost in report["cost"].values() for step in cost["seconds"]))
    judged = any(cost["judging"]["usage"] for cost in report["cost"].values())
    rows: list[Row] = []
    for name, cost in report["cost"].items():
        counts = [f"{cost[key]:,}" for key in ("num_samples", "num_edits")]
        per_sample = [_seconds(cost, step) for step in steps]
        *tokens, usd = _tokens(cost)
        grading = _tokens(cost["judging"]) if judged else []
        rows.append([name, *counts, *tokens, *per_sample, usd, *grading])
    about = (
        "What each system takes when it is run alone; replies and edits that systems share are counted for each. "
        "Seconds are per sample, as measured, with many calls in flight. US dollars by configs/prices.yaml: not known "
        "where a model has no price there or its server counts no tokens. What judges took to grade a system stands "
        "apart: it is no part of the system."
    )
    kinds = ("calls", "prompt tokens", "reply tokens")
    head = ["system", "samples", "edits", *kinds, *(f"{step} s" for step in steps), "USD"]
    head += [f"judges: {kind}" for kind in (*kinds, "USD")] if judged else []
    return Section("Cost", about, [Table(head, rows)])


def _tokens(cost: Mapping[str, Any]) -> list[str]:
    """Calls, prompt and reply tokens, US dollars."""
    used = cost["usage"].values()
    counts = [f"{sum(use[key] for use in used):,}" for key in ("calls", "prompt_tokens", "completion_tokens")]
    return [*counts, "not known" if cost["usd"] is None else f"{cost['usd']:.2f}"]


def _seconds(cost: Mapping[str, Any], step: str) -> str:
    if step not in cost["seconds"] or not cost["num_samples"]:
        return "-"
    return f"{cost['seconds'][step] / cost['num_samples']:.3f}"


def _power(report: Report) -> Section | None:
    name = report["reference"] if report["reference"] in report["systems"] else next(iter(report["systems"]))
    cells = {task: cell for task, cell in report["systems"][name]["tasks"].items() if "detectable" in cell}
    if not cells:
        return None
    rows = []
    for task, cell in cells.items():
        limits = cell["detectable"]
        shown = [limits[key] for key in ("least", "paired", "paired_80")]
        gains = [number(limit) if limit <= 100 else "> 100" for limit in shown]
        rows.append([task, str(limits["num_units"]), *gains])
    about = (
        f"The smallest gain over {name}, in points, that so many samples can show at 95 %. At least: if no sample is "
        "lost. Paired: if the two systems differ on a fifth of the samples; the next column is the true gain that is "
        "shown in 80 of 100 such comparisons."
    )
    head = ["task", "samples or questions", "at least", "paired", "paired, 80 %"]
    return Section("What these numbers of samples can show", about, [Table(head, rows)])


def bars(report: Report) -> list[dict[str, Any]]:
    """What the page draws: Pass@1 of every system, first over all tasks, then task by task."""
    keys = ("value", "low", "high")
    mean = [dict(zip(keys, (s["mean"], s["low"], s["high"]), strict=True)) for s in report["systems"].values()]
    found: list[dict[str, Any]] = [{"title": "mean over tasks", "bars": mean, "chance": None}]
    for task in _tasks(report):
        cells = [system["tasks"][task] for system in report["systems"].values()]
        shown = [dict(zip(keys, (c["pass_at_1"], c["low"], c["high"]), strict=True)) for c in cells]
        found.append({"title": task, "bars": shown, "chance": _chance(report, task)})
    return found
