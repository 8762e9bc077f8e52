"""`python -m evaluation figure 2a|2b`: the paper's figures on what editors draw, as data and plot, from a run.

2a, the language side: how often an edit is right when the editor is asked the question, and when it is told what to
draw. 2b, the generation side: how often it is right over the length of the path that it has to draw.

An edit is right if it matches the ground truth; where a sample has none, if the run's edit judge says so. Samples
without an edit, because a call failed or none was asked for, and edits that nobody judged are in no share, but counted.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etchr.checks import Count, check
from etchr.config import parse_command
from etchr.run_folder import write_atomically
from evaluation.records import EvalFolder, Key, Record, edit_is_right
from evaluation.statistics import share
from evaluation.summary import interval, unit

PROMPTS = ("question", "enhanced", "instruction")  # in the order in which the bars stand
Records = dict[str, dict[Key, Record]]  # system -> key -> record
Point = dict[str, Any]  # a row of the data


@dataclass
class FigureConfig:
    """Options of `python -m evaluation figure`."""

    run: str = "outputs/evaluation"  # run folder
    systems: list[str] = field(default_factory=list)  # of the run; empty: those that draw one edit, each edit once
    tasks: list[str] = field(default_factory=list)  # empty: all; 2b: all whose records have a path_length
    width: Count = 1  # 2b: path lengths that are taken together
    out: str = "outputs/figures"  # folder for figure_2a or figure_2b as .csv, .json, .png and .svg

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str]) -> None:
    """Write a figure's data and plot, and print where they lie."""
    words = list(argv)
    name = words.pop(0) if words and not words[0].startswith("-") and "=" not in words[0] else None
    config = parse_command(
        FigureConfig,
        config_name=None,
        argv=words,
        prog=f"python -m evaluation figure {name or '2a|2b'}",
        description="Draw a figure of the paper from a run's records, and write its data.\n"
        "2a: edit correctness with the question against an instruction, for every task.\n"
        "2b: edit correctness over the length of the path.",
    )
    if name not in FIGURES:
        raise ValueError(f"which figure? python -m evaluation figure {'|'.join(FIGURES)}; got {name!r}")
    from evaluation.plots import draw  # matplotlib takes a while

    run = read_run(config)
    points = FIGURES[name](config, run)
    if not points:
        raise ValueError(
            f"no edit of {', '.join(run.systems)} in {config.run} can be called right or wrong: no ground truth, "
            "and no verdict of an edit judge (option edit_judge of the run)"
        )
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    files = {"csv": as_csv(points).encode(), "json": json.dumps(points, indent=2).encode() + b"\n"}
    files |= draw(name, points)
    for suffix, data in files.items():
        write_atomically(folder / f"figure_{name}.{suffix}", data)
    print(as_csv(points), end="")
    print(f"written: {', '.join(str(folder / f'figure_{name}.{suffix}') for suffix in files)}")


# --------------------------------------------------------------------------------------------------------- records


@dataclass(frozen=True)
class FigureRun:
    """What a figure is drawn from."""

    systems: dict[str, str]  # the chosen ones -> how their editor is prompted
    tasks: list[str]  # those of which there are records, in the run's order
    records: Records


def read_run(config: FigureConfig) -> FigureRun:
    """The chosen systems and their records; `ValueError` that lists what there is for a name that is not there."""
    note = Path(config.run) / "run.json"
    if not note.is_file():
        raise ValueError(f"no run at {config.run}; give the folder of one as run=FOLDER")
    try:
        there = json.loads(note.read_text(encoding="utf-8"))
        systems = {name: there["systems"][name]["prompt"] for name in _chosen(config, there["systems"])}
        order = list(there["tasks"])
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{note} is damaged") from None
    folder = EvalFolder(config.run)
    records: Records = {name: dict(folder.records(name).read()) for name in systems}
    seen = {record["task"] for rows in records.values() for record in rows.values()}
    tasks = [task for task in order if task in seen]
    if unknown := [task for task in config.tasks if task not in tasks]:
        raise ValueError(
            f"{config.run} has no records of {', '.join(unknown)}; there are: {', '.join(tasks) or 'none'}"
        )
    return FigureRun(systems, config.tasks or tasks, records)


def _chosen(config: FigureConfig, systems: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the systems to show."""
    if unknown := [name for name in config.systems if name not in systems]:
        raise ValueError(f"{config.run} has no system {', '.join(unknown)}; there are: {', '.join(systems)}")
    if config.systems:
        return config.systems
    firsts: dict[str, str] = {}  # verified or not, the edits are the same
    for name, system in systems.items():
        if system["kind"] in ("evr", "enhancer", "always_edit"):
            same = {key: value for key, value in system.items() if key not in ("kind", "attempts", "turns")}
            firsts.setdefault(json.dumps(same, sort_keys=True), name)
    if not firsts:
        raise ValueError(f"no system of {config.run} draws edits; there are: {', '.join(systems)}")
    return list(firsts.values())


# -------------------------------------------------------------------------------------------------------- figures


def figure_2a(config: FigureConfig, run: FigureRun) -> list[Point]:
    """A point for every task and system, systems in the order of their prompts."""
    points = []
    for task in run.tasks:
        for name in sorted(run.systems, key=lambda name: PROMPTS.index(run.systems[name])):
            measured = measure(row for row in run.records[name].values() if row["task"] == task)
            if measured is not None:
                points.append({"task": task, "system": name, "prompt": run.systems[name], **measured})
    return points


def figure_2b(config: FigureConfig, run: FigureRun) -> list[Point]:
    """A point for every task, system and path length; `ValueError` if no record says how long its path is."""
    points = []
    rows = {
        name: [row for row in run.records[name].values() if isinstance(row["path_length"], int)] for name in run.systems
    }
    seen = {row["task"] for part in rows.values() for row in part}
    missing = [task for task in config.tasks if task not in seen]
    if missing or not seen:
        raise ValueError(
            f"the records of {', '.join(missing) or 'all tasks'} in {config.run} have no path_length; those of mazes "
            "and lakes have one"
        )
    for task in run.tasks:
        for name, prompt in run.systems.items():
            by_length: dict[int, list[Record]] = {}
            for row in (row for row in rows[name] if row["task"] == task):
                first = (row["path_length"] - 1) // config.width * config.width + 1
                by_length.setdefault(first, []).append(row)
            for first, part in sorted(by_length.items()):
                measured = measure(part)
                if measured is not None:
                    length = {"path_length": first, "to": first + config.width - 1}
                    points.append({"task": task, "system": name, "prompt": prompt, **length, **measured})
    return points


FIGURES: dict[str, Callable[[FigureConfig, FigureRun], list[Point]]] = {"2a": figure_2a, "2b": figure_2b}


def measure(rows: Iterable[Record]) -> Point | None:
    """The share of right edits with its interval and counts; None if no edit is judged."""
    units: dict[str, list[float]] = {}
    by_pixels = by_judge = left_out = 0
    for row in rows:
        right = edit_is_right(row)
        if right is None:
            left_out += 1
            continue
        if row["edit"]["matches"] is None:
            by_judge += 1
        else:
            by_pixels += 1
        units.setdefault(unit(row), []).append(float(right))
    if not units:
        return None
    found = share(units)
    return {
        **interval("correct", found),
        "num_edits": by_pixels + by_judge,
        "num_right": round(sum(sum(values) for values in units.values())),
        "num_by_pixels": by_pixels,
        "num_by_judge": by_judge,
        "num_left_out": left_out,
    }


def as_csv(points: Sequence[Point]) -> str:
    """The points as a CSV table."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(points[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(points)
    return stream.getvalue()
