"""Measure Parquet files of `EditSample`, row by row: what is kept of a row are counts and a few numbers."""

import json
import os
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.quality.phash import KEYS, perceptual_hash, reduction
from etchr.pages import short
from etchr.sample import EditSample, from_row
from etchr.seeds import hash_seed

SPLITS = ("train", "val", "test", "unnamed")  # the last: neither the row nor the file nor its folder says
LEARNT = ("train", "unnamed")  # a row of no split is taken for one of train
SPLIT_WORD = r"(train|val|test)(?:idation|ing)?"
COLUMNS = tuple(part.name for part in fields(EditSample) if part.name != "more_images")  # which no file holds
MAX_NAMES = 200  # different names that are counted by name, such as tasks; the rest together
MAX_SIZES = 20_000  # different picture sizes, likewise
TOP_SIZES = 20  # of them that are told
MAX_NAME = 80  # characters
MAX_EXAMPLES = 20  # bad rows told with file and number
OTHER = "(others)"
BATCH = 16  # rows in memory

# Upper edges of the bins, inclusive; one more bin follows.
EDGES: dict[str, tuple[float, ...]] = {
    "width": (64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 4096),
    "height": (64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 4096),
    "megapixels": (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16),
    "aspect_ratio": (0.33, 0.5, 0.67, 0.8, 0.95, 1.05, 1.25, 1.5, 2, 3),
    "question_characters": (25, 50, 100, 200, 400, 800, 1600, 3200),
    "question_words": (5, 10, 20, 40, 80, 160, 320, 640),
}


@dataclass
class Histogram:
    """Counts of values between fixed edges."""

    edges: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0
    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.edges) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.edges, value)] += 1
        self._reach(value, value, value)

    def merge(self, other: "Histogram") -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        if other.least is not None and other.most is not None:
            self._reach(other.total, other.least, other.most)

    def _reach(self, total: float, least: float, most: float) -> None:
        self.total += total
        self.least = least if self.least is None else min(self.least, least)
        self.most = most if self.most is None else max(self.most, most)

    def as_json(self) -> dict[str, Any]:
        """`counts[i]` holds the values up to and with `edges[i]`, the last count those above all edges."""
        mean = round(self.total / sum(self.counts), 4) if any(self.counts) else None
        parts = {"least": self.least, "mean": mean, "most": self.most}
        rounded = {name: value if value is None else round(value, 4) for name, value in parts.items()}
        return {"edges": list(self.edges), "counts": self.counts, **rounded}


@dataclass(frozen=True)
class MeasureJob:
    """One file to measure."""

    path: Path
    number: int  # of the file
    num_rows: int  # good and bad
    seed: int  # of the contact sheet
    sheet: int  # rows of each family to propose for it


@dataclass
class Measure:
    """What is known of the rows of one file, or of several, merged in the order of the files."""

    rows: int = 0  # good ones
    bad_rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    bad_examples: list[dict[str, Any]] = field(default_factory=list)
    bad_files: list[dict[str, str]] = field(default_factory=list)
    unread_rows: int = 0  # of the bad rows and files, those that may be of val or test: nothing says train
    unread_files: int = 0
    disagreeing: int = 0  # rows whose meta names another split than their file, or its folder, does
    tasks: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (family, task, what): what is counted
    answer_types: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, Histogram] = field(default_factory=lambda: {k: Histogram(v) for k, v in EDGES.items()})
    sheet: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)  # family: (lot, file, row), lowest lots

    def merge(self, other: "Measure", sheet: int) -> None:
        """Add what `other` counted; its rows come after those counted here."""
        self.rows += other.rows
        self.bad_rows += other.bad_rows
        self.unread_rows += other.unread_rows
        self.unread_files += other.unread_files
        self.disagreeing += other.disagreeing
        self.bad_examples = (self.bad_examples + other.bad_examples)[:MAX_EXAMPLES]
        self.bad_files += other.bad_files
        for mine, theirs, limit in (
            (self.reasons, other.reasons, MAX_NAMES),
            (self.answer_types, other.answer_types, MAX_NAMES),
            (self.sizes, other.sizes, MAX_SIZES),
        ):
            for name, count in theirs.items():
                _count(mine, name, limit, count)
        for (family, task, what), count in other.tasks.items():
            self._count_task(family, task, what, count)
        for name, histogram in other.histograms.items():
            self.histograms[name].merge(histogram)
        for family, lots in other.sheet.items():
            self.sheet[family] = sorted(self.sheet.get(family, []) + lots)[:sheet]

    def add(self, sample: EditSample, split: str, job: MeasureJob, row: int) -> None:
        """Count a row."""
        self.rows += 1
        edit, (width, height), family = sample.edit_image, sample.image.size, str(sample.family)
        task = short(sample.task, MAX_NAME)
        self._count_task(family, task, split)
        if edit is not None:
            self._count_task(family, task, "edit")
            if edit.tobytes() == sample.image.tobytes():
                self._count_task(family, task, "unchanged")
        kind = sample.meta.get("answer_type")
        _count(self.answer_types, short(kind, MAX_NAME) if isinstance(kind, str) else "(none)", MAX_NAMES)
        _count(self.sizes, f"{width}x{height}", MAX_SIZES)
        values = (width, height, width * height / 1e6, width / height, len(sample.question))
        for name, value in zip(EDGES, (*values, len(sample.question.split())), strict=True):
            self.histograms[name].add(value)
        lots = self.sheet.setdefault(family, [])
        lots.append((hash_seed("sheet", job.seed, sample.id), job.number, row))
        if len(lots) > 2 * job.sheet + 50:
            self.sheet[family] = sorted(lots)[: job.sheet]

    def lose(self, error: ValueError, file: Path) -> None:
        """Note a file that cannot be read, or not to its end."""
        self.bad_files.append({"file": short(file.as_posix()), "reason": short(error)})
        self.unread_files += file_split(file) not in LEARNT

    def refuse(self, error: ValueError, row_id: Any, split: str | None, file: Path, row: int) -> None:
        """Count a bad row; `split` is None where nothing tells it."""
        self.bad_rows += 1
        self.unread_rows += split not in LEARNT
        reason = short(str(error).removeprefix(f"bad row {row_id!r}: ").replace(f"sample {row_id!r}", "sample"))
        _count(self.reasons, re.sub(r"\b\d+\b", "#", reason), MAX_NAMES)
        if len(self.bad_examples) < MAX_EXAMPLES:
            told = {"file": short(file.as_posix()), "row": row, "id": short(str(row_id), MAX_NAME), "reason": reason}
            self.bad_examples.append(told)

    def as_json(self) -> dict[str, Any]:
        """What was counted, most frequent names first."""
        tasks: dict[tuple[str, str], dict[str, int]] = {}
        for (family, task, what), count in sorted(self.tasks.items()):
            tasks.setdefault((family, task), dict.fromkeys((*SPLITS, "edit", "unchanged"), 0))[what] = count
        rows: list[dict[str, Any]] = [
            {"family": family, "task": task, "rows": sum(counts[split] for split in SPLITS), **counts}
            for (family, task), counts in tasks.items()
        ]
        families: Counter[str] = Counter()
        for row in rows:
            families[row["family"]] += row["rows"]
        return {
            "rows": self.rows,
            "bad_rows": self.bad_rows,
            "bad_reasons": _ordered(self.reasons),
            "bad_examples": self.bad_examples,
            "bad_files": self.bad_files,
            "disagreeing_splits": self.disagreeing,
            "families": _ordered(families),
            "tasks": rows,
            "edits": {what: sum(row[what] for row in rows) for what in ("edit", "unchanged")},
            "answer_types": _ordered(self.answer_types),
            "num_sizes": len(self.sizes),
            "sizes": dict(list(_ordered(self.sizes).items())[:TOP_SIZES]),
            "histograms": {name: histogram.as_json() for name, histogram in self.histograms.items()},
        }

    def _count_task(self, family: str, task: str, what: str, count: int = 1) -> None:
        known = (family, task, what) in self.tasks or len(self.tasks) < MAX_NAMES * (len(SPLITS) + 2)
        self.tasks[family, task if known else OTHER, what] += count


def find_files(paths: Sequence[str]) -> list[Path]:
    """The Parquet files at `paths`: files, and all those below folders, in order. Each once.

    Raises `ValueError` for a path that holds none, and `OSError` for a folder that cannot be read.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        files = [path] if path.is_file() else sorted(_below(path))
        if not files:
            raise ValueError(f"no Parquet files in {path} or below it; name files, or folders that hold some")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _below(folder: Path) -> Iterator[Path]:
    """The Parquet files below a folder, behind links too; none of hidden folders or of those that end in .part."""
    seen: set[Path] = set()  # a link may lead back up
    for at, folders, names in os.walk(folder, onerror=_raise if folder.exists() else None, followlinks=True):
        if (place := Path(at).resolve()) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith(".part"))
        yield from (Path(at, name) for name in names if name.endswith(".parquet") and not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def count_rows(path: Path) -> int:
    """The number of rows that a file says it has; `ValueError` if it is no data set of ours."""
    with _opened(path) as parquet:
        seen = set(parquet.schema_arrow.names)
        if missing := [name for name in COLUMNS if name not in seen]:
            raise ValueError(f"not an EditSample data set: columns {missing} are missing")
        return parquet.metadata.num_rows


def measure_file(job: MeasureJob, tick: Callable[[int], object] = lambda count: None) -> tuple[Measure, np.ndarray]:
    """Measure one file; its counts, and the keys of its good rows (`KEYS`, shape (rows,))."""
    measure, keys = Measure(), []
    named = file_split(job.path)
    try:
        for number, row in _rows(job.path):
            tick(1)
            row_id = None if isinstance(row, ValueError) else row.get("id")
            try:
                sample = _sample(row)
            except ValueError as error:
                measure.refuse(error, row_id, _bad_row_split(row, named), job.path, number)
                continue
            said = split_name(sample.meta.get("split"))
            split = said or named or SPLITS[-1]
            measure.disagreeing += bool(said and named and said != named)
            measure.add(sample, split, job, number)
            assert isinstance(row, dict)
            keys.append(_keys(sample, row["image"]["bytes"], split, job, number))
    except ValueError as error:
        measure.lose(error, job.path)
    measure.sheet = {family: sorted(lots)[: job.sheet] for family, lots in measure.sheet.items()}
    return measure, np.array(keys, dtype=KEYS)


def read_at(path: Path, numbers: Sequence[int]) -> dict[int, EditSample]:
    """The good rows of a file with these numbers."""
    wanted, out = set(numbers), {}
    for number, row in _rows(path, wanted):
        out[number] = _sample(row)
        if len(out) == len(wanted):
            break  # what follows may be damaged
    return out


def split_name(text: Any) -> str | None:
    """The split that a file's name or a row's meta begins with."""
    found = re.match(rf"{SPLIT_WORD}(?![a-z])", text) if isinstance(text, str) else None
    return found[1] if found else None


def file_split(path: Path) -> str | None:
    """The split that a file's name begins with, or else the one that its folder is called."""
    if split := split_name(path.name):
        return split
    found = re.fullmatch(SPLIT_WORD, Path(os.path.abspath(path)).parent.name)
    return found[1] if found else None


def _bad_row_split(row: dict[str, Any] | ValueError, named: str | None) -> str | None:
    """The split of a row that is no sample; None where its meta cannot be read and its file names none."""
    try:
        meta = None if isinstance(row, ValueError) else json.loads(row.get("meta") or "{}")
    except (ValueError, TypeError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        return named
    return split_name(meta.get("split")) or named or SPLITS[-1]


def _rows(path: Path, wanted: set[int] | None = None) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """The rows of a file with their numbers, a few in memory at a time; `ValueError` where the file is damaged."""
    import pyarrow as pa

    try:
        with _opened(path) as parquet:
            start = 0
            for group in range(parquet.num_row_groups):
                end = start + parquet.metadata.row_group(group).num_rows
                if wanted is None or any(start <= number < end for number in wanted):
                    at = start
                    for batch in parquet.iter_batches(BATCH, row_groups=[group], columns=list(COLUMNS)):
                        for index in range(len(batch)):
                            if wanted is None or at + index in wanted:
                                yield at + index, _python(batch.slice(index, 1))
                        at += len(batch)
                start = end
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"damaged: {error}") from None


def _opened(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)  # pages are read as they are needed
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a Parquet file: {error}") from None


def _python(batch: Any) -> dict[str, Any] | ValueError:
    """The one row of a batch; the error, not raised, where a text is no UTF-8."""
    try:
        return batch.to_pylist()[0]
    except ValueError as error:
        return ValueError(str(error))


def _sample(row: dict[str, Any] | ValueError) -> EditSample:
    if isinstance(row, ValueError):
        raise row
    return from_row(row)


def _keys(sample: EditSample, data: bytes, split: str, job: MeasureJob, row: int) -> tuple[Any, ...]:
    question = " ".join(sample.question.casefold().split())
    reduced = np.frombuffer(reduction(sample.image), dtype=np.uint8)
    digests = (_digest(sample.id.encode()), _digest(data), _digest(question.encode()))
    return (*digests, perceptual_hash(sample.image), reduced, row, job.number, SPLITS.index(split))


def _digest(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def _ordered(counter: Counter[str]) -> dict[str, int]:
    """Most frequent first, then by name, so that the order of the files does not matter."""
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _count(counter: Counter[str], name: str, limit: int, count: int = 1) -> None:
    """Count a name, or the one for all others where the counter is full: hostile data cannot fill the memory."""
    counter[name if name in counter or len(counter) < limit else OTHER] += count
