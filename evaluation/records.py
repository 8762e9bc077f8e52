"""Records of an evaluation: one JSON line per sample and system, written the moment a sample is done.

The run folder holds `run.json` (what decides the results), `records/<system>.jsonl`, `edits/<system>/*.png` and the
reports. Kill a run at any moment: lines are complete or dropped, and what is recorded is not computed again.
"""

import hashlib
from typing import Any

from PIL import Image

from etchr.images import encode_png
from etchr.run_folder import JsonLines, write_atomically
from etchr.run_folder import RunFolder as BaseRunFolder

Record = dict[str, Any]


class RunFolder(BaseRunFolder):
    """The folder of one evaluation; it may gain systems and tasks."""

    def claim(self, fingerprint: dict[str, Any], may_grow: tuple[str, ...] = ("systems", "data")) -> None:
        """`fingerprint` is what `factory.fingerprint` gives."""
        super().claim(fingerprint, may_grow)

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


class RecordFile(JsonLines):
    """Records keyed by `sample_id`; of several lines about one sample the last one counts."""

    def read(self) -> dict[str, Record]:
        """All complete records by sample id; a line torn by a kill is no record."""
        return {record["sample_id"]: record for record in self}


def _plain(system: str) -> str:
    if not system.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"system name {system!r} may hold letters, digits, - and _ only")
    return system
