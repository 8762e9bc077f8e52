"""The YAML file of claims: what stands in it is checked here, before any record is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etchr.families import TASKS
from evaluation.spec import read_spec, with_keys

FILE_KEYS = ("title", "runs", "tasks", "claims")
CLAIM_KEYS = ("claim", "paper", "each_task", "compare")
COMPARE_KEYS = ("label", "more", "less", "by_depth", "tasks")


@dataclass(frozen=True)
class Comparison:
    """Two groups of systems, the first of which should be better; or one, on its shallow and its deep samples."""

    label: str
    more: tuple[str, ...]  # systems; several are seeds of one method
    less: tuple[str, ...]  # none where shallow and deep samples are compared
    tasks: tuple[str, ...]

    @property
    def by_depth(self) -> bool:
        return not self.less


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and what shows it."""

    text: str
    paper: str  # where the paper makes it
    each_task: bool  # whether it must hold in every task, not in their mean alone
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Claims:
    """A YAML file of claims."""

    title: str
    runs: tuple[str, ...]  # folders in which the systems are looked for
    tasks: tuple[str, ...]
    claims: tuple[Claim, ...]


def read_claims(path: Path) -> Claims:
    """The claims in a YAML file; `ValueError` in one sentence for what does not fit."""
    content = read_spec(path, "claims", "configs/claims", FILE_KEYS)
    runs, tasks = _names(content, "runs", f"{path}"), _names(content, "tasks", f"{path}") or tuple(TASKS)
    claims = content.get("claims")
    if not runs or not isinstance(claims, list) or not claims:
        raise ValueError(f"{path} needs runs: a list of run folders, and claims: a list of {_shape(CLAIM_KEYS)}")
    found = tuple(_claim(claim, tasks, f"{path}, claim {place}") for place, claim in enumerate(claims, 1))
    return Claims(str(content.get("title", path.stem)), runs, tasks, found)


def _claim(value: Any, tasks: tuple[str, ...], where: str) -> Claim:
    claim = with_keys(value, CLAIM_KEYS, where)
    compare, each_task = claim.get("compare"), claim.get("each_task", False)
    if not isinstance(claim.get("claim"), str) or not isinstance(compare, list) or not compare:
        raise ValueError(f"{where} needs claim: a sentence, and compare: a list of {_shape(COMPARE_KEYS)}")
    if not isinstance(each_task, bool):
        raise ValueError(f"{where}: each_task must be true or false, got {each_task!r}")
    comparisons = tuple(_comparison(each, tasks, f"{where}, {place}") for place, each in enumerate(compare, 1))
    return Claim(claim["claim"], str(claim.get("paper", "")), each_task, comparisons)


def _comparison(value: Any, tasks: tuple[str, ...], where: str) -> Comparison:
    entry = with_keys(value, COMPARE_KEYS, where)
    more, less, deep = (_names(entry, key, where) for key in ("more", "less", "by_depth"))
    if not isinstance(entry.get("label"), str) or bool(more) != bool(less) or bool(more) == bool(deep):
        raise ValueError(f"{where} needs a label, and either more and less, or by_depth")
    if less and len(more) != len(less) and 1 not in (len(more), len(less)):
        raise ValueError(f"{where}: more has {len(more)} seeds and less has {len(less)}; give equal numbers, or one")
    return Comparison(entry["label"], more or deep, less, _names(entry, "tasks", where) or tasks)


def _names(entry: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    """A name, or a list of names, as a tuple; none where the key is not there."""
    value = entry.get(key, [])
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}: {key} must be a name or a list of names, got {value!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: {key} has a name twice: {', '.join(names)}")
    return tuple(names)


def _shape(keys: Sequence[str]) -> str:
    return f"{{{', '.join(keys)}}}"
