"""The data sets of the procedural tasks, written side by side: one Parquet file for each task and split.

A file that the same options have already made is kept, so an interrupted run goes on where it stopped. Two runs with
one seed give identical files, whatever the number of processes: a task is the work of one of them.
"""

import hashlib
import json
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from data_prep import procedural_tasks
from data_prep.task import SPLITS, check_lengths, generate
from data_prep.workers import num_workers, workers
from etchr.checks import Count, Natural, Share, check
from etchr.sample import write_parquet

HEAVIEST_FIRST = ("jigsaw", "maze", "view3d", "frozen_lake", "chart", "perception")  # jigsaw: of many photographs
WORTH = 1_000  # samples of 64x64 px that are made while another process starts
POLL_S = 0.2  # between two looks at what the workers have done


@dataclass
class DataConfig:
    """Options of `python -m data_prep`."""

    num_samples: Count = 200  # per task
    seed: int = 0  # what is drawn; the splits are disjoint whatever the seed
    split: str = "test"  # train, val or test: decided by the hash of a scene
    kind: str = "question"  # question, or instruction: explicit instructions with arbitrary targets
    shallow: Share = 0.0  # kind=question: share that must have short paths, few pieces moved, near viewpoints
    lengths: list[int] | None = None  # kind=instruction of maze and frozen_lake: moves of the paths, each as often
    size: int = 64  # side of the pictures in px, 64 to 1024
    photos: str | None = None  # folder of photographs for the jigsaw; null: painted pictures
    processes: Natural = 0  # tasks that are made at the same time; 0: as many as there are CPUs, and one for small sets
    out: str = "outputs/data"  # folder; each task gets its own below it

    def __post_init__(self) -> None:
        check(self)
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r} must be one of {', '.join(SPLITS)}")
        if self.kind not in ("question", "instruction"):
            raise ValueError(f"kind={self.kind!r} must be question or instruction")
        if self.shallow and self.kind != "question":
            raise ValueError(f"shallow={self.shallow} is for kind=question: instructions name targets of any depth")
        if not 64 <= self.size <= 1024 or self.size % 16:
            raise ValueError(f"size={self.size} must be a multiple of 16 from 64 to 1024")
        if self.lengths is not None and self.kind != "instruction":
            raise ValueError(
                "lengths= is for kind=instruction, whose paths lead anywhere; a question's path leads to the goal"
            )


def make_all(names: Iterable[str], config: DataConfig) -> None:
    """Make the files of some tasks that are not there yet.

    `ValueError` for options that a task cannot follow, before anything is written, and `OSError` for a disk that fails.
    """
    from tqdm import tqdm

    todo = []
    for name in sorted(names, key=lambda name: (*HEAVIEST_FIRST, name).index(name)):
        if config.lengths is not None:
            check_lengths(procedural_tasks()[name], config.lengths)
        if is_made(name, config):
            print(f"{_file(name, config)}: kept")
        else:
            todo.append(name)
    if not todo:
        return
    label = todo[0] if len(todo) == 1 else f"{len(todo)} tasks"
    count = num_workers(config.processes, len(todo))
    if not config.processes:
        count = min(count, 1 + len(todo) * config.num_samples * config.size**2 // (WORTH * 64**2))
    with tqdm(desc=label, total=len(todo) * config.num_samples, unit="sample") as bar:
        if count > 1:
            _make_side_by_side(todo, config, count, bar)
        else:
            for name in todo:
                bar.write(make(name, config, bar.update))


def _make_side_by_side(names: Sequence[str], config: DataConfig, count: int, bar: Any) -> None:
    context = get_context("spawn")  # what is shared has no lock, for a worker that is killed would keep it
    done, stop = context.RawArray("q", len(names)), context.RawValue("b", 0)
    with workers(count, _start, done, stop) as pool:
        try:
            with _uninterrupted():
                waiting = {pool.submit(_work, number, name, config) for number, name in enumerate(names)}
            while waiting:
                ready, waiting = wait(waiting, POLL_S, FIRST_COMPLETED)
                bar.update(sum(done) - bar.n)
                for job in ready:
                    bar.write(job.result())
        except BaseException:
            stop.value = 1  # a task may have minutes to go
            raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C goes to all processes of a command; those that are started here leave it to this one."""
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


_done: Any  # of a worker: of each task the samples that are made,
_stop: Any  # and whether to make no more


def _start(done: Any, stop: Any) -> None:
    global _done, _stop
    _done, _stop = done, stop


def _work(number: int, name: str, config: DataConfig) -> str:
    def tick(count: int) -> None:
        if _stop.value:
            raise InterruptedError("stopped")
        _done[number] += count

    return make(name, config, tick)


def make(name: str, config: DataConfig, tick: Callable[[int], object]) -> str:
    """Write one task's file and then its note; what there is to say about it. `tick` hears of each sample."""
    task = procedural_tasks(Path(config.photos) if config.photos and name == "jigsaw" else None)[name]
    samples = generate(
        task,
        split=config.split,
        num_samples=config.num_samples,
        seed=config.seed,
        size=config.size,
        kind=config.kind,
        shallow=config.shallow,
        lengths=config.lengths,
    )

    def told() -> Iterator[Any]:
        for sample in samples:
            yield sample
            tick(1)

    path = _file(name, config)
    count = write_parquet(told(), path)
    path.with_suffix(".json").write_text(_note(name, config), encoding="utf-8")
    return f"{path}: {count} samples"


def is_made(name: str, config: DataConfig) -> bool:
    """Whether the same options have made the task's file."""
    path = _file(name, config)
    note = path.with_suffix(".json")
    return path.is_file() and note.is_file() and note.read_text(encoding="utf-8") == _note(name, config)


def _file(name: str, config: DataConfig) -> Path:
    return Path(config.out) / name / f"{config.split}.parquet"


def _note(name: str, config: DataConfig) -> str:
    made_by = asdict(config) | {"task": name, "out": None, "processes": None, "code": code_digest()}
    return json.dumps(made_by, indent=2, sort_keys=True) + "\n"


def code_digest() -> str:
    """A digest of this package's source: data made by other code is made again."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
