"""Pictures out of zip archives that come from outside: nothing leaves the folder, nothing but pictures is written."""

import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from etchr.images import MAX_BYTES
from etchr.run_folder import whole

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold, unpacked."""

    files: int = 200_000
    bytes: int = 64 * 2**30
    bytes_of_a_file: int = MAX_BYTES


def unpack(archive: Path, folder: Path, limits: Limits | None = None) -> int:
    """Write the pictures in `archive` below `folder`, by their names in it; how many there are.

    All names and sizes are checked first: a name that leads out of the folder, a link, an encrypted member or one over
    the limits is a `ValueError`, and nothing is written. What is there in its full size is left, so that the same call
    goes on where it was killed.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _pictures(opened, archive, limits or Limits())
            left = [(member, path) for member, name in members if not _whole(path := folder / name, member)]
            needed, free = sum(member.file_size for member, _ in left), free_bytes(folder)
            if needed > free:
                raise ValueError(f"{archive} unpacks to {needed:,} bytes more, of which {free:,} are free at {folder}")
            for member, path in tqdm(left, desc=archive.name, unit="picture", leave=False):
                path.parent.mkdir(parents=True, exist_ok=True)
                with whole(path) as part, opened.open(member) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target)
    except DAMAGE as error:
        raise ValueError(f"{archive} is damaged ({error}); remove it and start the same command again") from None
    return len(members)


def _pictures(opened: zipfile.ZipFile, archive: Path, limits: Limits) -> list[tuple[zipfile.ZipInfo, str]]:
    """The pictures in an archive with their names; `ValueError` if anything in it is not to be trusted."""
    members = [member for member in opened.infolist() if not member.is_dir()]
    if len(members) > limits.files:
        raise ValueError(f"{archive} holds {len(members):,} files; at most {limits.files:,} are unpacked")
    found: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for member in members:
        name, shown = member.filename, f"{archive}: {member.filename[:100]!r}"
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or any(mark in name for mark in "\\:\0"):
            raise ValueError(f"{shown} does not lie below the archive's folder")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise ValueError(f"{shown} is a link or a device, no file")
        if member.flag_bits & 1:
            raise ValueError(f"{shown} is encrypted")
        total += member.file_size
        if member.file_size > limits.bytes_of_a_file or total > limits.bytes:
            most = f"at most {limits.bytes_of_a_file:,} of a file and {limits.bytes:,} of all are unpacked"
            raise ValueError(f"{shown} has {member.file_size:,} bytes, all so far {total:,}; {most}")
        if name.lower().endswith(PICTURES) and not name.startswith("__MACOSX/"):
            if str(PurePosixPath(name)) in found:
                raise ValueError(f"{shown} is in it twice")
            found[str(PurePosixPath(name))] = member
    if not found:
        raise ValueError(f"{archive} holds no pictures")
    return [(member, name) for name, member in found.items()]


def _whole(path: Path, member: zipfile.ZipInfo) -> bool:
    return path.is_file() and path.stat().st_size == member.file_size


def free_bytes(folder: Path) -> int:
    """Free bytes where `folder` is or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free
