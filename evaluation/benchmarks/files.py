"""Reading the files that benchmarks are published in: JSON, JSON lines, CSV, TSV, Parquet; every value is hostile."""

import base64
import binascii
import csv
import hashlib
import io
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from etchr.images import MAX_BYTES, ImageHeader, peek_image
from etchr.parquet import class_names, open_parquet, read_schema
from etchr.rows import MAX_TEXT, inside, text

MAX_FILE_BYTES = 256 * 2**20  # of a file that is read whole


@dataclass(frozen=True)
class Header(ImageHeader):
    """What stands for a picture where its pixels are not needed."""

    digest: str  # of the encoded bytes


def header(data: bytes) -> Header:
    """The header of an encoded picture, in the place of its pixels."""
    return Header(peek_image(io.BytesIO(data)).size, digest(data))


def no_picture(data: bytes) -> Header:
    """Nothing in the place of a picture, for who needs a sample's words alone; its file need not be there."""
    return Header((1, 1), "")


def digest(*parts: bytes | str) -> str:
    """A short digest of bytes and texts, that keeps their borders."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        if len(parts) > 1:
            found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.hexdigest()[:16]


@contextmanager
def naming(path: Path, number: int | None = None) -> Iterator[None]:
    """What is wrong inside is said with the file and, from 1, the number of the row."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}{'' if number is None else f', row {number}'}: {error}") from None


def word(value: Any, name: str, limit: int = MAX_TEXT) -> str:
    """A cell as text, a number as it is written: 4 for 4 and for 4.0; `ValueError` as `rows.text`."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**100:
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.15g}"
    return text(value, name, limit)


def content_ids(prefix: str, contents: Iterable[str]) -> list[str]:
    """An id for each row that goes with what is in it, wherever it stands; a repeated row counts up."""
    ids: list[str] = []
    times: dict[str, int] = {}
    for content in contents:
        times[content] = times.get(content, 0) + 1
        ids.append(f"{prefix}-{content}" + (f"-{times[content]}" if times[content] > 1 else ""))
    return ids


def all_different(ids: Sequence[str], path: Path) -> None:
    """`ValueError` that names the rows of the first id that occurs twice."""
    rows: dict[str, int] = {}
    for number, key in enumerate(ids, 1):
        if key in rows:
            raise ValueError(f"{path}, row {number}: the id {key[:100]!r} is that of row {rows[key]} too")
        rows[key] = number


def picture(root: Path, label: Any, decode: Callable[[bytes], Any]) -> Any:
    """The picture that a row names below `root`; `ValueError` if it lies elsewhere, is none, or is too large."""
    if decode is no_picture:
        return decode(b"")
    path = inside(root, label)
    data = picture_bytes(path)
    with naming(path):
        return decode(data)


def picture_bytes(path: Path) -> bytes:
    """The bytes of a picture's file; `ValueError` if they are too many."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
    return path.read_bytes()


def embedded_bytes(cell: Any) -> bytes:
    """The encoded picture in a cell: bytes, {bytes: ...}, base64 text, or the first of a list; else `ValueError`."""
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
    return cell


def embedded(cell: Any, decode: Callable[[bytes], Any]) -> Any:
    """The picture in a cell, as `embedded_bytes` finds it."""
    return decode(embedded_bytes(cell))


def read_text(path: Path, most: int = MAX_FILE_BYTES) -> str:
    """A file's text; `ValueError` that names the file if it is missing, has over `most` bytes or is no UTF-8."""
    if not path.is_file():
        raise ValueError(f"no file {path}")
    if path.stat().st_size > most:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {most:,} are read")
    with naming(path):
        return path.read_text(encoding="utf-8-sig")


def read_json(path: Path) -> Any:
    """The value in a JSON file; `ValueError` that names the file if it is missing, too large or no JSON."""
    written = read_text(path)
    try:
        return json.loads(written)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects in a JSON file that holds a list of them; `ValueError` that names the first that is none."""
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path} holds no list but {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, row {number}: no JSON object but {type(row).__name__}")
    return rows


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file with one on each line; `ValueError` as `read_json`, with the line."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):  # other line ends may stand in a text
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number} holds no JSON object")
            rows.append(row)
    return rows


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a head line; `ValueError` for one with more or fewer cells than that."""
    csv.field_size_limit(min(sys.maxsize, 2 * MAX_BYTES))
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    rows: list[dict[str, str]] = []
    try:
        columns = next(reader, [])
        for row in filter(None, reader):
            if len(row) != len(columns):
                raise ValueError(f"row {len(rows) + 1}: {len(row)} cells, not {len(columns)}")
            rows.append(dict(zip(columns, row, strict=True)))
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is not a CSV table: {error}") from None
    return rows


class RowReader(Protocol):
    """The rows of a table, read when they are asked for."""

    @property
    def columns(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def column(self, name: str) -> list[Any]:
        """One column whole, without reading the pictures in others."""
        ...


class TsvRows:
    """The rows of a TSV file with a head line; one is read when it is asked for, so pictures take no memory."""

    def __init__(self, path: Path) -> None:
        """One pass over the file notes where rows begin; `ValueError` if it is no such table."""
        csv.field_size_limit(min(sys.maxsize, 2 * MAX_BYTES))
        self.path, self._starts = path, []
        self._short: list[list[str | None]] = []  # the cells that hold no picture
        with path.open("rb") as stream:
            try:
                self.columns = _record(stream) or []
                start = stream.tell()
                while (row := _record(stream)) is not None:
                    if row:
                        if len(row) != len(self.columns):
                            raise ValueError(f"{len(row)} cells, not {len(self.columns)}")
                        self._starts.append(start)
                        self._short.append([cell if len(cell) <= MAX_TEXT else None for cell in row])
                    start = stream.tell()
            except (csv.Error, ValueError) as error:
                raise ValueError(f"{path} is not a TSV table: row {len(self._starts) + 1}: {error}") from None

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with self.path.open("rb") as stream:
            stream.seek(self._starts[index])
            row = _record(stream) or []
        return dict(zip(self.columns, row, strict=True))

    def column(self, name: str) -> list[Any]:
        """One column; None for a cell that is longer than a text may be."""
        place = self.columns.index(name)
        return [row[place] for row in self._short]


def _record(stream: IO[bytes]) -> list[str] | None:
    """The cells of the row that begins here; [] for an empty line, None at the end of the file.

    Most rows are one line without quotes. They are split at once, for the pictures in them make `csv` slow.
    """
    line = stream.readline()
    if b'"' in line:
        return next(csv.reader((part.decode("utf-8") for part in itertools.chain([line], stream)), delimiter="\t"))
    cells = line.decode("utf-8").rstrip("\r\n")
    return cells.split("\t") if cells else [] if line else None


class ParquetRows:
    """The rows of Parquet files, memory-mapped; class labels come as their names, pictures as bytes."""

    def __init__(self, files: Sequence[Path]) -> None:
        """`ValueError` as `open_parquet`."""
        self._table = open_parquet(files)
        self._labels = class_names(read_schema(files[0]))
        self.columns = list(self._table.column_names)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._table[index]
        return {name: self._named(name, value) for name, value in row.items()}

    def column(self, name: str) -> list[Any]:
        """One column whole, without reading the others."""
        return [self._named(name, value) for value in self._table[name][:]]

    def _named(self, name: str, value: Any) -> Any:
        names = self._labels.get(name)
        return names[value] if names is not None and isinstance(value, int) and 0 <= value < len(names) else value


def wanted_columns(columns: Sequence[str], needed: Sequence[str], path: Path) -> None:
    """`ValueError` that lists the columns seen unless all that are needed are there."""
    if missing := [name for name in needed if name not in columns]:
        raise ValueError(f"{path} has no column {', '.join(missing)}; it has: {', '.join(columns)}")
