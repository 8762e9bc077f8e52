"""Benchmarks whose samples lie in the project's own schema: the procedural tasks, and sets that data_prep generates.

Mazes, lakes and jigsaws have no published set: ours are fixed by a published seed, so that everybody makes the same
ones. Answers about paths are executed on the grid (`answers.is_correct`), never compared with one path.
"""

from pathlib import Path
from typing import Any

from etchr.mllm.answers import answer_type
from etchr.sample import EditSample, from_row, read_parquet
from evaluation.benchmarks.benchmark import Benchmark, Decode, LazySamples, LoadOptions, Samples


class Prepared(Benchmark):
    """Samples in Parquet files of the `EditSample` schema."""

    def load(self, folder: Path, options: LoadOptions) -> Samples:
        """The samples of `folder`'s test set; `ValueError` with the command that makes it where it is missing."""
        if not sorted(folder.glob("test*.parquet")):
            raise ValueError(f"no {self.title} data at {folder}; make it with: {self.get}")
        table = read_parquet(folder, "test").table
        ids = table["id"][:]

        def read(index: int, decode: Decode) -> EditSample:
            return self.adapted(from_row(table[index], decode))

        return LazySamples(ids, read)

    def adapted(self, sample: EditSample) -> EditSample:
        """A sample as this benchmark has it."""
        return sample

    def chance(self, sample: EditSample) -> float:
        """Of a 2x2 puzzle, whose pieces never lie in place, one order of 23 is right; else as for all benchmarks."""
        return 1 / 23 if answer_type(sample) == "permutation" else super().chance(sample)


class Procedural(Prepared):
    """One of the six procedural tasks, in `<data>/<task>/test.parquet`."""

    largest = (512, 512)
    licence = "Apache-2.0"
    rule = "the grader of the rewards: letters, numbers, executed moves, orders of pieces"

    def __init__(self, task: str, data: Path) -> None:
        self.name = self.title = self.place = task
        self.get = f"python -m data_prep {task} split=test seed=2026 out={data}"

    def adapted(self, sample: EditSample) -> EditSample:
        """A sample; `ValueError` for one of another task."""
        if sample.task != self.name:
            raise ValueError(f"sample {sample.id!r} lies in the data of {self.name} but belongs to {sample.task!r}")
        return sample

    def identity(self) -> dict[str, Any]:
        return {}  # the grader's own: equal for all, and tested


class Mazes(Prepared):
    """200 mazes in the paper's look."""

    name, title = "mazes", "Maze"
    largest = (1024, 1024)
    licence = "Apache-2.0"
    get = "python -m data_prep mazes split=test seed=2026 num_mazes=200 out=BENCHMARKS"
    rule = "the moves are executed: they must lead over free cells and end on the goal"
    expected = 200


class Lakes(Prepared):
    """200 maps of gymnasium's Frozen Lake, of 4 to 8 tiles a side: of 3 there are too few to hold some out."""

    name, title = "lakes", "Frozen Lake"
    largest = (1024, 1024)
    licence = "Apache-2.0; tiles from gymnasium, MIT"
    get = "python -m data_prep lakes split=test seed=2026 num_lakes=200 smallest=4 out=BENCHMARKS"
    rule = Mazes.rule
    expected = 200


class CocoJigsaw(Prepared):
    """200 puzzles of COCO photographs."""

    name, title, place = "coco_jigsaw", "COCO jigsaw", "jigsaws"
    largest = (640, 640)
    licence = "the photographs': COCO's are under Flickr's terms"
    get = "python -m data_prep jigsaws split=test seed=2026 num_items=200 photos=coco/val2017 out=BENCHMARKS"
    rule = "all four pieces must be in order"
    expected = 200
