"""`python -m evaluation route`: how well questions find their family, on sets whose family is known.

A question is routed by its words alone (`route=rule`; the pictures need not be there) or by a model, which sees the
picture too (`route=model`; every reply is kept in the run folder, so the same command goes on where it stopped). A call
that fails leaves a question out of all shares; it is counted apart.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from etchr.checks import Count, OneOf, Share, check
from etchr.concurrent import for_each
from etchr.config import parse_command
from etchr.families import TASKS, TaskFamily
from etchr.jsonl import JsonLines
from etchr.mllm.journal import CallJournal, JournaledModel
from etchr.mllm.protocol import MLLM, CallFailed, Sampling, opened
from etchr.mllm.routing import read_route, route_message
from etchr.mllm.settings import ModelConfig, build_model, model_fingerprint
from etchr.router import DEFAULT_WORDS, MIN_CONFIDENCE, NO_FAMILY, Route, WordRule, route_by_rule
from etchr.run_folder import RunFolder, write_atomically
from etchr.sample import EditSample
from evaluation.benchmarks import find_benchmark
from evaluation.benchmarks.benchmark import LoadOptions, Samples
from evaluation.statistics import Estimate, Units, mean_over_tasks, share
from evaluation.summary import rounded
from evaluation.tabular import Row, Table, interval, markdown_table, number

COLUMNS = (*TaskFamily, NO_FAMILY)
COVERAGES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # of the risk-coverage line
BINS = 10  # of confidence, for the calibration error

EXPLAINED = """
*right*: the most probable family is the set's own, of all questions. *edited*: questions with a family of confidence
{least:g} or more, for which an edit would be asked. All shares in percent, [95 % interval]: Wilson's, or, where one
{unit} comes several times, a bootstrap over those that differ. In the means and in risk and calibration every set
counts alike."""

Way = Annotated[str, OneOf("rule", "model")]


@dataclass
class RouteConfig:
    """Options of `python -m evaluation route`."""

    tasks: list[str] = field(default_factory=list)  # sets with a known family; empty: the six procedural tasks
    data: str = "outputs/data"  # folder with <task>/test.parquet of procedural tasks
    benchmarks: str = "outputs/benchmarks"  # folder with a folder for each public benchmark
    charxiv_constants: str | None = None  # CharXiv's own src/constants.py: its exact questions; null: ours
    num_samples: Count | None = None  # per set, the first ones; null: all
    route: Way = "rule"  # rule: by the words of the question; model: by the reasoner, which sees the picture too
    words: str = str(DEFAULT_WORDS)  # rule: YAML of the words' weights
    min_confidence: Share = MIN_CONFIDENCE  # below it no edit is asked for
    reasoner: ModelConfig = field(default_factory=ModelConfig)  # model: who is asked
    max_tokens: Count = 4096  # model: of a reply
    concurrency: Count = 32  # model: questions in flight
    out: str = "outputs/route"  # folder for route.md, route.json, routes.jsonl and the model's replies

    def __post_init__(self) -> None:
        check(self)


class Routed(NamedTuple):
    """A question, where it belongs and where it went."""

    task: str
    id: str
    unit: str  # what an interval redraws: questions of one unit go the same way, or depend on each other
    label: TaskFamily
    family: TaskFamily | None
    confidence: float
    unscored: str | None = None  # why there is no route: the call failed

    @property
    def right(self) -> bool:
        return self.family == self.label

    def edited(self, min_confidence: float) -> bool:
        """Whether an edit would be asked for."""
        return Route(self.family, self.confidence).asks_for_edit(min_confidence)


@dataclass(frozen=True)
class LabelledSet:
    """Questions whose family is known."""

    name: str
    samples: Samples
    count: int


def main(argv: Sequence[str]) -> None:
    """Route, print the tables and write them into `out`."""
    config = parse_command(
        RouteConfig,
        config_name=None,
        argv=argv,
        prog="python -m evaluation route",
        description="Measure how well questions are routed to task families, on sets whose family is known. Prints "
        "Markdown.",
    )
    folder = RunFolder(config.out)
    try:
        with folder.locked():
            print(measure(config, folder.path))
    except OSError as error:
        raise ValueError(f"cannot write out={config.out}: {error}") from None


def measure(config: RouteConfig, folder: Path, build: Callable[[ModelConfig], MLLM] = build_model) -> str:
    """Route all questions and write the tables into `folder`; these as Markdown. `ValueError` for what does not fit."""
    sets = read_sets(config)
    if config.route == "rule":
        routed = by_rule(sets, WordRule.load(config.words))
    else:
        routed = asyncio.run(by_model(sets, config, folder, build))
    summary = summarise(routed, config.min_confidence)
    page = markdown(summary, config)
    summary["options"] = {each.name: getattr(config, each.name) for each in fields(config) if each.name != "reasoner"}
    if config.route == "model":
        summary["reasoner"] = model_fingerprint(config.reasoner)
    JsonLines(folder / "routes.jsonl").replace([each._asdict() for each in routed])
    write_atomically(folder / "route.json", json.dumps(summary, indent=2).encode() + b"\n")
    write_atomically(folder / "route.md", page.encode())
    return page


def read_sets(config: RouteConfig) -> list[LabelledSet]:
    """The questions of every task; `ValueError` if one is missing or its family is not known."""
    options = LoadOptions(charxiv_constants=config.charxiv_constants)
    sets: dict[str, LabelledSet] = {}
    for word in config.tasks or TASKS:
        benchmark, place = find_benchmark(word, Path(config.data), Path(config.benchmarks))
        if benchmark.name in sets:
            raise ValueError(f"tasks has {benchmark.name} twice")
        samples = benchmark.load(place, options)
        count = min(len(samples), config.num_samples or len(samples))
        for index in range(count):
            if samples.words(index).meta.get("family_is_unknown"):
                raise ValueError(f"{benchmark.name}: {samples.ids[index]!r} has no family to compare with")
        sets[benchmark.name] = LabelledSet(benchmark.name, samples, count)
    return list(sets.values())


def by_rule(sets: Sequence[LabelledSet], rule: WordRule) -> list[Routed]:
    """The routes that the words of the questions give. Equal words go the same way, so they are one unit."""
    routed = []
    for each in sets:
        for index in tqdm(range(each.count), desc=each.name, unit="question", leave=False):
            sample = each.samples.words(index)
            route = route_by_rule(sample.question, rule)
            routed.append(_routed(each, sample, sample.question, route))
    return routed


async def by_model(
    sets: Sequence[LabelledSet], config: RouteConfig, folder: Path, build: Callable[[ModelConfig], MLLM]
) -> list[Routed]:
    """The routes that a model gives, in the order of the questions. What it has replied before is not asked again."""
    journal = CallJournal(folder / "calls")
    jobs = [(each, index) for each in sets for index in range(each.count)]
    done: list[Routed | None] = [None] * len(jobs)
    try:
        async with opened(build(config.reasoner)) as opened_model:
            model = JournaledModel(opened_model, model_fingerprint(config.reasoner), journal)
            with tqdm(total=len(jobs), unit="question") as bar:

                async def ask(number: int) -> None:
                    each, index = jobs[number]
                    sample = await asyncio.to_thread(each.samples.__getitem__, index)
                    done[number] = await _ask(model, each, sample, config.max_tokens)
                    bar.update()

                await for_each(ask, range(len(jobs)), config.concurrency)
    finally:
        journal.close()
    return [each for each in done if each is not None]


async def _ask(model: MLLM, each: LabelledSet, sample: EditSample, max_tokens: int) -> Routed:
    unit = sample.meta.get("cluster") or sample.id
    try:
        message = route_message(sample.question, sample.choices, *sample.sources)
        replies = await model.chat([message], Sampling(max_tokens=max_tokens))
    except CallFailed as error:
        return _routed(each, sample, unit, Route(None, 0.0), str(error))
    return _routed(each, sample, unit, read_route(replies[0]))


def _routed(each: LabelledSet, sample: EditSample, unit: str, route: Route, unscored: str | None = None) -> Routed:
    confidence = round(route.confidence, 6)  # what is equal but for the order of a sum is a tie
    return Routed(each.name, sample.id, unit, sample.family, route.family, confidence, unscored)


# --------------------------------------------------------------------------------------------------------- summary


def summarise(routed: Sequence[Routed], least: float) -> dict[str, Any]:
    """What `route.json` holds; shares in percent."""
    scored = [each for each in routed if each.unscored is None]
    by_task: dict[str, list[Routed]] = {each.task: [] for each in routed}
    for each in scored:
        by_task[each.task].append(each)
    cells = {task: _cell(rows, least) for task, rows in by_task.items()}
    for task, cell in cells.items():
        cell["unscored"] = sum(each.task == task for each in routed) - cell["questions"]
    weights = {task: 1 / len(rows) / len(by_task) for task, rows in by_task.items() if rows}
    counts = [weights[each.task] for each in scored]
    return {
        "sets": {task: {key: _as_json(value) for key, value in cell.items()} for task, cell in cells.items()},
        "mean": {
            name: _as_json(mean_over_tasks([cell[name] for cell in cells.values()]))
            for name in ("right", "edited", "right_of_edited")
        },
        "confusion": confusion(scored),
        "risk": {f"{coverage:g}": round(100 * risk, 2) for coverage, risk in risks(scored, counts).items()},
        "calibration_error": round(100 * calibration_error(scored, counts), 2),
    }


def _cell(rows: Sequence[Routed], least: float) -> dict[str, Any]:
    edited = [each for each in rows if each.edited(least)]
    return {
        "families": sorted({str(each.label) for each in rows}),
        "questions": len(rows),
        "units": len({each.unit for each in rows}),
        "right": share(_units(rows, lambda each: each.right)),
        "edited": share(_units(rows, lambda each: each.edited(least))),
        "right_of_edited": share(_units(edited, lambda each: each.right)),
        "confidence": rounded(float(np.mean([each.confidence for each in rows])), digits=4) if rows else None,
    }


def _units(rows: Sequence[Routed], holds: Callable[[Routed], bool]) -> Units:
    units: dict[str, list[float]] = {}
    for each in rows:
        units.setdefault(each.unit, []).append(float(holds(each)))
    return units


def _as_json(value: Any) -> Any:
    """An estimate as its three numbers, finer than they are printed; what else a cell holds as it is."""
    return [rounded(each, digits=4) for each in value] if isinstance(value, Estimate) else value


def confusion(scored: Sequence[Routed]) -> dict[str, dict[str, int]]:
    """Labelled family -> where the questions went -> how many; for a family of which there are questions."""
    table = {str(label): dict.fromkeys(map(str, COLUMNS), 0) for label in TaskFamily}
    for each in scored:
        table[each.label][each.family or NO_FAMILY] += 1
    return {label: row for label, row in table.items() if any(row.values())}


def risks(scored: Sequence[Routed], counts: Sequence[float]) -> dict[float, float]:
    """The share of wrong routes among the most confident share of questions, for each of `COVERAGES`.

    Of questions with one confidence, of which only some belong to a share, the mean counts. `counts` says how much each
    question counts.
    """
    steps: dict[float, list[float]] = {}  # confidence -> how much counts, and how much of it is wrong
    for each, count in zip(scored, counts, strict=True):
        step = steps.setdefault(each.confidence, [0.0, 0.0])
        step[0] += count
        step[1] += count * (not each.right)
    ordered = np.array([steps[confidence] for confidence in sorted(steps, reverse=True)]).reshape(-1, 2)
    total = ordered[:, 0].sum()
    reached, wrong = (np.concatenate([[0.0], ordered[:, column].cumsum()]) for column in (0, 1))
    return {share: float(np.interp(share * total, reached, wrong) / (share * total)) for share in COVERAGES if total}


def calibration_error(scored: Sequence[Routed], counts: Sequence[float]) -> float:
    """The mean distance of confidence from the share that is right, over `BINS` bins of confidence; 0 to 1."""
    sums = np.zeros((BINS, 2))
    for each, count in zip(scored, counts, strict=True):
        sums[min(int(each.confidence * BINS), BINS - 1)] += count * each.confidence, count * each.right
    return float(np.abs(sums[:, 0] - sums[:, 1]).sum() / max(sum(counts), 1e-12))


# -------------------------------------------------------------------------------------------------------- markdown


def markdown(summary: Mapping[str, Any], config: RouteConfig) -> str:
    """The tables."""
    by_rule = config.route == "rule"
    units = "wordings" if by_rule else "units"
    head = ["set", "family", "questions", units, "right", "edited", "right of these", "confidence", "unscored"]
    rows: list[Row] = []
    for name, cell in summary["sets"].items():
        counts = [f"{cell['questions']:,}", f"{cell['units']:,}"]
        shares = [interval(*cell[key]) for key in ("right", "edited", "right_of_edited")]
        sure = "-" if cell["confidence"] is None else f"{cell['confidence']:.2f}"
        rows.append([name, ", ".join(cell["families"]), *counts, *shares, sure, str(cell["unscored"])])
    means = [interval(*summary["mean"][key]) for key in ("right", "edited", "right_of_edited")]
    rows.append(["mean", "", "", "", *means, "", ""])
    matrix = [[label, *map(str, row.values())] for label, row in summary["confusion"].items()]
    shares_of = [f"{100 * float(coverage):g} %" for coverage in summary["risk"]]
    risk = ["are wrong", *map(number, summary["risk"].values())]
    parts = [
        f"# Routing by {'the words of the question' if by_rule else config.reasoner.model or config.reasoner.kind}",
        _table(head, rows),
        EXPLAINED.strip().format(least=config.min_confidence, unit="wording" if by_rule else "unit (figure, scene)"),
        "## Where the questions of each family went",
        _table(["labelled", *map(str, COLUMNS)], matrix),
        "## Risk and coverage",
        _table(["of the most confident", *shares_of], [risk]),
        f"Confidence is off by {summary['calibration_error']:.1f} points on average (ten bins).",
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Row]) -> str:
    return "\n".join(markdown_table(Table(head, rows)))
