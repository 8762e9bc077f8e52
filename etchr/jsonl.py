"""JSON objects, one a line, each on disk before it is used: a file of them, and a journal of keyed ones."""

import json
from collections.abc import Callable, Hashable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Generic, NamedTuple, TypeVar

from etchr.run_folder import write_atomically

Record = dict[str, Any]
Value = TypeVar("Value")


class JsonLines:
    """An append-only file of JSON objects, one a line; a line torn by a kill counts as never written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: IO[bytes] | None = None

    def __iter__(self) -> Iterator[Record]:
        return (record for _, record in self.positions())

    def positions(self) -> Iterator[tuple[int, Record]]:
        """Every object with the position of its line in the file."""
        if not self.path.is_file():
            return
        position = 0
        with self.path.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n") and line != b"\n":  # what follows the last newline is torn
                    yield position, self._parsed(line)
                position += len(line)

    def at(self, position: int) -> Record:
        """The object whose line begins at `position`."""
        with self.path.open("rb") as stream:
            stream.seek(position)
            return self._parsed(stream.readline())

    def append(self, record: Record) -> int:
        """Add one object and hand it to the operating system before returning its position.

        Raises `OSError` if the disk is full.
        """
        if self._stream is None:
            self._stream = self._open()
        position = self._stream.tell()
        self._stream.write(json.dumps(record).encode("ascii") + b"\n")  # ASCII: lone surrogates of a model pass too
        self._stream.flush()
        return position

    def _parsed(self, line: bytes) -> Record:
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError(f"no object but {type(record).__name__}")
            return record
        except (ValueError, RecursionError):
            shown = line.removesuffix(b"\n")[:40]
            raise ValueError(
                f"{self.path} holds a damaged line ({shown!r}); remove that line and start again"
            ) from None

    def replace(self, records: list[Record]) -> None:
        """Make these objects the file's whole content."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, b"".join(json.dumps(record).encode("ascii") + b"\n" for record in records))

    def _open(self) -> IO[bytes]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stream = self.path.open("ab")
        whole = self.path.read_bytes().rfind(b"\n") + 1
        stream.truncate(whole)  # drop a torn last line, so that the next one starts clean
        stream.seek(whole)
        return stream

    def close(self) -> None:
        """Close the file; it opens again with the next `append`."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()


class Place(NamedTuple):
    """Where a record stands."""

    lines: JsonLines
    position: int

    def record(self) -> Record:
        """Read it again."""
        return self.lines.at(self.position)


class Journal(Generic[Value]):
    """Records by key in `<name>[.rank].jsonl`: a process writes its own file and, at its start, reads those of all.

    `values` holds what `read` makes of a record and its place; of several records of a key the last one counts, or the
    one that `supersedes` those before it.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        rank: int = 0,
        *,
        read: Callable[[Record, Place], Value],
        key: Callable[[Record], Hashable] = itemgetter("key"),
        supersedes: Callable[[Value, Value], bool] = lambda new, old: True,
    ) -> None:
        """`ValueError` that names the file if a line is damaged or `read` refuses it; a torn last one never was."""
        self.own = JsonLines(folder / f"{name}{f'.{rank}' if rank else ''}.jsonl")
        self.values: dict[Any, Value] = {}
        self._read, self._key, self._supersedes = read, key, supersedes
        for path in sorted(folder.glob(f"{name}.*jsonl")):
            lines = self.own if path == self.own.path else JsonLines(path)
            for position, record in lines.positions():
                try:
                    self._take(record, Place(lines, position))
                except (KeyError, TypeError, AttributeError, ValueError) as error:
                    line = json.dumps(record)[:40]
                    raise ValueError(f"{path} holds a bad line ({line}; {error}); remove that line") from None

    def put(self, record: Record) -> None:
        """Add a record; it is on disk when this returns. Raises `OSError` if the disk is full."""
        self._take(record, Place(self.own, self.own.append(record)))

    def close(self) -> None:
        """Close the own file; the next `put` opens it again."""
        self.own.close()

    def _take(self, record: Record, place: Place) -> None:
        key, value = self._key(record), self._read(record, place)
        if key not in self.values or self._supersedes(value, self.values[key]):
            self.values[key] = value
