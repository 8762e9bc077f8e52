"""What the understanding model M makes of the candidates: kept in a file, under a name that says what decided it.

There are two views of a sample: `raw` shows M the source, `edit` the ground-truth edit, by default with the source.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.filter_rl import FilterConfig
from etchr.families import TaskFamily
from etchr.jsonl import Journal, Place, Record
from etchr.mllm.answers import answer_type
from etchr.mllm.judge import grader_version, may_ask
from etchr.mllm.prompts import GRADE, MAX_GRADED, answer_prompt
from etchr.mllm.settings import model_fingerprint
from etchr.sample import EditSample

VIEWS = ("raw", "edit")


@dataclass(frozen=True)
class Candidate:
    """A sample that can be asked about; its pictures stay in the pool."""

    row: int  # in the pool
    id: str
    family: TaskFamily
    place: int  # in the order in which quotas are filled
    keys: dict[str, str]  # of each view the name of its verdict


@dataclass(frozen=True)
class ViewVerdict:
    """What M made of one view of a sample."""

    right: int  # decodings with the right answer
    answers: tuple[str | None, ...]  # of all decodings; None: there was none to read, which is wrong

    @property
    def share(self) -> float:
        return self.right / len(self.answers)


@dataclass(frozen=True)
class Lost:
    """Why there is no verdict: the picture is damaged, or the call failed, which the next run asks again."""

    why: str  # refused or failed
    reason: str


def asked_alike(config: FilterConfig) -> dict[str, Any]:
    """What decides the verdicts on all samples alike: M, its decodings and the grader."""
    return {
        "model": model_fingerprint(config.reasoner),
        "decoding": [config.num_decodings, config.temperature, config.max_tokens, config.seed],
        "grader": grader_version(),
    }


def verdict_keys(
    sample: EditSample, pictures: dict[str, bytes], alike: dict[str, Any], config: FilterConfig
) -> dict[str, str]:
    """Of each view a digest of all that decides its verdict; samples of one content share them.

    `pictures` are the encoded source (raw) and edit, `alike` is what `asked_alike` gives. The pixels of `sample` are
    not looked at.
    """
    digests = {view: hashlib.sha256(pictures[view]).hexdigest() for view in VIEWS}
    keys = {}
    for view, seen in digests.items():
        content = {
            "prompt": question_prompt(sample, view, config),
            "pictures": digests["raw"] + seen if with_source(view, config) else seen,
            "graded": [answer_type(sample), sample.answer, sample.choices, sample.meta.get("grid")],
            **alike,
        }
        if may_ask(sample, config.grade):
            content["graded_by"] = [config.grade, GRADE, MAX_GRADED]
        keys[view] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    return keys


def with_source(view: str, config: FilterConfig) -> bool:
    """Whether a view shows the source beside the edit."""
    return view == "edit" and config.view == "both"


def question_prompt(sample: EditSample, view: str, config: FilterConfig) -> str:
    """What M is asked about a view; an edit that is shown alone is not announced as one, as in the guidance reward."""
    return answer_prompt(sample.question, sample.choices, answer_type(sample), with_edit=with_source(view, config))


class Verdicts:
    """The verdicts in `folder`, by key; each is written the moment it is there, and the first of a key counts.

    Beside them, why there is none: samples whose pictures turned out to be damaged, and calls that failed.
    """

    def __init__(self, folder: Path) -> None:
        """`ValueError` that names the file if a line in it is no verdict; a torn last line was never written."""
        self._journal = Journal(folder, "verdicts", read=_read, supersedes=lambda _, old: _has_failed(old))

    def __contains__(self, key: str) -> bool:
        return isinstance(self._journal.values.get(key), ViewVerdict)

    def lost(self, key: str) -> Lost | None:
        """Why the verdict was not to be had; None if it is there, or nobody has asked."""
        what = self._journal.values.get(key)
        return what if isinstance(what, Lost) else None

    def pair(self, candidate: Candidate) -> tuple[ViewVerdict, ViewVerdict] | None:
        """The verdicts on source and edit; None unless both are there."""
        raw, edit = (self._journal.values.get(candidate.keys[view]) for view in VIEWS)
        return (raw, edit) if isinstance(raw, ViewVerdict) and isinstance(edit, ViewVerdict) else None

    def is_decided(self, candidate: Candidate) -> bool:
        """Whether there is nothing to ask about it any more."""
        edit = self.lost(candidate.keys["edit"])
        return (edit is not None and edit.why == "refused") or self.pair(candidate) is not None

    def put(self, key: str, sample_id: str, **what: Any) -> None:
        """Keep `right` and `answers` of a verdict, or why it was `refused` or `failed`."""
        self._journal.put({"key": key, "id": sample_id, **what})

    def close(self) -> None:
        self._journal.close()


def _has_failed(what: ViewVerdict | Lost) -> bool:
    return isinstance(what, Lost) and what.why == "failed"


def _read(record: Record, _: Place) -> ViewVerdict | Lost:
    if not isinstance(record["key"], str):
        raise ValueError("a key is a text")
    for why in ("refused", "failed"):
        if why in record:
            return Lost(why, str(record[why]))
    verdict = ViewVerdict(record["right"], tuple(record["answers"]))
    if type(verdict.right) is not int or not 0 <= verdict.right <= len(verdict.answers) or not verdict.answers:
        raise ValueError("right must count some of the answers")
    return verdict
