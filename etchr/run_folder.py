"""The folder of a run: one writer at a time, one set of options, files that are whole or absent.

Evaluation and training share it, so that they behave alike when they are killed and started again.
"""

import fcntl
import hashlib
import json
import os
import shutil
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

EDGE_BYTES = 32 * 2**20  # of a file that go into its digest from either end: small data whole
TENSOR_EDGE_BYTES = 2 * 2**20  # of a tensor: those of nano whole
MAX_HEADER_BYTES = 100 * 2**20  # of a safetensors file, as its library has it


class RunFolder:
    """The folder of one run; `run.json` holds what decides its results."""

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
            clear_parts(self.path)
            yield

    def check(self, fingerprint: dict[str, Any], may_grow: tuple[str, ...] = ()) -> dict[str, Any]:
        """What `run.json` is to hold; `ValueError` if what lies there belongs to a run of other results.

        The entries of the dicts named in `may_grow` add to those of the folder; what is there must stay what it is.
        """
        fingerprint = json.loads(json.dumps(fingerprint))
        if not self.exists():
            return fingerprint
        note = self.path / "run.json"
        try:
            there = json.loads(note.read_text(encoding="utf-8"))
        except ValueError:
            there = None
        if not isinstance(there, dict):
            raise ValueError(f"{note} is damaged; choose another out=FOLDER or remove {self.path}")
        for key in (key for key in may_grow if isinstance(there.get(key), dict)):  # another kind of run has none
            there[key] = fingerprint[key] | there[key]
            fingerprint[key] = there[key] | fingerprint[key]
        if different := _differences(there, fingerprint):
            raise ValueError(
                f"{self.path} holds a run with other settings ({'; '.join(different[:3])}); "
                "choose another out=FOLDER or remove that one"
            )
        return fingerprint

    def claim(self, fingerprint: dict[str, Any], may_grow: tuple[str, ...] = ()) -> None:
        """Make the folder, or go on in it, if `check` lets it."""
        checked = self.check(fingerprint, may_grow)
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "run.json", json.dumps(checked, indent=2).encode() + b"\n")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all."""
    with whole(path) as part:
        part.write_bytes(data)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what becomes the file `path` at the end of the block, or nothing if the block fails.

    What a process leaves that is killed meanwhile goes with the next try; several at once do not meet.
    """
    with _part(path) as part:
        yield part
        part.replace(path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """`whole` for a folder, empty at first, which takes the place of one at `path`; those above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _part(path) as part:
        part.mkdir()
        yield part
        if path.exists():
            path.rename(part.with_name("before"))
        part.rename(path)


def clear_parts(folder: Path) -> None:
    """Remove what writes that were killed left below `folder`; those that are under way keep theirs."""
    for room in list(folder.rglob(".*.part")):
        if (lock := _lock(room)) is not None:
            shutil.rmtree(room, ignore_errors=True)
            os.close(lock)


def remove_folder(path: Path) -> None:
    """Remove a folder if it is there. It is whole until it is gone, wherever this is killed."""
    if path.is_dir():
        with _part(path) as part:
            path.rename(part)


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A name for what becomes `path`, in a folder beside it that no other process uses and that goes with the block."""
    room = path.with_name(f".{path.name}.part")
    lock = _lock(room)
    if lock is None:
        room = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        room.mkdir()
        lock = _lock(room)
    try:
        yield room / f"{path.name}.part"
    finally:
        shutil.rmtree(room, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock(room: Path) -> int | None:
    """A descriptor that keeps the emptied folder for this process while it is open; None if another one has it."""
    lock = None
    try:
        room.mkdir(exist_ok=True)
        lock = os.open(room, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), room.stat()):  # else it is another one by now
            for left in room.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            return lock
    except OSError:  # another process has it, or the file system has no locks
        pass
    if lock is not None:
        os.close(lock)
    return None


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


def content_digest(path: Path) -> str | None:
    """A digest of a file or of a folder's files, by names and contents; None if there is nothing at `path`.

    Of safetensors the header's meaning and every tensor count, whatever their order in the file; of what is long (a
    tensor, another file) both ends. What a write that was killed left behind does not count.
    """
    if not path.exists():
        return None
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        names = file.relative_to(path).parts
        if any(name.startswith(".") and name.endswith(".part") for name in names):
            continue
        digest.update("/".join(names).encode("utf-8", "surrogatepass"))
        with file.open("rb") as stream:
            for about, start, end in _pieces(stream, file):
                digest.update(f"\0{about}\0{end - start}\0".encode())
                edge = EDGE_BYTES if about == "" else TENSOR_EDGE_BYTES
                for low, high in ((start, min(start + edge, end)), (max(end - edge, start), end)):
                    stream.seek(low)
                    digest.update(stream.read(high - low))
    return digest.hexdigest()[:16]


def _pieces(stream: IO[bytes], file: Path) -> list[tuple[str, int, int]]:
    """What a file is made of: something about it, its start and its end; of a file in whatever format, itself."""
    whole = [("", 0, stream.seek(0, os.SEEK_END))]
    if file.suffix != ".safetensors":
        return whole
    stream.seek(0)
    try:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(min(length, MAX_HEADER_BYTES)))
        pieces = [(json.dumps(header.pop("__metadata__", {}), sort_keys=True), 0, 0)]
        for name, about in sorted(header.items()):
            low, high = about["data_offsets"]
            pieces.append((json.dumps([name, about["dtype"], about["shape"]]), 8 + length + low, 8 + length + high))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
        return whole
    return pieces
