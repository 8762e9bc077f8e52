"""Mixtures: the data sets that a training reads, how often each comes, and how much of a family is used at most."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from etchr.families import TaskFamily
from etchr.sample import find_files, read_parquet
from etchr.seeds import hash_seed

if TYPE_CHECKING:
    import datasets


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
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
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


def training_sets(data: Any) -> list[DataSet]:
    """The data sets that the options `data` name: those of its mixture, or `data.paths` as a single one."""
    return read_mixture(data.mixture) if data.mixture is not None else [DataSet(list(data.paths), data.split)]


def about_sets(sets: Sequence[DataSet], places: np.ndarray) -> list[dict[str, Any]]:
    """What the options of the data sets decide, as JSON; files count by content, and rows by their set."""
    rows = np.bincount(places, minlength=len(sets)).tolist()
    return [{**asdict(one), "paths": None, "rows": count} for one, count in zip(sets, rows, strict=True)]


def held_out_set(paths: Sequence[str], split: str, sets: Sequence[DataSet]) -> list[DataSet]:
    """The held-out data: `paths`, or what the training data's folders hold of `split`; `ValueError` if that is nothing.

    A training *file* is not held out, whatever the split is called.
    """
    folders = [path for one in sets for path in one.paths if Path(path).is_dir()]
    found = list(paths) or [path for path in folders if _holds(path, split)]
    if not found:
        raise ValueError(
            f"the folders of the training data hold no {split} files; name some with validation.paths=[...]"
        )
    return [DataSet(found, split)]


def _holds(folder: str, split: str) -> bool:
    try:
        return bool(find_files([folder], split))
    except ValueError:
        return False


@dataclass(frozen=True)
class Tables:
    """The rows of several data sets, one after the other."""

    files: list[Path]
    table: "datasets.Dataset"
    places: np.ndarray  # (R,) which data set a row belongs to


def open_sets(sets: Sequence[DataSet]) -> Tables:
    """Open the files of all data sets; no picture is read. `ValueError` for one without files, or that is no data."""
    import datasets

    files, tables, places = [], [], []
    for number, one in enumerate(sets):
        for file in find_files(one.paths, one.split):
            table = read_parquet(file).table
            files.append(file)
            tables.append(table)
            places.append(np.full(len(table), number))
    return Tables(files, datasets.concatenate_datasets(tables), np.concatenate(places))


def repeats(sets: Sequence[DataSet], places: np.ndarray, families: Sequence[str], seed: int) -> np.ndarray:
    """How often each row (R,) comes in an epoch: the weight of its data set, 0 for those over a cap.

    Which rows of a family are used depends on the seed, the data set's name and its rows of that family alone.
    """
    times = np.array([one.weight for one in sets], dtype=float)[places]
    family_of = np.asarray(families)
    for number, one in enumerate(sets):
        for family, cap in one.caps.items():
            rows = np.flatnonzero((places == number) & (family_of == family))
            drawn = np.random.default_rng(hash_seed(seed, "cap", one.name, family)).permutation(rows)
            times[drawn[cap:]] = 0
    return times
