"""The numbers behind a table of claims, from the records of runs: what `claims.json` holds.

Every comparison is made twice: in Pass@1, and in the share of edits that match the ground truth. Systems are compared
sample by sample and seed by seed; the intervals join the uncertainty of the samples and of the seeds
(`statistics.mean_over_seeds`). Shallow and deep samples are other samples, so their comparison is not paired.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.claims.spec import Claim, Claims, Comparison
from evaluation.records import EvalFolder, Key, Record
from evaluation.statistics import Estimate, gap, mean_over_seeds
from evaluation.summary import Values, by_seed, interval, matches_of, outcomes_of, rounded

MEASURES = {"pass_at_1": outcomes_of, "edits": matches_of}
HOLDS, FAILS, NOT_SHOWN, NO_DATA = "holds", "does not hold", "not shown", "no data"
Systems = Mapping[str, Mapping[Key, Record]]  # name -> records
Depths = Mapping[str, float]  # task -> the depth up to which a sample is shallow


def compute(claims: Claims, skip_missing: bool = False) -> dict[str, Any]:
    """What `claims.json` holds. `ValueError` if a system is in no run or in several, or runs hold other samples."""
    wanted = [name for claim in claims.claims for each in claim.comparisons for name in (*each.more, *each.less)]
    systems = _read(claims, dict.fromkeys(wanted), skip_missing)
    _check_same_samples(systems)
    return {
        "title": claims.title,
        "runs": list(claims.runs),
        "tasks": {task: _num_samples(systems, task) for task in claims.tasks},
        "claims": [_claim(claim, systems) for claim in claims.claims],
    }


def verdict(low: float | None, high: float | None) -> str:
    """What an interval of a difference, claimed to be above 0, says of the claim."""
    if low is None or high is None:
        return NO_DATA
    return HOLDS if low > 0 else FAILS if high < 0 else NOT_SHOWN


# --------------------------------------------------------------------------------------------------------- records


def _read(claims: Claims, names: Iterable[str], skip_missing: bool) -> Systems:
    folders = [EvalFolder(run) for run in claims.runs]
    if missing := [str(folder.path) for folder in folders if not folder.exists() and not skip_missing]:
        raise ValueError(f"no run at {missing[0]}; make it, or set skip_missing=true")
    found: dict[str, Mapping[Key, Record]] = {}
    for name in names:
        there = {folder.path: rows for folder in folders if folder.exists() and (rows := folder.records(name).read())}
        if len(there) > 1:
            raise ValueError(
                f"system {name!r} is in several runs: {', '.join(map(str, there))}; give each its own name"
            )
        if not there and not skip_missing:
            raise ValueError(f"no records of {name!r} in {', '.join(claims.runs)}; there are: {_there(folders)}")
        if there:
            found[name] = next(iter(there.values()))
    return found


def _there(folders: Iterable[EvalFolder]) -> str:
    files: list[Path] = [path for folder in folders for path in (folder.path / "records").glob("*.jsonl")]
    return ", ".join(sorted({path.name.partition(".")[0] for path in files})) or "none"


def _check_same_samples(systems: Systems) -> None:
    """`ValueError` unless records of one sample, by its id, are of the same sample in all systems."""
    known: dict[str, tuple[str, str]] = {}  # sample id -> digest, and the system that has it
    for name, rows in systems.items():
        for (sample_id, _), record in rows.items():
            digest, other = known.setdefault(sample_id, (record["sample"], name))
            if digest != record["sample"]:
                raise ValueError(
                    f"sample {sample_id!r} of {record['task']} is not the same in {other!r} and {name!r}: "
                    "their runs used different data, so they cannot be compared"
                )


def _num_samples(systems: Systems, task: str) -> int:
    return len({key for rows in systems.values() for (key, _), record in rows.items() if record["task"] == task})


# ------------------------------------------------------------------------------------------------------ comparisons


def _claim(claim: Claim, systems: Systems) -> dict[str, Any]:
    rows = [_comparison(each, systems) for each in claim.comparisons]
    return {
        "claim": claim.text,
        "paper": claim.paper,
        "each_task": claim.each_task,
        **{f"verdict_{measure}": _together(rows, measure, claim.each_task) for measure in MEASURES},
        "comparisons": rows,
    }


def _together(rows: Sequence[Mapping[str, Any]], measure: str, each_task: bool) -> str:
    """The verdict on a claim of several comparisons and, if it is about each, of several tasks: all must hold."""
    found = [row[measure] for row in rows]
    verdicts = {NO_DATA if each is None else each["verdict"] for each in found}
    if each_task:
        verdicts |= {cell["verdict"] for each in found if each is not None for cell in each["tasks"].values()}
    return next((word for word in (FAILS, NO_DATA, NOT_SHOWN) if word in verdicts), HOLDS)


def _comparison(wanted: Comparison, systems: Systems) -> dict[str, Any]:
    row: dict[str, Any] = {"label": wanted.label, "more": list(wanted.more), "less": list(wanted.less)}
    row |= {"by_depth": wanted.by_depth, **dict.fromkeys(MEASURES)}
    if not all(name in systems for name in (*wanted.more, *wanted.less)):
        return row
    if wanted.by_depth:
        row["shallow_up_to"] = depths = _depths(systems[wanted.more[0]], wanted.tasks)
    for measure, of in MEASURES.items():
        more, less = ([of(systems[name], wanted.tasks) for name in names] for names in (wanted.more, wanted.less))
        if wanted.by_depth:
            row[measure] = _measured(*_by_depth(more, [systems[name] for name in wanted.more], depths))
        else:
            row[measure] = _measured(*_paired(more, less, wanted.tasks))
    return row


Found = tuple[Estimate, list[Estimate]]  # over all seeds, and of each


def _measured(mean: Found, tasks: Mapping[str, Found]) -> dict[str, Any] | None:
    """A comparison as JSON; None where no task has anything to compare."""
    if all(each[0].value != each[0].value for each in tasks.values()):
        return None
    return _numbers(mean) | {"tasks": {task: _numbers(each) for task, each in tasks.items()}}


def _numbers(found: Found) -> dict[str, Any]:
    shown = interval("value", found[0])
    return {
        **shown,
        "seeds": [rounded(each.value) for each in found[1]],
        "verdict": verdict(shown["low"], shown["high"]),
    }


def _paired(more: Sequence[Values], less: Sequence[Values], tasks: Sequence[str]) -> tuple[Found, dict[str, Found]]:
    """The differences on the samples that all systems have scored: in the mean over tasks, and task by task."""

    def found(names: Sequence[str]) -> Found:
        seeds = by_seed(more, less, names)
        return mean_over_seeds(seeds, -100.0), [mean_over_seeds([seed], -100.0) for seed in seeds]

    return found(tasks), {task: found([task]) for task in tasks}


# ----------------------------------------------------------------------------------------------------------- depth


def depth_of(record: Record) -> float | None:
    """How deep the reasoning of a sample is: its depth, else the length of its path; None where neither is known."""
    known = [record.get(key) for key in ("depth", "path_length")]
    return next((value for value in known if isinstance(value, int | float)), None)


def _depths(rows: Mapping[Key, Record], tasks: Sequence[str]) -> dict[str, float]:
    """Where each task's samples part most evenly into shallow and deep ones; tasks of one depth have no such place."""
    found: dict[str, float] = {}
    for task in tasks:
        depths = [depth for row in rows.values() if row["task"] == task and (depth := depth_of(row)) is not None]
        places = sorted(set(depths))[:-1]
        if places:
            found[task] = min(places, key=lambda place: abs(sum(d <= place for d in depths) - len(depths) / 2))
    return found


def _by_depth(
    seeds: Sequence[Values], rows: Sequence[Mapping[Key, Record]], depths: Depths
) -> tuple[Found, dict[str, Found]]:
    """Shallow minus deep, in the mean over the tasks that have both, and task by task."""
    parts = [
        [_part(values, of, depths, deep) for values, of in zip(seeds, rows, strict=True)] for deep in (False, True)
    ]

    def found(names: Sequence[str]) -> Found:
        shallow, deep = (by_seed(part, [], names) for part in parts)
        each = [_gap([one], [other]) for one, other in zip(shallow, deep, strict=True)]
        return _gap(shallow, deep), each

    return found(list(depths)), {task: found([task]) for task in depths}


def _gap(shallow: Sequence[Mapping[str, Any]], deep: Sequence[Mapping[str, Any]]) -> Estimate:
    return gap(mean_over_seeds(shallow, 0.0), mean_over_seeds(deep, 0.0))


def _part(values: Values, rows: Mapping[Key, Record], depths: Depths, deep: bool) -> Values:
    """The values of the shallow or of the deep samples."""
    parts: Values = {task: {} for task in depths}
    for task, limit in depths.items():
        for key, value in values[task].items():
            depth = depth_of(rows[key])
            if depth is not None and (depth > limit) == deep:
                parts[task][key] = value
    return parts
