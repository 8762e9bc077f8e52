"""From records to numbers: what `report.json` holds. No model, no images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.cost import Prices, cost
from evaluation.records import Key, Record
from evaluation.settings import SystemConfig
from evaluation.statistics import (
    Estimate,
    Units,
    Verification,
    detectable,
    difference,
    mcnemar,
    mean_difference,
    mean_over_seeds,
    mean_over_tasks,
    pass_at_k,
    share,
)

Records = Mapping[str, Mapping[Key, Record]]  # system -> (sample id, repeat) -> record
EFFECTS = {  # of an edit, by whether the answer is right without it and with it
    (False, True): "helps",
    (True, False): "harms",
    (True, True): "both_right",
    (False, False): "both_wrong",
}
Values = dict[str, dict[Key, tuple[str, float]]]  # task -> key -> unit and value, of the scored samples


def summarise(
    records: Records,
    tasks: Sequence[str],
    reference: str,
    systems: Mapping[str, SystemConfig],
    prices: Prices | None = None,
) -> dict[str, Any]:
    """The table: per system its mean over tasks, each task's Pass@1, edits, verification and the paired difference.

    Differences are against the system `reference`. Systems of one `group` are seeds of one method.

    Unscored samples (failed calls) are in no denominator; their number stands beside each cell, with what the cell
    would be if all of them were wrong, and if all were right. Percent throughout.
    """
    outcomes = {name: outcomes_of(rows, tasks) for name, rows in records.items()}
    report: dict[str, Any] = {"reference": reference, "systems": {}, "paired": {}, "groups": {}, "verification": {}}
    report["worth"], report["cost"] = {}, {}
    for name, rows in records.items():
        mean = mean_over_tasks([share(units_of(outcomes[name][task])) for task in tasks])
        report["systems"][name] = {
            "kind": systems[name].kind,
            **interval("mean", mean),
            "tasks": {task: _cell(_of(rows, task), outcomes[name][task]) for task in tasks},
        }
        report["cost"][name] = cost(rows.values(), prices)
        if reference in records and name != reference:
            report["paired"][name] = _paired(outcomes[name], outcomes[reference], tasks)
        if any(record["verdict"] for record in rows.values()):
            report["verification"][name] = _verification(rows.values(), tasks)
            if (worth := _worth(name, records, systems)) is not None:
                report["worth"][name] = worth
    for name, members in _groups(systems).items():
        report["groups"][name] = _group(records, outcomes, members, tasks, reference)
    every = [record for rows in records.values() for record in rows.values() if record["verdict"]]
    if every:
        report["verification"]["all"] = _verification(every, tasks)
    return report


def _groups(systems: Mapping[str, SystemConfig]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, system in systems.items():
        if system.group is not None:
            groups.setdefault(system.group, []).append(name)
    return groups


# ------------------------------------------------------------------------------------------------ outcomes by unit


def _of(rows: Mapping[Key, Record], task: str) -> list[Record]:
    return [rows[key] for key in sorted(rows) if rows[key]["task"] == task]


def unit(record: Record) -> str:
    """What an interval redraws: the question where options are permuted, else the sample."""
    return record["cluster"] or record["sample_id"]


def outcomes_of(rows: Mapping[Key, Record], tasks: Sequence[str]) -> Values:
    """The scored samples of every task, in the order of their ids."""
    return _values(rows, tasks, lambda record: record["correct"])


def matches_of(rows: Mapping[Key, Record], tasks: Sequence[str]) -> Values:
    """Whether the edit matches the ground truth, of the samples that have both."""
    return _values(rows, tasks, lambda record: record["edit"] and record["edit"]["matches"])


def _values(rows: Mapping[Key, Record], tasks: Sequence[str], of: Callable[[Record], bool | None]) -> Values:
    """What `of` says of each record, where it says anything."""
    values: Values = {task: {} for task in tasks}
    for key in sorted(rows):
        record = rows[key]
        if record["task"] in values and (value := of(record)) is not None:
            values[record["task"]][key] = unit(record), float(value)
    return values


def units_of(values: Mapping[Key, tuple[str, float]]) -> Units:
    units: dict[str, list[float]] = {}
    for name, value in values.values():
        units.setdefault(name, []).append(value)
    return units


def differences_of(system: Values, reference: Values, tasks: Sequence[str]) -> dict[str, Units]:
    """task -> unit -> differences of the samples that both have scored."""
    out: dict[str, Units] = {}
    for task in tasks:
        mine, other = system[task], reference[task]
        shared = {key: (mine[key][0], mine[key][1] - other[key][1]) for key in mine if key in other}
        out[task] = units_of(shared)
    return out


# ------------------------------------------------------------------------------------------------------- the table


def _cell(rows: list[Record], scored: Mapping[Key, tuple[str, float]]) -> dict[str, Any]:
    units = units_of(scored)
    found = share(units)
    right, total = sum(value for _, value in scored.values()), len(rows)
    cell: dict[str, Any] = {
        **interval("pass_at_1", found),
        "num_samples": total,
        "num_units": len({unit(record) for record in rows}),
        "num_unscored": total - len(scored),
        "if_wrong": rounded(100 * right / total) if total else None,
        "if_right": rounded(100 * (right + total - len(scored)) / total) if total else None,
        "chance": rounded(100 * float(np.mean([record["chance"] for record in rows]))) if rows else None,
    }
    parts = {name for record in rows for name in record["parts"]}
    if parts:
        cell["parts"] = {
            name: rounded(_mean(r["parts"][name] for r in rows if name in r["parts"])) for name in sorted(parts)
        }
    categories = {record["category"] for record in rows if record["category"]}
    if len(categories) > 1:
        cell["categories"] = {
            name: rounded(_mean(r["correct"] for r in rows if r["category"] == name and r["correct"] is not None))
            for name in sorted(categories)
        }
    tries = {record["repeat"] for record in rows}
    if len(tries) > 1:
        samples: dict[str, list[float]] = {}
        for (sample_id, _), (_, value) in scored.items():
            samples.setdefault(sample_id, []).append(value)
        whole = {key: values for key, values in samples.items() if len(values) == len(tries)}
        cell["num_repeats"] = len(tries)
        cell["pass_at_k"] = {str(k): rounded(pass_at_k(whole, k)) for k in _powers(len(tries))}
    if found.value == found.value and units:
        shown = detectable(len(units), found.value / 100, discordant=0.2)
        limits = {name: rounded(value) for name, value in shown._asdict().items()}
        cell["detectable"] = {"num_units": len(units), **limits}
    edits = [record["edit"] for record in rows if record["edit"]]
    for key, name in (("matches", "edit_correct"), ("judged", "edit_judged")):
        if any(edit[key] is not None for edit in edits):
            cell[name] = rounded(_mean(edit[key] for edit in edits if edit[key] is not None))
    if edits:
        cell["edit_used"] = rounded(_mean(record["used_edit"] for record in rows))
    return cell


def _powers(most: int) -> list[int]:
    """1, 2, 4, ... and the number itself."""
    return sorted({*(2**i for i in range(most.bit_length()) if 2**i <= most), most})


def _paired(system: Values, reference: Values, tasks: Sequence[str]) -> dict[str, Any]:
    differences = differences_of(system, reference, tasks)
    found = {**interval("difference", mean_difference(differences)), "tasks": {}}
    for task in tasks:
        found["tasks"][task] = interval("difference", difference(differences[task])) | tested(differences[task])
    return found


def tested(differences: Units) -> dict[str, Any]:
    """McNemar's test of paired differences as reports hold it; nothing where it does not apply."""
    test = mcnemar(differences)
    return {} if test is None else {"gained": test.gained, "lost": test.lost, "p_value": float(f"{test.p_value:.2g}")}


def _group(
    records: Records, outcomes: Mapping[str, Values], members: list[str], tasks: Sequence[str], reference: str
) -> dict[str, Any]:
    """A method over its seeds: Pass@1 and edits that match, each with its difference from the reference."""
    seeds = [outcomes[name] for name in members]
    edits = [matches_of(records[name], tasks) for name in members]
    shares = {task: [share(units_of(seed[task])).value for seed in seeds] for task in tasks}
    report: dict[str, Any] = {
        "systems": members,
        "tasks": {task: rounded(sum(values) / len(values)) for task, values in shares.items()},
        "mean": interval("value", mean_over_seeds(by_seed(seeds, [], tasks), least=0.0)),
        "edits": interval("value", mean_over_seeds(by_seed(edits, [], tasks), least=0.0)),
    }
    if reference in records:
        differences = by_seed(seeds, [outcomes[reference]], tasks)
        report["against"] = interval("value", mean_over_seeds(differences, least=-100.0))
        baseline = matches_of(records[reference], tasks)
        differences = by_seed(edits, [baseline], tasks)
        report["edits_against"] = interval("value", mean_over_seeds(differences, least=-100.0))
    return report


def by_seed(seeds: Sequence[Values], baselines: Sequence[Values], tasks: Sequence[str]) -> list[dict[str, Units]]:
    """Every seed's values, less those of its baseline, on the samples that all of them have scored.

    There is no baseline, one for all seeds, or one for each; a single seed may also be compared with several baselines.
    """
    count = max(len(seeds), len(baselines))
    found: list[dict[str, Units]] = [{} for _ in range(count)]
    for task in tasks:
        shared = sorted(set.intersection(*(set(each[task]) for each in (*seeds, *baselines))))
        for number, units in enumerate(found):
            mine = seeds[number % len(seeds)][task]
            base = baselines[number % len(baselines)][task] if baselines else {}
            less = {key: base[key][1] if baselines else 0.0 for key in shared}
            units[task] = units_of({key: (mine[key][0], mine[key][1] - less[key]) for key in shared})
    return found


# ---------------------------------------------------------------------------------------------------- verification


def _verification(rows: Iterable[Record], tasks: Sequence[str]) -> dict[str, Any]:
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
    shares = {name: rounded(getattr(seen, name)) for name in ("accept_rate", "precision", "recall", "specificity")}
    return {**shares, **seen._asdict()}


def _worth(name: str, records: Records, systems: Mapping[str, SystemConfig]) -> dict[str, Any] | None:
    """What verification is worth: verdicts against whether the edit would have helped.

    An edit helps if the answer is wrong without it and right with it, and harms if it is the other way round. Needs the
    system without edits and the twin that uses the same edits unverified, both answered by the same model; None if the
    run has none.
    """
    mine = {other: config for other, config in systems.items() if config.model == systems[name].model}
    without = next((other for other, config in mine.items() if config.kind == "direct"), None)
    twins = (
        other for other, config in mine.items() if config.kind == "always_edit" and _same_edits(config, systems[name])
    )
    twin = next(twins, None)
    if without is None or twin is None:
        return None
    table = {
        verdict: {"helps": 0, "harms": 0, "both_right": 0, "both_wrong": 0} for verdict in ("accepted", "not accepted")
    }
    for key, record in records[name].items():
        pair = [records[other].get(key, {}).get("correct") for other in (without, twin)]
        if record["verdict"] is None or None in pair:
            continue
        effect = EFFECTS[bool(pair[0]), bool(pair[1])]
        table["accepted" if record["verdict"] == "accepted" else "not accepted"][effect] += 1
    return {"without": without, "unverified": twin, "table": table}


def _same_edits(one: SystemConfig, other: SystemConfig) -> bool:
    keys = ("editor", "lora", "remote", "prompt", "route", "router")
    return other.kind in ("evr", "enhancer") and all(getattr(one, key) == getattr(other, key) for key in keys)


def _mean(values: Iterable[float]) -> float:
    """The mean in percent."""
    return 100 * float(np.mean([float(value) for value in values]))


def interval(name: str, estimate: Estimate) -> dict[str, Any]:
    """An estimate as reports hold it, its value called `name`."""
    return {name: rounded(estimate.value), "low": rounded(estimate.low), "high": rounded(estimate.high)}


def rounded(value: float, digits: int = 2) -> float | None:
    """So many decimals; None for a value that does not exist, since JSON has no NaN."""
    return None if value != value else round(value, digits)
