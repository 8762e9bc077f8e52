"""Mixtures: the data sets that a training reads, how often each comes, and how much of a family is used at most."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from etchr.families import TaskFamily
from etchr.rows import parsed_yaml
from etchr.sample import find_files


@dataclass(frozen=True)
class DataSet:
    """One data set of a mixture."""

    paths: list[str]  # Parquet files or folders of them
    split: str = "train"  # of a folder, the files <split>*.parquet in it and one level below
    weight: float = 1.0  # how often a sample comes in an epoch, the fraction by lot
    caps: dict[str, int] = field(default_factory=dict)  # family: how many of its samples are used, drawn by the seed
    name: str = "data"

    def __post_init__(self) -> None:
        if not isinstance(self.paths, list) or not self.paths or not all(isinstance(path, str) for path in self.paths):
            raise ValueError(f"paths={self.paths!r} must be a list of Parquet files or folders")
        if not isinstance(self.split, str):
            raise ValueError(f"split={self.split!r} must be a name, such as train")
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float) or not 0 <= self.weight < 1000:
            raise ValueError(f"weight={self.weight!r} must be a number from 0 to below 1000")
        if not isinstance(self.caps, dict):
            raise ValueError(f"caps={self.caps!r} must be family: number")
        for family, cap in self.caps.items():
            TaskFamily.parse(family)
            if isinstance(cap, bool) or not isinstance(cap, int) or cap < 0:
                raise ValueError(f"caps.{family}={cap!r} must be a whole number from 0 up")


def read_mixture(path: str) -> list[DataSet]:
    """The data sets of a mixture's YAML, `name: {paths: [...], split, weight, caps}`; `ValueError` if it is none."""
    try:
        content = parsed_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read the mixture {path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"the mixture {path} must hold data sets, name: {{paths: [...]}}")
    known = ("paths", "split", "weight", "caps")
    sets = []
    for name, options in content.items():
        if not isinstance(options, dict) or (unknown := sorted(map(str, set(options) - set(known)))):
            wrong = f"has the unknown options {', '.join(unknown)}" if isinstance(options, dict) else "has no options"
            raise ValueError(f"data set {name!r} of the mixture {path} {wrong}; known: {', '.join(known)}")
        try:
            sets.append(DataSet(**{"paths": [], **options, "name": str(name)}))
        except ValueError as error:
            raise ValueError(f"data set {name!r} of the mixture {path}: {error}") from None
    return sets


def data_sets(data: Any, validation: Any) -> tuple[list[DataSet], list[DataSet]]:
    """The data sets of the options `data`, a mixture or `data.paths` as a single one, and what `validation` holds out.

    Held out are `validation.paths`, or what the training data's folders hold of that split; a training *file* is not,
    whatever the split is called. Without validation nothing is. Raises `ValueError` for training or held-out data that
    are not there.
    """
    sets = read_mixture(data.mixture) if data.mixture is not None else [DataSet(list(data.paths), data.split)]
    folders = [path for one in sets if find_files(one.paths, one.split) for path in one.paths if Path(path).is_dir()]
    if not validation.every:
        return sets, []
    split = validation.split
    found = list(validation.paths) or [path for path in folders if _holds(path, split)]
    if not found:
        raise ValueError(
            f"the folders of the training data hold no {split} files; name some with validation.paths=[...]"
        )
    return sets, [DataSet(found, split)]


def _holds(folder: str, split: str) -> bool:
    try:
        return bool(find_files([folder], split))
    except ValueError:
        return False
