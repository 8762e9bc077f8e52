"""Reading the files that benchmarks are published in: JSON, JSON lines, TSV, Parquet; every value is hostile."""

import base64
import binascii
import csv
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from etchr.images import MAX_BYTES, ImageHeader, peek_image
from etchr.rows import inside

MAX_JSON_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Header(ImageHeader):
    """What stands for a picture where its pixels are not needed."""

    digest: str  # of the encoded bytes


def header(data: bytes) -> Header:
    """The header of an encoded picture, in the place of its pixels."""
    return Header(peek_image(io.BytesIO(data)).size, hashlib.sha256(data).hexdigest()[:16])


def picture(root: Path, label: Any, decode: Callable[[bytes], Any]) -> Any:
    """The picture that a row names below `root`; `ValueError` if it lies elsewhere, is none, or is too large."""
    path = inside(root, label)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
    try:
        return decode(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def embedded(cell: Any, decode: Callable[[bytes], Any]) -> Any:
    """The picture in a cell: bytes, {bytes: ...}, base64 text, or the first of a list; else `ValueError`."""
    while isinstance(cell, list | tuple) and cell:
        cell = cell[0]
    if isinstance(cell, dict):
        cell = cell.get("bytes")
    if isinstance(cell, str):
        try:
            cell = base64.b64decode(cell, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("a picture is not valid base64") from None
    if not isinstance(cell, bytes) or not cell:
        raise ValueError(f"a picture must be embedded as bytes, got {type(cell).__name__}")
    return decode(cell)


def read_json(path: Path) -> Any:
    """The value in a JSON file; `ValueError` that names the file if it is missing, too large or no JSON."""
    if not path.is_file():
        raise ValueError(f"no file {path}")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_JSON_BYTES:,} are read")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file with one on each line."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number} holds no JSON object")
            rows.append(row)
    return rows


class TsvRows(Sequence[dict[str, str]]):
    """The rows of a TSV file with a head line; one is read when it is asked for, so pictures take no memory."""

    def __init__(self, path: Path) -> None:
        """One pass over the file notes where rows begin; `ValueError` if it is no such table."""
        csv.field_size_limit(min(sys.maxsize, 2 * MAX_BYTES))
        self.path, self._starts = path, []
        with path.open("rb") as stream:
            lines = _Lines(stream)
            reader = csv.reader(lines, delimiter="\t")
            try:
                self.columns = next(reader)
                start = lines.offset
                for row in reader:
                    if row:
                        if len(row) != len(self.columns):
                            raise ValueError(f"{len(row)} cells, not {len(self.columns)}")
                        self._starts.append(start)
                    start = lines.offset
            except (StopIteration, csv.Error, UnicodeDecodeError, ValueError) as error:
                where = f"row {len(self._starts) + 1}: " if self._starts else ""
                raise ValueError(f"{path} is not a TSV table: {where}{error or 'it is empty'}") from None

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: Any) -> Any:
        with self.path.open("rb") as stream:
            stream.seek(self._starts[index])
            row = next(csv.reader(_Lines(stream), delimiter="\t"))
        return dict(zip(self.columns, row, strict=True))


class _Lines(Iterator[str]):
    """The lines of a file as text, and how far they have been read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.offset = stream, stream.tell()

    def __next__(self) -> str:
        line = self._stream.readline()
        if not line:
            raise StopIteration
        self.offset += len(line)
        return line.decode("utf-8")


class ParquetRows(Sequence[dict[str, Any]]):
    """The rows of Parquet files, memory-mapped by `datasets`."""

    def __init__(self, files: Sequence[Path]) -> None:
        import datasets
        import pyarrow as pa

        try:
            table = datasets.Dataset.from_parquet([str(file) for file in files])
        except (datasets.exceptions.DatasetGenerationError, pa.ArrowException, ValueError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise ValueError(f"{files[0]} is not a Parquet table: {reason}") from None
        self.columns = list(table.column_names)
        for name, kind in table.features.items():  # bytes stay bytes: they are decoded within our limits
            if isinstance(kind, datasets.Image):
                table = table.cast_column(name, datasets.Image(decode=False))
            elif isinstance(inner := getattr(kind, "feature", None), datasets.Image):
                assert inner is not None
                table = table.cast_column(name, datasets.List(datasets.Image(decode=False)))
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Any) -> Any:
        return self._table[index]

    def column(self, name: str) -> list[Any]:
        """One column whole, without reading the others."""
        return self._table[name][:]


def wanted_columns(columns: Sequence[str], needed: Sequence[str], path: Path) -> None:
    """`ValueError` that lists the columns seen unless all that are needed are there."""
    if missing := [name for name in needed if name not in columns]:
        raise ValueError(f"{path} has no column {', '.join(missing)}; it has: {', '.join(columns)}")
