"""Turn a source into Parquet files at scale: in parts, by several processes and machines, again and again the same.

A part is `part_size` consecutive items and one file, `<out>/<source>/<split>-00012.parquet`, which appears whole or
not at all. Its note in `<out>/<source>/<split>/` appears after it: a part that has one is not made again, so a build
that was killed goes on with the same command. Parts do not depend on each other, so `shard=i num_shards=n` spreads them
over machines that share the folder, under any scheduler; whoever finishes last writes `rejected.jsonl`.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from data_prep.sources.source import BuildConfig, Source
from etchr.run_folder import RunFolder, write_atomically
from etchr.sample import EditSample, write_parquet
from etchr.seeds import hash_seed

FREE_OPTIONS = ("out", "processes", "shard", "num_shards")  # they do not decide what comes out
MAX_REASON = 300  # characters of a reason or a key in rejected.jsonl

Note = dict[str, Any]  # of a part: items, samples, families, rejected


def build(kind: type[Source], config: BuildConfig) -> dict[str, int]:
    """Make the parts of this shard that are not there yet; the number of samples of each family in all parts made.

    Raises `ValueError` if the source is not what it should be or the folder holds another build; `OSError` if the disk
    is full. A bad item stops nothing: it is left out, and `rejected.jsonl` says why.
    """
    from tqdm import tqdm

    source = _open(kind, config)
    num_items = min(len(source), config.num_items or len(source))
    if not num_items:
        raise ValueError(f"the source {source.name} holds no items")
    folder = RunFolder(_notes(source, config))
    options = {name: value for name, value in asdict(config).items() if name not in FREE_OPTIONS}
    folder.claim({"source": source.name, "options": options, "identity": source.identity()})
    num_parts = -(-num_items // config.part_size)
    parts = [part for part in range(config.shard, num_parts, config.num_shards) if not _note(folder.path, part)]
    sizes = {part: min((part + 1) * config.part_size, num_items) - part * config.part_size for part in parts}
    with tqdm(total=num_items, initial=num_items - sum(sizes.values()), desc=source.name, unit="item") as bar:
        for part in _made(kind, config, source, num_items, parts):
            bar.update(sizes[part])
    return _finish(source, config, folder.path, num_parts)


def _made(kind: type[Source], config: BuildConfig, source: Source, num_items: int, parts: list[int]) -> Iterator[int]:
    """Make the parts; their numbers as they are done."""
    processes = min(config.processes or os.cpu_count() or 1, len(parts))
    if processes <= 1:
        for part in parts:
            make_part(source, config, num_items, part)
            yield part
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _start, (kind, config)) as pool:
        jobs = {pool.submit(_work, num_items, part): part for part in parts}
        try:
            for job in as_completed(jobs):
                job.result()
                yield jobs[job]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


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
            try:
                found = item_samples(source, config, index)
            except (ValueError, OSError) as error:
                rejected.append({"item": index, "key": _key(source, index), "reason": _short(error)})
                continue
            families.update(str(sample.family) for sample in found)
            yield from found

    path = _notes(source, config).parent / f"{config.split}-{part:05d}.parquet"
    if not write_parquet(rows(), path):
        path.unlink()  # an empty file is no data set
    note: Note = {"items": len(items), "families": dict(sorted(families.items())), "rejected": rejected}
    write_atomically(_notes(source, config) / f"part-{part:05d}.json", json.dumps(note).encode())


def item_samples(source: Source, config: BuildConfig, index: int) -> list[EditSample]:
    """The samples of an item, none if it belongs to the other split; `ValueError` if it is refused."""
    key = source.key(index)
    if split_of(key, config.val_share) != config.split:
        return []
    return list(source.samples(index, random.Random(hash_seed(source.name, config.seed, key, index))))


def split_of(key: str, val_share: float) -> str:
    """The split of a picture: a function of its key alone, so no picture is in both."""
    lot = int(sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12], 16) / 16**12
    return "val" if lot < val_share else "train"


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
    return dict(families)


def _notes(source: Source, config: BuildConfig) -> Path:
    return Path(config.out) / source.name / config.split


def _note(notes: Path, part: int) -> Note | None:
    path = notes / f"part-{part:05d}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _key(source: Source, index: int) -> str:
    try:
        return _short(source.key(index))
    except (ValueError, OSError):
        return ""


def _short(words: object) -> str:
    line = " ".join(str(words).split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 3] + "..."
