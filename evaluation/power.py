"""`python -m evaluation power`: the smallest gain that each benchmark of the paper's table can show, beside its gains.

Needs no data and no model: the numbers of samples decide, and how often two systems differ on one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from etchr.checks import OneOf, check
from etchr.config import parse_command
from etchr.run_folder import write_atomically
from evaluation.published import COLUMNS, MODELS, TABLE, gain, score
from evaluation.statistics import Detectable, detectable
from evaluation.tabular import Row, Table, markdown_table, number

EXPLAINED = """
Gains in points of Pass@1. All limits are for a two-sided test at 95 %.
- best case: McNemar's exact test when every sample on which the systems differ favours the one with edits.
- paired: both systems on the same samples, which differ on {discordant} of them (option discordant).
- paired, 80 %: the true gain that such a comparison shows in 80 of 100 repetitions.
- unpaired: against a score from elsewhere, {model} on samples of its own.
- units: HR-Bench puts each question four times, CharXiv DQ asks four questions about each figure. Such outcomes depend
  on each other; the truth lies between the row that counts them all and the row that counts each question or figure.
- † the printed gain is smaller than the paired limit; ‡ it is smaller than even the best case. A gain above
  {discordant} implies that more samples differ, and is measured against that.
- mean: the uncertainties of the columns join in quadrature, HR-Bench by question and CharXiv DQ by figure.
The gains are differences of two printed scores, each rounded to 0.1; the paper gives neither intervals nor repeats.
"""

PositiveShare = Annotated[float, Interval(gt=0, le=1)]
Model = Annotated[str, OneOf(*MODELS)]


@dataclass
class PowerConfig:
    """Options of `python -m evaluation power`."""

    discordant: PositiveShare = 0.1  # share of the samples on which two systems differ: one right, the other wrong
    model: Model = MODELS[0]  # whose score without edits the unpaired limit assumes
    out: str | None = None  # Markdown file to write as well; null: none

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Line:
    """A benchmark's limits, counted in samples or in units."""

    title: str
    count: str
    limits: Detectable
    gains: dict[str, float]  # of the paper, by model
    num_units: int | None = None  # None: a mean of benchmarks


def main(argv: Sequence[str]) -> None:
    """Print the table, and write it where `out` says."""
    config = parse_command(
        PowerConfig,
        config_name=None,
        argv=argv,
        prog="python -m evaluation power",
        description="The smallest gain that the sizes of the benchmarks in the paper's table can show, beside the "
        "paper's own gains. Prints Markdown.",
    )
    table = markdown(config)
    if config.out is not None:
        path = Path(config.out)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, table.encode())
        except OSError as error:
            raise ValueError(f"cannot write out={path}: {error}") from None
    print(table)


def markdown(config: PowerConfig) -> str:
    """The table and what it says."""
    head = ["benchmark", "counted", "best case", "paired", "paired, 80 %", "unpaired", *MODELS]
    rows: list[Row] = []
    for line in lines(config):
        limits = [number(None if math.isnan(limit) else limit) for limit in line.limits]
        marked = [f"{value:+.1f}{mark(line, value, config.discordant)}" for value in line.gains.values()]
        rows.append([line.title, line.count, *limits, *marked])
    text = EXPLAINED.format(discordant=f"{100 * config.discordant:g} %", model=config.model)
    table = "\n".join(markdown_table(Table(head, rows)))
    return f"# What the paper's benchmarks can show\n\n{table}\n{text}"


def lines(config: PowerConfig) -> Iterator[Line]:
    """The rows: each benchmark by samples and, where these depend on each other, by units; then the mean."""
    by_units = []
    for name, column in COLUMNS.items():
        gains = {model: gain(model, name) for model in MODELS}
        counts = [(column.num_samples, "row")] if column.num_units < column.num_samples else []
        for count, unit in (*counts, (column.num_units, column.unit)):
            limits = detectable(count, score(config.model, name) / 100, config.discordant)
            yield Line(column.title, f"{count:,} {unit}s", limits, gains, count)
        by_units.append(limits)  # the last ones, by units
    mean = [math.hypot(*(limits[kind] for limits in by_units)) / len(by_units) for kind in (1, 2, 3)]
    gains = {model: TABLE[f"{model} + ETCHR"].mean - TABLE[model].mean for model in MODELS}
    yield Line("mean", f"{len(by_units)} benchmarks", Detectable(math.nan, *mean), gains)


def mark(line: Line, value: float, discordant: float) -> str:
    """What a gain that the benchmark cannot show is marked with."""
    limits = line.limits
    if line.num_units is not None:  # so large a gain is only possible where so many differ
        limits = detectable(line.num_units, 0.5, min(max(discordant, abs(value) / 100), 1.0))
    if abs(value) < limits.least - 1e-9:
        return " ‡"
    return " †" if abs(value) < limits.paired - 1e-9 else ""
