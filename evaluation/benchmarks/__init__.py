"""The benchmarks of the paper's table, the procedural tasks, and sets of your own."""

from pathlib import Path

from etchr.families import TASKS
from evaluation.benchmarks.benchmark import Benchmark
from evaluation.benchmarks.chartqa import ChartQA
from evaluation.benchmarks.charxiv import CharXivDescriptive, CharXivReasoning
from evaluation.benchmarks.dl3dv import DL3DV2k
from evaluation.benchmarks.hrbench import HRBench
from evaluation.benchmarks.local import Local
from evaluation.benchmarks.prepared import CocoJigsaw, Lakes, Mazes, Procedural
from evaluation.benchmarks.viewspatial import PERSON_DIRECTION, TYPES, ViewSpatial
from evaluation.benchmarks.vstar import VStar

# In the order of the paper's columns, and behind them what is not in its table.
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        VStar(),
        HRBench("4k"),
        HRBench("8k"),
        ChartQA(),
        CharXivDescriptive(),
        CharXivReasoning(),
        Mazes(),
        Lakes(),
        CocoJigsaw(),
        ViewSpatial("viewspatial", "ViewSpatial, Person Relative Direction", (PERSON_DIRECTION,), 842),
        DL3DV2k(),
        ViewSpatial("viewspatial_all", "ViewSpatial-Bench", TYPES, 5712),
    )
}


def find_benchmark(word: str, data: Path, benchmarks: Path) -> tuple[Benchmark, Path]:
    """The benchmark that an option names, and the folder of its data.

    `word` is a procedural task, a name in `BENCHMARKS`, or a YAML file of your own set.
    """
    if word in TASKS:
        return Procedural(word, data), data / word
    if Path(word).suffix.lower() in (".yaml", ".yml"):
        mine = Local(Path(word))
        if mine.name in (*TASKS, *BENCHMARKS):
            raise ValueError(f"{word}: the name {mine.name} is that of another task; set name: in it")
        return mine, mine.path.parent
    if word not in BENCHMARKS:
        raise ValueError(f"no task {word!r}; there are: {', '.join((*TASKS, *BENCHMARKS))}, or a YAML file of your own")
    benchmark = BENCHMARKS[word]
    return benchmark, benchmarks / (benchmark.place or benchmark.name)
