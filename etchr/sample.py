"""`EditSample`: the one record that every data source produces and every stage reads.

On disk a data set is a folder of Parquet files in one schema (`features()`), read and written through `datasets`.
Loads without torch.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from etchr.families import TaskFamily
from etchr.images import decode_image, encode_png

if TYPE_CHECKING:
    import datasets


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

    def __post_init__(self) -> None:
        for name in ("id", "question", "answer", "task"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"sample {self.id!r}: {name} must be a non-empty text, got {value!r}")
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


def from_row(row: dict[str, Any]) -> EditSample:
    """The sample in a Parquet row: the only place where loose rows become typed samples.

    Images must be embedded bytes: a path in a row is a label, never opened. Raises a one-sentence `ValueError` that
    names the row's id for anything that does not fit.
    """
    row_id = row.get("id")
    try:
        meta = json.loads(row.get("meta") or "{}")
        if not isinstance(meta, dict):
            raise ValueError(f"meta must be a JSON object, got {type(meta).__name__}")
        edit = row.get("edit_image")
        return EditSample(
            id=_text(row, "id"),
            family=TaskFamily.parse(_text(row, "family")),
            task=_text(row, "task"),
            image=_image(row["image"]),
            question=_text(row, "question"),
            answer=_text(row, "answer"),
            choices=tuple(row.get("choices") or ()) or None,
            edit_image=None if edit is None or edit.get("bytes") is None else _image(edit),
            meta=meta,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"bad row {row_id!r}: {error}") from error


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise ValueError(f"{name} is missing (got {value!r})")
    return str(value)


def _image(cell: dict[str, Any]) -> Image.Image:
    if not cell.get("bytes"):
        raise ValueError("an image must be embedded as bytes")
    return decode_image(cell["bytes"])


def write_parquet(samples: Iterable[EditSample], path: Path) -> int:
    """Write `samples` to one Parquet file, in constant memory and atomically; the number of rows."""
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    schema = features().arrow_schema
    rows, count = [], 0
    with pq.ParquetWriter(part, schema) as writer:
        for sample in samples:
            rows.append(to_row(sample))
            count += 1
            if len(rows) == 256:
                writer.write_table(_table(rows, schema))
                rows = []
        if rows:
            writer.write_table(_table(rows, schema))
    part.replace(path)
    return count


def _table(rows: list[dict[str, Any]], schema: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema)


def read_parquet(path: str | Path, split: str | None = None) -> "SampleSet":
    """The data set in a Parquet file, or in a folder's `*.parquet` (only `<split>*.parquet` where `split` is given).

    Raises a `ValueError` that names the columns seen when the schema does not fit; no image is decoded yet.
    """
    import datasets

    path = Path(path)
    files = sorted(path.glob(f"{split or ''}*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise ValueError(f"no Parquet data at {path}; make some with: python -m data_prep all out={path}")
    table = datasets.Dataset.from_parquet([str(file) for file in files])
    wanted = features()
    missing = set(wanted) - set(table.column_names)
    if missing:
        raise ValueError(
            f"{path} is not an EditSample data set: columns {sorted(missing)} are missing, it has {table.column_names}"
        )
    table = table.select_columns(list(wanted)).cast(wanted)
    return SampleSet(table)


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
