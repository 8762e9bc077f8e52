"""`EditSample`: the one record that every data source produces and every stage reads.

On disk a data set is a folder of Parquet files in one schema (`features()`), read through `datasets`.
Loads without torch.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from etchr.families import TaskFamily
from etchr.images import decode_image, encode_png
from etchr.parquet import open_parquet, read_schema
from etchr.rows import MAX_TEXT
from etchr.run_folder import whole

if TYPE_CHECKING:
    import datasets


MAX_NAME = 1_000  # characters of an id, a task, a category
MAX_META = 10**6  # characters of a row's JSON
GROUP_ROWS = 256  # of a row group, or fewer that have
GROUP_BYTES = 64 * 2**20  # of pictures


@dataclass(frozen=True)
class EditSample:
    """One question about one image, with the edit that would make its answer visible where that edit is known."""

    id: str  # unique within a data set and stable across runs
    family: TaskFamily
    task: str  # finer than the family: the benchmark or the procedural task
    image: Image.Image  # RGB
    question: str
    answer: str  # ground truth: an option letter, a number, "U,D,L,R" moves, a permutation "2-0-3-1" or free text
    choices: tuple[str, ...] | None = None  # option texts in the order A, B, ...
    edit_image: Image.Image | None = None  # ground-truth edit i*, same size as `image`
    meta: dict[str, Any] = field(default_factory=dict)  # JSON: answer_type, split, source, licence, boxes, grid, ...
    more_images: tuple[Image.Image, ...] = ()  # further pictures of a question about several; not in the schema

    @property
    def sources(self) -> tuple[Image.Image, ...]:
        """All pictures of the question; the first is the one that is edited."""
        return self.image, *self.more_images

    @property
    def edit_question(self) -> str:
        """The question that an editor is trained on: the one that is asked, unless the released prompt has another."""
        return str(self.meta.get("edit_question", self.question))

    @property
    def num_questions(self) -> int:
        """How many questions about its picture the sample lists with their answers (`meta.pairs`)."""
        return len(self.meta.get("pairs") or (self.question,))

    def asked(self, number: int) -> "EditSample":
        """The sample with one of its listed questions, its answer, type and choices; a seed will do as the number."""
        pairs = self.meta.get("pairs")
        if not pairs:
            return self
        pair = pairs[number % len(pairs)]
        meta = {**self.meta, "answer_type": pair["answer_type"]}
        choices = tuple(pair["choices"] or ()) or None
        return replace(self, question=pair["question"], answer=pair["answer"], choices=choices, meta=meta)

    def __post_init__(self) -> None:
        for name in ("id", "question", "answer", "task"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"sample {self.id!r}: {name} must be a non-empty text, got {value!r}")
        if not all(isinstance(choice, str) for choice in self.choices or ()):
            raise ValueError(f"sample {self.id!r}: choices must be texts, got {self.choices!r}")
        if len(self.choices or ()) > 26:
            raise ValueError(f"sample {self.id!r} has {len(self.choices or ())} choices; letters reach for 26")
        if self.edit_image is not None and self.edit_image.size != self.image.size:
            raise ValueError(
                f"sample {self.id!r}: edit is {self.edit_image.size}, source is {self.image.size}; they must align"
            )


def features() -> "datasets.Features":
    """The Parquet schema of an `EditSample`."""
    from datasets import Features, Image, Sequence, Value

    text = Value("string")
    return Features(
        {
            "id": text,
            "family": text,
            "task": text,
            "image": Image(decode=False),
            "question": text,
            "choices": Sequence(text),
            "answer": text,
            "edit_image": Image(decode=False),
            "meta": text,
        }
    )


def to_row(sample: EditSample) -> dict[str, Any]:
    """`sample` as a row of the Parquet schema; images as PNG bytes, `meta` as JSON."""
    edit = sample.edit_image
    if sample.more_images:
        raise ValueError(f"sample {sample.id!r} shows {1 + len(sample.more_images)} pictures; the schema holds one")
    return {
        "id": sample.id,
        "family": str(sample.family),
        "task": sample.task,
        "image": {"bytes": encode_png(sample.image), "path": None},
        "question": sample.question,
        "choices": list(sample.choices or ()),
        "answer": sample.answer,
        "edit_image": None if edit is None else {"bytes": encode_png(edit), "path": None},
        "meta": json.dumps(sample.meta, sort_keys=True),
    }


def from_row(row: dict[str, Any], decode: Callable[[Any], Any] = decode_image) -> EditSample:
    """The sample in a Parquet row: the only place where loose rows become typed samples.

    Images must be embedded bytes: a path in a row is a label, never opened. Raises a one-sentence `ValueError` that
    names the row's id for anything that does not fit. With another `decode`, such as one that reads headers only, the
    sample's images are what that makes of the bytes.
    """
    row_id = str(row.get("id"))[:MAX_NAME]
    try:
        meta = _meta(row.get("meta") or "{}")
        edit = row.get("edit_image") or {}
        return EditSample(
            id=_text(row, "id", MAX_NAME),
            family=TaskFamily.parse(_text(row, "family", MAX_NAME)),
            task=_text(row, "task", MAX_NAME),
            image=_image(row["image"], decode),
            question=_text(row, "question"),
            answer=_text(row, "answer"),
            choices=tuple(_limited(choice, "a choice") for choice in row.get("choices") or ()) or None,
            edit_image=_image(edit, decode) if edit.get("bytes") is not None or edit.get("path") else None,
            meta=meta,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"bad row {row_id!r}: {error}") from error


def _text(row: dict[str, Any], name: str, most: int = MAX_TEXT) -> str:
    value = row.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise ValueError(f"{name} is missing (got {value!r})")
    return str(_limited(value, name, most))


def _limited(value: Any, name: str, most: int = MAX_TEXT) -> Any:
    if isinstance(value, str) and len(value) > most:
        raise ValueError(f"{name} has {len(value):,} characters; at most {most:,} are read")
    return value


def _meta(text: Any) -> dict[str, Any]:
    """A row's JSON, with the types that reports count by."""
    meta = json.loads(_limited(text, "meta", MAX_META), parse_constant=_refuse)
    if not isinstance(meta, dict):
        raise ValueError(f"meta must be a JSON object, got {type(meta).__name__}")
    for name in ("cluster", "category"):
        if not isinstance(meta.get(name), str | int | None):
            raise ValueError(f"meta.{name} must be a text, got {meta[name]!r:.60}")
        if meta.get(name) is not None:
            meta[name] = str(_limited(meta[name], f"meta.{name}", MAX_NAME))
    for name in ("path_length", "depth"):
        value = meta.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise ValueError(f"meta.{name} must be a whole number from 0 up, got {value!r:.60}")
    if not isinstance(meta.get("edit_question", ""), str):
        raise ValueError(f"meta.edit_question must be a text, got {meta['edit_question']!r:.60}")
    pairs = meta.get("pairs", [])
    if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
        raise ValueError("meta.pairs must list questions with answer, answer_type and choices")
    return meta


def _is_pair(pair: Any) -> bool:
    if not isinstance(pair, dict) or not {"question", "answer", "answer_type", "choices"} <= pair.keys():
        return False
    if not isinstance(pair["choices"], list | None):
        return False
    texts = [pair["question"], pair["answer"], pair["answer_type"], *(pair["choices"] or ())]
    return all(isinstance(value, str) and value.strip() and len(value) <= MAX_TEXT for value in texts)


def _refuse(constant: str) -> None:
    raise ValueError(f"meta holds {constant}, which is no JSON")


def _image(cell: dict[str, Any] | None, decode: Callable[[Any], Any]) -> Any:
    if not cell or not cell.get("bytes"):
        raise ValueError("an image must be embedded as bytes")
    return decode(cell["bytes"])


def write_parquet(samples: Iterable[EditSample], path: Path) -> int:
    """Write `samples` to one Parquet file, in constant memory and atomically; the number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        return _write_groups(samples, part)


def _write_groups(samples: Iterable[EditSample], part: Path) -> int:
    import pyarrow.parquet as pq

    schema = features().arrow_schema
    rows, size, count = [], 0, 0
    with pq.ParquetWriter(part, schema) as writer:
        for sample in samples:
            rows.append(to_row(sample))
            size += sum(len(rows[-1][name]["bytes"]) for name in ("image", "edit_image") if rows[-1][name])
            count += 1
            if len(rows) == GROUP_ROWS or size >= GROUP_BYTES:
                writer.write_table(_table(rows, schema))
                rows, size = [], 0
        if rows:
            writer.write_table(_table(rows, schema))
    return count


def _table(rows: list[dict[str, Any]], schema: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema)


def find_files(paths: Sequence[str], split: str) -> list[Path]:
    """The Parquet files that `paths` name, each once: files, or `<split>*.parquet` of folders and of those in them.

    Raises `ValueError` for a path that names none.
    """
    files: dict[Path, Path] = {}
    for path in map(Path, paths):
        found = [path]
        if not path.is_file():
            found = sorted([*path.glob(f"{split}*.parquet"), *path.glob(f"*/{split}*.parquet")])
        if not found:
            raise ValueError(
                f"no {split} data at {path}; make some with: python -m data_prep all split={split} out={path}"
            )
        files |= {file.resolve(): file for file in found if file.resolve() not in files}
    return list(files.values())


def read_parquet(path: str | Path, split: str | None = None) -> "SampleSet":
    """The data set in a Parquet file, or in a folder's `*.parquet` (only `<split>*.parquet` where `split` is given).

    Raises a `ValueError` that names the columns seen when the schema does not fit; no image is decoded yet.
    """
    import pyarrow

    path = Path(path)
    files = sorted(path.glob(f"{split or ''}*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise ValueError(f"no Parquet data at {path}; make some with: python -m data_prep all out={path}")
    for file in files:
        _check_columns(file)
    wanted = features()
    try:
        table = open_parquet(files).select_columns(list(wanted)).cast(wanted)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(f"{path} is damaged or not an EditSample data set: {reason}") from error
    return SampleSet(table)


def _check_columns(file: Path) -> None:
    """`ValueError` unless `file` is Parquet with rows and every column of the schema, text where text belongs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    seen = read_schema(file)
    wanted = features().arrow_schema
    if missing := sorted(set(wanted.names) - set(seen.names)):
        raise ValueError(f"{file} is not an EditSample data set: columns {missing} are missing, it has {seen.names}")
    for column in wanted:
        kind = seen.field(column.name).type
        if pa.types.is_string(column.type) and kind not in (pa.string(), pa.large_string(), pa.null()):
            raise ValueError(f"{file} is not an EditSample data set: column {column.name} holds {kind}, not text")
    if not pq.read_metadata(file).num_rows:
        raise ValueError(f"{file} holds no samples")


class SampleSet:
    """A read-only sequence of `EditSample`, decoded on access."""

    def __init__(self, table: "datasets.Dataset") -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> EditSample:
        return from_row(self.table[index])

    def __iter__(self) -> Iterator[EditSample]:
        return map(from_row, self.table)
