"""Records of an evaluation: one JSON line per sample, system and repeat, written the moment a sample is done.

The run folder holds `run.json` (what decides the results), `records/<system>*.jsonl`, `edits/<system>/*.png`,
`calls/` (every reply of a model, see `store.py`) and the reports. Kill a run at any moment: lines are complete or
dropped, and what is recorded is not computed again.
"""

import hashlib
import os
import shutil
from operator import itemgetter
from pathlib import Path
from typing import Any

from PIL import Image

from etchr.images import encode_png
from etchr.jsonl import Journal, Record
from etchr.mllm.journal import CallJournal
from etchr.run_folder import RunFolder, whole, write_atomically

Key = tuple[str, int]  # sample id, repeat


class EvalFolder(RunFolder):
    """The folder of one evaluation; it may gain systems and tasks."""

    def claim(self, fingerprint: dict[str, Any], may_grow: tuple[str, ...] = ("systems", "tasks")) -> None:
        """`fingerprint` is what `factory.fingerprint` gives."""
        super().claim(fingerprint, may_grow)

    def records(self, system: str, rank: int = 0) -> "RecordFile":
        """The records of one system; each process writes a file of its own and reads those of all."""
        return RecordFile(self.path / "records", plain_name(system), rank)

    def journal(self, rank: int = 0) -> CallJournal:
        """The replies of this run's models."""
        return CallJournal(self.path / "calls", rank)

    def save_picture(self, system: str, name: str, image: Image.Image, there: Path | None = None) -> str:
        """Keep a picture as PNG; its path relative to the run folder. `name` may be any text: its digest is used.

        A picture that lies in a file `there` is linked, or copied where the file systems differ.
        """
        file = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:20] + ".png"
        path = self.path / "edits" / plain_name(system) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if there is None:
            write_atomically(path, encode_png(image))
        else:
            with whole(path) as part:
                try:
                    os.link(there, part)
                except OSError:
                    shutil.copyfile(there, part)
        return path.relative_to(self.path).as_posix()


class RecordFile:
    """Records by sample id and repeat; each process writes a file of its own and reads those of all."""

    def __init__(self, folder: Path, system: str, rank: int) -> None:
        self._folder, self._system, self._rank = folder, system, rank
        self._journal = self._open()

    def _open(self) -> Journal[Record]:
        return Journal(
            self._folder,
            self._system,
            self._rank,
            read=lambda record, _: record,
            key=itemgetter("sample_id", "repeat"),
            supersedes=lambda new, old: _worth(new) >= _worth(old),
        )

    def read(self) -> dict[Key, Record]:
        """All complete records, as they lie on disk by now; a line torn by a kill is no record.

        What one process left unscored, or with its edit unjudged, another one may have made whole after a restart with
        more or fewer of them; that one counts.
        """
        self.close()
        self._journal = self._open()
        return dict(self._journal.values)

    def append(self, record: Record) -> None:
        self._journal.put(record)

    def close(self) -> None:
        self._journal.close()


def is_whole(record: Record | None) -> bool:
    """Whether nothing of a record is left to ask: it is scored, and the edit judge's call, if any, did not fail."""
    return record is not None and _worth(record) == (True, True)


def _worth(record: Record) -> tuple[bool, bool]:
    """Whether a record is scored, and whether no call of the edit judge failed (older records have no note of that)."""
    return record["unscored"] is None, (record["edit"] or {}).get("judge_failed") is None


def edit_is_right(record: Record) -> bool | None:
    """Whether a record's edit is right: by its pixels, else in the edit judge's eyes; None if nobody knows."""
    edit = record["edit"]
    if edit is None:
        return None
    return edit["judged"] if edit["matches"] is None else edit["matches"]


def plain_name(system: str) -> str:
    """`system`, which becomes the name of a file; `ValueError` if it is none."""
    if not system.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"system name {system!r} may hold letters, digits, - and _ only")
    return system
