"""`python -m evaluation list`: the benchmarks, where their data are looked for, and what is there."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etchr.config import parse_command
from etchr.families import TASKS
from evaluation.benchmarks import BENCHMARKS, find_benchmark
from evaluation.benchmarks.benchmark import Benchmark, LoadOptions, Samples
from evaluation.download import DownloadConfig, command

WIDTH = 120
LOOKED_AT = 100  # samples, spread over all, for the chance level: to look at one reads its pictures' bytes


@dataclass
class ListConfig:
    """Options of `python -m evaluation list`."""

    benchmarks: str = DownloadConfig.benchmarks  # folder with a folder for each public benchmark
    data: str = "outputs/data"  # folder with <task>/test.parquet of procedural tasks


def main(argv: Sequence[str]) -> None:
    """Print a paragraph for each benchmark; data that cannot be read are said there and stop nothing."""
    config = parse_command(
        ListConfig,
        config_name=None,
        argv=argv,
        prog="python -m evaluation list",
        description="List the benchmarks: where their data are looked for, how many samples are there, how what is "
        "missing is had, licence, scoring rule and chance level.",
    )
    data, root = Path(config.data), Path(config.benchmarks)
    for word in (*TASKS, *BENCHMARKS):
        print(paragraph(*find_benchmark(word, data, root), root), end="\n\n")


def paragraph(benchmark: Benchmark, folder: Path, root: Path) -> str:
    """What is to be said of a benchmark, in lines of at most `WIDTH` characters."""
    head = benchmark.name if benchmark.title == benchmark.name else f"{benchmark.name}: {benchmark.title}"
    facts = [
        f"data: {folder}: {found(benchmark, folder, root)}",
        f"rule: {benchmark.rule}" + (" (needs a judge)" if benchmark.needs_judge else ""),
        f"licence: {benchmark.licence}",
    ]
    wrapped = (
        textwrap.wrap(fact, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
        for fact in facts
    )
    return "\n".join([head, *(line for lines in wrapped for line in lines)])


def found(benchmark: Benchmark, folder: Path, root: Path) -> str:
    """How many samples lie in `folder`, or what is wrong with them and how they are had."""
    whole = "" if benchmark.expected is None else f" of {benchmark.expected:,}"
    if not folder.exists():
        return f"0{whole} samples; get them with: {command(benchmark, root)}"
    try:
        samples = benchmark.load(folder, LoadOptions())
        count = f"{len(samples):,}{whole} samples"
    except (ValueError, OSError) as error:
        return _one_line(error)
    try:
        return f"{count}, {chance(benchmark, samples)}"
    except (ValueError, OSError) as error:
        return f"{count}, but {_one_line(error)}"


def chance(benchmark: Benchmark, samples: Samples) -> str:
    """How often a blind guess is right, on average."""
    if not len(samples):
        return "chance unknown"
    looked_at = sorted({index * len(samples) // LOOKED_AT for index in range(LOOKED_AT)})
    level = sum(benchmark.chance(samples.peek(index)) for index in looked_at) / len(looked_at)
    return f"chance {'' if len(looked_at) == len(samples) else 'about '}{100 * level:.1f} %"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
