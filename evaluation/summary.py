"""From records to numbers: what `report.json` holds. No model, no images."""

from collections.abc import Mapping
from typing import Any

from evaluation.records import Record
from evaluation.statistics import Estimate, Verification, mean_over_seeds, mean_over_tasks, paired_difference, wilson

Records = Mapping[str, Mapping[str, Record]]  # system -> sample id -> record


def summarise(
    records: Records, tasks: list[str], reference: str, groups: Mapping[str, list[str]] | None = None
) -> dict[str, Any]:
    """The table: per system its mean over tasks, each task's Pass@1, edits, verification and the paired difference.

    Differences are against the system `reference`. `groups` names systems that are seeds of one method.

    Unscored samples (failed calls) are in no denominator; their number stands beside each cell. Percent throughout.
    """
    outcomes = {name: _outcomes(rows, tasks) for name, rows in records.items()}
    report: dict[str, Any] = {"reference": reference, "systems": {}, "paired": {}, "groups": {}, "verification": {}}
    for name, rows in records.items():
        mean = mean_over_tasks({task: list(right.values()) for task, right in outcomes[name].items()})
        report["systems"][name] = {
            "mean": _round(mean.value),
            "low": _round(mean.low),
            "high": _round(mean.high),
            "tasks": {task: _cell(rows, task, outcomes[name][task]) for task in tasks},
        }
        if reference in records and name != reference:
            report["paired"][name] = _interval("difference", paired_difference(outcomes[name], outcomes[reference]))
        if any(record["verdict"] for record in rows.values()):
            report["verification"][name] = _verification(rows.values(), tasks)
    for name, members in (groups or {}).items():
        report["groups"][name] = _group(records, members, tasks, reference)
    every = [record for rows in records.values() for record in rows.values() if record["verdict"]]
    if every:
        report["verification"]["all"] = _verification(every, tasks)
    return report


def _group(records: Records, members: list[str], tasks: list[str], reference: str) -> dict[str, Any]:
    """A method over its seeds: Pass@1 and edits that match, each with its difference from the reference."""
    seeds = [_outcomes(records[name], tasks) for name in members]
    edits = [_matches(records[name], tasks) for name in members]
    shares = {task: [wilson(sum(seed[task].values()), len(seed[task])).value for seed in seeds] for task in tasks}
    report: dict[str, Any] = {
        "systems": members,
        "tasks": {task: _round(sum(values) / len(values)) for task, values in shares.items()},
        "mean": _interval("value", mean_over_seeds(seeds)),
        "edits": _interval("value", mean_over_seeds(edits)),
    }
    if reference in records:
        report["against"] = _interval("value", mean_over_seeds(seeds, _outcomes(records[reference], tasks)))
        report["edits_against"] = _interval("value", mean_over_seeds(edits, _matches(records[reference], tasks)))
    return report


def _matches(rows: Mapping[str, Record], tasks: list[str]) -> dict[str, dict[str, bool]]:
    """task -> sample id -> whether the edit matches the ground truth, of the samples that have both."""
    seen = {key: row for key, row in rows.items() if row["edit"] and row["edit"]["matches"] is not None}
    return {task: {key: row["edit"]["matches"] for key, row in seen.items() if row["task"] == task} for task in tasks}


def _outcomes(rows: Mapping[str, Record], tasks: list[str]) -> dict[str, dict[str, bool]]:
    """task -> sample id -> right, of the scored samples, in the order of their ids."""
    scored = {key: rows[key] for key in sorted(rows) if rows[key]["correct"] is not None}
    return {task: {key: row["correct"] for key, row in scored.items() if row["task"] == task} for task in tasks}


def _cell(rows: Mapping[str, Record], task: str, right: Mapping[str, bool]) -> dict[str, Any]:
    mine = [record for record in rows.values() if record["task"] == task]
    share = wilson(sum(right.values()), len(right))
    cell = {
        "pass_at_1": _round(share.value),
        "low": _round(share.low),
        "high": _round(share.high),
        "num_samples": len(mine),
        "num_unscored": sum(record["correct"] is None for record in mine),
    }
    checked = [record["edit"]["matches"] for record in mine if record["edit"] and record["edit"]["matches"] is not None]
    if checked:
        cell["edit_correct"] = _round(100 * sum(checked) / len(checked))
        cell["edit_used"] = _round(100 * sum(record["used_edit"] for record in mine) / len(mine))
    return cell


def _verification(rows: Any, tasks: list[str]) -> dict[str, Any]:
    rows = [record for record in rows if record["verdict"] and record["edit"]["matches"] is not None]
    parts = {"all": rows} | {task: [record for record in rows if record["task"] == task] for task in tasks}
    return {name: _counts(part) for name, part in parts.items() if part}


def _counts(rows: list[Record]) -> dict[str, Any]:
    accepted = [record for record in rows if record["verdict"] == "accepted"]
    seen = Verification(
        num_verdicts=len(rows),
        num_accepted=len(accepted),
        num_unparsable=sum(record["verdict"] == "unparsable" for record in rows),
        num_right=sum(record["edit"]["matches"] for record in rows),
        num_right_accepted=sum(record["edit"]["matches"] for record in accepted),
    )
    shares = {name: _round(getattr(seen, name)) for name in ("accept_rate", "precision", "recall", "specificity")}
    return {**shares, **seen._asdict()}


def _interval(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: _round(estimate.value), "low": _round(estimate.low), "high": _round(estimate.high)}


def _round(value: float) -> float | None:
    """Two decimals; None for a value that does not exist, since JSON has no NaN."""
    return None if value != value else round(value, 2)
