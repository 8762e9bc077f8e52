"""Turn a source into Parquet files at scale: in parts, by several processes and machines, again and again the same.

A part is `part_size` consecutive items and one file, `<out>/<source>/<split>-00012.parquet`, which appears whole or
not at all. Its note in `<out>/<source>/<split>/` appears after it: a part that has one is not made again, so a build
that was killed goes on with the same command. Parts do not depend on each other, so `shard=i num_shards=n` spreads them
over machines that share the folder, under any scheduler; whoever finishes last writes `rejected.jsonl`.
"""

import json
import random
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import asdict
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from data_prep.sources.source import BuildConfig, Source, split_of
from data_prep.workers import num_workers, workers
from etchr.mllm.answers import ground_truth
from etchr.pages import short
from etchr.run_folder import RunFolder, write_atomically
from etchr.sample import EditSample, write_parquet
from etchr.seeds import hash_seed

FREE_OPTIONS = ("out", "processes", "shard", "num_shards")  # they do not decide what comes out

Note = dict[str, Any]  # of a part: items, samples by family, rejected items, bytes of its file


def build(kind: type[Source], config: BuildConfig) -> dict[str, int]:
    """Make the parts of this shard that are not there yet; the number of samples of each family in all parts made.

    Raises `ValueError` if the source is not what it should be or the folder holds another build, or if a test set lacks
    an item; `OSError` if the disk is full. A bad item of other splits stops nothing: it is left out, and
    `rejected.jsonl` says why.
    """
    from tqdm import tqdm

    source = _open(kind, config)
    num_items = min(len(source), config.num_items or len(source))
    if not num_items:
        raise ValueError(f"the source {source.name} holds no items")
    folder = RunFolder(_notes(source, config))
    free = (*FREE_OPTIONS, *source.free_options)
    options = {name: value for name, value in asdict(config).items() if name not in free}
    folder.claim({"source": source.name, "options": options, "identity": source.identity(), "code": code_digest()})
    num_parts = -(-num_items // config.part_size)
    mine = range(*(num_parts * shard // config.num_shards for shard in (config.shard, config.shard + 1)))
    parts = [part for part in mine if not _note(folder.path, part)]
    sizes = {part: min((part + 1) * config.part_size, num_items) - part * config.part_size for part in parts}
    begin, todo = time.perf_counter(), sum(sizes.values())
    with tqdm(total=num_items, initial=num_items - todo, desc=source.name, unit="item") as bar:
        for part in _made(kind, config, source, num_items, parts):
            bar.update(sizes[part])
    if todo:
        seconds = time.perf_counter() - begin
        print(f"{todo:,} items in {seconds:.1f} s: {todo / seconds:.1f} a second; a process took {_peak_gb():.2f} GB")
    return _finish(source, config, folder.path, num_parts)


def _made(kind: type[Source], config: BuildConfig, source: Source, num_items: int, parts: list[int]) -> Iterator[int]:
    """Make the parts; their numbers as they are done."""
    processes = num_workers(config.processes, len(parts))
    if processes <= 1:
        for part in parts:
            make_part(source, config, num_items, part)
            yield part
        return
    runs = Runs(parts, processes)
    with ExitStack() as stack:  # a pool for each process, so that it can be told its next part
        pools = [stack.enter_context(workers(1, _start, kind, config)) for _ in range(processes)]
        jobs: dict[Future[None], tuple[int, int]] = {}

        def begin(process: int) -> None:
            if (part := runs.take(process)) is not None:
                jobs[pools[process].submit(_work, num_items, part)] = process, part

        for process in range(processes):
            begin(process)
        while jobs:
            for job in wait(jobs, return_when=FIRST_COMPLETED).done:
                process, part = jobs.pop(job)
                job.result()
                begin(process)
                yield part


class Runs:
    """Divides parts among processes so that each goes forwards through neighbours.

    The rows of a file can only be reached by reading those before them: who skips none reads them once.
    """

    def __init__(self, parts: Sequence[int], processes: int) -> None:
        ends = [len(parts) * number // processes for number in range(processes + 1)]
        self._left = [deque(parts[start:end]) for start, end in pairwise(ends)]

    def take(self, process: int) -> int | None:
        """The next part for a process; one that has none left takes over half of the longest run."""
        mine = self._left[process]
        if not mine:
            longest = max(self._left, key=len)
            mine.extendleft(longest.pop() for _ in range((len(longest) + 1) // 2))
        return mine.popleft() if mine else None


_worker: tuple[Source, BuildConfig]  # of a worker process


def _start(kind: type[Source], config: BuildConfig) -> None:
    global _worker
    _worker = _open(kind, config), config


def _work(num_items: int, part: int) -> None:
    make_part(*_worker, num_items, part)


def _open(kind: type[Source], config: BuildConfig) -> Source:
    return kind(config)


def make_part(source: Source, config: BuildConfig, num_items: int, part: int) -> None:
    """Write one part and then its note."""
    rejected: list[dict[str, Any]] = []
    families: Counter[str] = Counter()
    items = range(part * config.part_size, min((part + 1) * config.part_size, num_items))

    def rows() -> Iterator[EditSample]:
        for index in items:
            key = ""
            try:
                key = source.key(index)
                found = item_samples(source, config, index, key)
            except (
                ValueError,
                MemoryError,
            ) as error:  # OSError: the disk or the network, which the next start may have
                reason = short(error) or "it needs more memory than there is"
                rejected.append({"item": index, "key": short(key), "reason": reason})
                continue
            families.update(str(sample.family) for sample in found)
            yield from found

    notes = _notes(source, config)
    path = _file(notes, part)
    num_bytes = 0
    if write_parquet(rows(), path):
        num_bytes = path.stat().st_size
    else:
        path.unlink()  # an empty file is no data set
    families_made = dict(sorted(families.items()))
    note: Note = {"items": len(items), "families": families_made, "rejected": rejected, "bytes": num_bytes}
    write_atomically(notes / f"part-{part:05d}.json", json.dumps(note).encode())


def item_samples(source: Source, config: BuildConfig, index: int, key: str) -> list[EditSample]:
    """The samples of an item, none if it belongs to another split; `ValueError` if it is refused.

    An answer that the grader cannot read is refused here, for it would stop Stage II and the evaluation later.
    """
    if split_of(key, config.val_share, source.test_share) != config.split:
        return []
    found = list(source.samples(index, random.Random(hash_seed(source.name, config.seed, key, index))))
    for sample in found:
        if not sample.meta.get("answer_is_missing"):
            ground_truth(sample)
    return found


def _peak_gb() -> float:
    """The most memory that this process or one of its workers held, in 1e9 bytes."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _finish(source: Source, config: BuildConfig, notes: Path, num_parts: int) -> dict[str, int]:
    """Write `rejected.jsonl` if all parts are there, and say how many samples there are."""
    made = [note for part in range(num_parts) if (note := _note(notes, part))]
    families: Counter[str] = Counter()
    for note in made:
        families.update(note["families"])
    rejected = [entry for note in made for entry in note["rejected"]]
    where = notes.parent / f"{config.split}-*.parquet"
    print(f"{where}: {families.total():,} samples, {len(rejected):,} items refused, {len(made)} of {num_parts} parts")
    if len(made) < num_parts:
        print("the other parts are other shards' work")
        return dict(families)
    write_atomically(notes / "rejected.jsonl", b"".join(json.dumps(entry).encode() + b"\n" for entry in rejected))
    for reason, count in Counter(entry["reason"] for entry in rejected).most_common(3):
        print(f"  {count:,} x {reason}")
    if rejected:
        print(f"  all of them: {notes / 'rejected.jsonl'}")
    if rejected and config.split == "test":
        raise ValueError(f"the test set in {where} lacks {len(rejected)} items, so nothing can be compared on it")
    return dict(families)


def _notes(source: Source, config: BuildConfig) -> Path:
    return Path(config.out) / source.name / config.split


def _file(notes: Path, part: int) -> Path:
    return notes.parent / f"{notes.name}-{part:05d}.parquet"


def _note(notes: Path, part: int) -> Note | None:
    """The note of a part; None if it is not made, or its file is not the one that the note is about."""
    path, file = notes / f"part-{part:05d}.json", _file(notes, part)
    try:
        note: Note = json.loads(path.read_text(encoding="utf-8"))
        there = file.stat().st_size if file.is_file() else 0
        return note if note["bytes"] == there else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def code_digest() -> str:
    """A digest of the sources' code and of what draws for them, for parts that other code made do not fit."""
    digest = sha256()
    here = Path(__file__).parent
    for path in (*sorted(here.parent.glob("*.py")), *sorted(here.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
