"""Scores on disk, so that a run that was killed asks for none of them twice."""

import hashlib
import threading
from pathlib import Path

from PIL import Image

from etchr.jsonl import Journal, Place, Record
from etchr.rewards.score import Score


def score_key(sample_id: str, edit: Image.Image, seed: int) -> str:
    """The name of a score: a digest of the sample's id, the edit's exact pixels and the seed."""
    digest = hashlib.sha256(repr((sample_id, edit.mode, edit.size, seed)).encode())
    digest.update(edit.tobytes())
    return digest.hexdigest()[:32]


class RewardCache:
    """A journal of scores. Its folder belongs to a run with one set of reward options. Safe between threads."""

    def __init__(self, folder: Path, rank: int) -> None:
        """`ValueError` that names the file if one in `folder` is damaged; a torn last line was never written."""
        self._lock = threading.Lock()
        self._journal = Journal(folder, "rewards", rank, read=_read)

    def __len__(self) -> int:
        return len(self._journal.values)

    def get(self, key: str) -> Score | None:
        """The score called `key`, or None."""
        with self._lock:
            return self._journal.values.get(key, (0, None))[1]

    def put(self, key: str, score: Score, iteration: int) -> None:
        """Keep a score of `iteration`; a missing one is not kept, so that it is asked for again."""
        if score.missing is not None:
            return
        with self._lock:
            self._journal.put({"iteration": iteration, "key": key, **score.to_json()})

    def prune(self, iterations_from: int) -> None:
        """Forget the scores of iterations before `iterations_from`; the own file is written anew, whole or not."""
        journal = self._journal
        with self._lock:
            journal.values = {key: entry for key, entry in journal.values.items() if entry[0] >= iterations_from}
            lines = list(journal.own)
            kept = [line for line in lines if line["iteration"] >= iterations_from]
            if len(kept) < len(lines):
                journal.own.replace(kept)

    def close(self) -> None:
        """Close the own file; the next `put` opens it again."""
        with self._lock:
            self._journal.close()


def _read(record: Record, _: Place) -> tuple[int, Score]:
    """Iteration and score."""
    if not isinstance(record["key"], str) or type(record["iteration"]) is not int:
        raise ValueError("key must be a text and iteration a whole number")
    return record["iteration"], Score.from_json(record)
