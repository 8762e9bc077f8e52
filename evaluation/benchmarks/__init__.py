"""The benchmarks of the paper's table, the procedural tasks, and sets of your own."""

from pathlib import Path

from etchr.families import TASKS
from evaluation.benchmarks.benchmark import Benchmark
from evaluation.benchmarks.prepared import CocoJigsaw, Lakes, Mazes, Procedural

# In the order of the paper's columns.
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Mazes(),
        Lakes(),
        CocoJigsaw(),
    )
}


def find_benchmark(word: str, data: Path, benchmarks: Path) -> tuple[Benchmark, Path]:
    """The benchmark that an option names, and the folder of its data.

    `word` is a procedural task, a name in `BENCHMARKS`, or a YAML file of your own set.
    """
    if word in TASKS:
        return Procedural(word, data), data / word
    if word not in BENCHMARKS:
        raise ValueError(f"no task {word!r}; there are: {', '.join((*TASKS, *BENCHMARKS))}, or a YAML file of your own")
    benchmark = BENCHMARKS[word]
    return benchmark, benchmarks / (benchmark.place or benchmark.name)
