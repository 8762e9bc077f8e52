"""Records of a run: one JSON line per sample and system, written the moment a sample is done.

A run folder holds `run.json` (what decides the results), `records/<system>.jsonl`, `edits/<system>/*.png` and the
reports. Kill a run at any moment: lines are complete or dropped, and what is recorded is not computed again.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from PIL import Image

from etchr.images import encode_png

Record = dict[str, Any]


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return (self.path / "run.json").is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; `ValueError` if one is at work here. The system lifts the lock of a dead one."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("wb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"another process is writing to {self.path}; wait for it or choose another out=FOLDER"
                ) from None
            yield

    def claim(self, fingerprint: dict[str, Any]) -> None:
        """Make the folder, or go on in it; `ValueError` if what lies there belongs to a run of other results.

        `fingerprint` is what `factory.fingerprint` gives; its systems and tasks add to those of the folder.
        """
        note = self.path / "run.json"
        if self.exists():
            try:
                there = json.loads(note.read_text(encoding="utf-8"))
            except ValueError:
                there = None
            if not isinstance(there, dict):
                raise ValueError(f"{note} is damaged; choose another out=FOLDER or remove {self.path}")
            fingerprint = json.loads(json.dumps(fingerprint))
            for key in ("systems", "data"):  # a run may gain systems and tasks; what is there must stay what it is
                there[key] = fingerprint[key] | there[key]
                fingerprint[key] = there[key] | fingerprint[key]
            if different := _differences(there, fingerprint):
                raise ValueError(
                    f"{self.path} holds a run with other settings ({'; '.join(different[:3])}); "
                    "choose another out=FOLDER or remove that one"
                )
        write_atomically(note, json.dumps(fingerprint, indent=2).encode() + b"\n")

    def records(self, system: str) -> "RecordFile":
        """The records of one system."""
        return RecordFile(self.path / "records" / f"{_plain(system)}.jsonl")

    def save_edit(self, system: str, sample_id: str, edit: Image.Image) -> str:
        """Write an edit as PNG; its path relative to the run folder. The name is a digest, never text from data."""
        name = hashlib.sha256(sample_id.encode()).hexdigest()[:20] + ".png"
        path = self.path / "edits" / _plain(system) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encode_png(edit))
        return path.relative_to(self.path).as_posix()


class RecordFile:
    """An append-only JSON-lines file keyed by `sample_id`; of several lines about one sample the last one counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: IO[bytes] | None = None

    def read(self) -> dict[str, Record]:
        """All complete records by sample id; a line torn by a kill is no record."""
        return {record["sample_id"]: record for record in self._lines()}

    def _lines(self) -> Iterator[Record]:
        if self.path.is_file():
            for line in self.path.read_bytes().split(b"\n")[:-1]:  # what follows the last newline is torn or empty
                if line:
                    try:
                        yield json.loads(line)
                    except ValueError:
                        raise ValueError(
                            f"{self.path} holds a damaged line ({line[:40]!r}); without it its sample is redone"
                        ) from None

    def append(self, record: Record) -> None:
        """Add one record and hand it to the operating system before returning; `OSError` if the disk is full."""
        if self._stream is None:
            self._stream = self._open()
        self._stream.write(json.dumps(record).encode("ascii") + b"\n")  # ASCII: lone surrogates of a model pass too
        self._stream.flush()

    def _open(self) -> IO[bytes]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stream = self.path.open("ab")
        whole = self.path.read_bytes().rfind(b"\n") + 1
        stream.truncate(whole)  # drop a torn last line, so that the next one starts clean
        return stream

    def close(self) -> None:
        """Close the file; it opens again with the next `append`."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def _plain(system: str) -> str:
    if not system.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"system name {system!r} may hold letters, digits, - and _ only")
    return system


def _differences(there: Any, here: Any, where: str = "") -> list[str]:
    """Where two JSON values differ, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = sorted(there.keys() | here.keys())
        parts = [_differences(there.get(key), here.get(key), f"{where}.{key}".strip(".")) for key in keys]
        return [difference for part in parts for difference in part]
    return [] if there == here else [f"{where}: {_short(there)} there, {_short(here)} here"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
