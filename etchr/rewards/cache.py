"""Scores on disk, so that a run that was killed asks for none of them twice."""

import hashlib
import threading
from pathlib import Path
from typing import Any

from PIL import Image

from etchr.rewards.score import Score
from etchr.run_folder import JsonLines


def score_key(sample_id: str, edit: Image.Image, seed: int) -> str:
    """The name of a score: a digest of the sample's id, the edit's exact pixels and the seed."""
    digest = hashlib.sha256(repr((sample_id, edit.mode, edit.size, seed)).encode())
    digest.update(edit.tobytes())
    return digest.hexdigest()[:32]


class RewardCache:
    """Append-only JSON lines, one file a process: each writes its own and, at its start, reads those of all.

    A folder belongs to a run with one set of reward options, which the keys do not name. Safe between threads.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        """`ValueError` that names the file if one in `folder` is damaged; a torn last line was never written."""
        self._own = JsonLines(folder / f"rewards_rank{rank}.jsonl")
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, Score]] = {}  # key -> iteration, score
        for path in sorted(folder.glob("rewards_rank*.jsonl")):
            for record in JsonLines(path):
                key, iteration, score = _read(record, path)
                self._known[key] = iteration, score

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Score | None:
        """The score called `key`, or None."""
        with self._lock:
            return self._known[key][1] if key in self._known else None

    def put(self, key: str, score: Score, iteration: int) -> None:
        """Keep a score of `iteration`; a missing one is not kept, so that it is asked for again."""
        if score.missing is not None:
            return
        with self._lock:
            self._own.append({"iteration": iteration, "key": key, **score.to_json()})
            self._known[key] = iteration, score

    def prune(self, iterations_from: int) -> None:
        """Forget the scores of iterations before `iterations_from`; the own file is written anew, whole or not."""
        with self._lock:
            self._known = {key: entry for key, entry in self._known.items() if entry[0] >= iterations_from}
            lines = list(self._own)
            kept = [line for line in lines if line["iteration"] >= iterations_from]
            if len(kept) < len(lines):
                self._own.replace(kept)

    def close(self) -> None:
        """Close the own file; the next `put` opens it again."""
        with self._lock:
            self._own.close()


def _read(record: Any, path: Path) -> tuple[str, int, Score]:
    try:
        key, iteration = record["key"], record["iteration"]
        if not isinstance(key, str) or type(iteration) is not int:
            raise ValueError("key must be a text and iteration a whole number")
        return key, iteration, Score.from_json(record)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds a line that is no score ({error}); remove that line or the file") from None
