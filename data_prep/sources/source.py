"""What a public data source is to `build.py`: numbered items, each of which gives samples or is refused."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, ClassVar

from etchr.checks import BelowOne, Count, Natural, OneOf, check
from etchr.sample import EditSample

TEST_SHARE = 0.1  # of the keys of a source that has a test set; another share would make all test sets other ones

Split = Annotated[str, OneOf("train", "val", "test")]


@dataclass
class BuildConfig:
    """The options that every source has."""

    out: str = "outputs/data"  # folder; each source gets its own below it
    split: Split = "train"  # train or val, or test where there is a test set: by the hash of a key, whatever the seed
    val_share: BelowOne = 0.01  # of the pictures
    seed: int = 0  # of what is drawn at random
    num_items: Count | None = None  # the first ones of the source; null: all
    part_size: Count = 500  # items that go into one Parquet file
    processes: Natural = 0  # that work at the same time; 0: as many as there are CPUs
    shard: Natural = 0  # the part of the work that this machine does, from 0
    num_shards: Count = 1  # machines that share the work and the folder

    has_test_set: ClassVar[bool] = False  # whether split=test is there; other sources are data to train on

    def __post_init__(self) -> None:
        check(self)
        if self.split == "test" and not self.has_test_set:
            raise ValueError(
                "split=test is not there: this source's data are for training; "
                "mazes, lakes and jigsaws photos=FOLDER make test sets"
            )
        if self.split == "val" and self.val_share == 0:
            raise ValueError("val_share=0 leaves nothing for split=val; give it a share")
        if self.shard >= self.num_shards:
            raise ValueError(f"shard={self.shard} must be below num_shards={self.num_shards}; shards count from 0")


class Source(ABC):
    """One public data set, or one generator. Built anew in every process, so it holds an index and no pictures.

    With split=test its items are those of a fixed test set: all of them are good and in that split.
    """

    name: str  # of its folder
    free_options: ClassVar[tuple[str, ...]] = ("root",)  # places, which count by their content in `identity`
    test_share: float = 0  # of the keys, which are in split=test and in no other, whatever the options

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Open the index; `ValueError` says what is not there and where it is had. `config` is of the source's own."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of items."""

    @abstractmethod
    def key(self, index: int) -> str:
        """What the item's picture is known by: items of one key share a split."""

    @abstractmethod
    def samples(self, index: int, rng: random.Random) -> Iterable[EditSample]:
        """The samples of an item, a function of the item and `rng` alone; `ValueError` says why it is refused.

        Ids are unique and stable: by convention `<name>-<index, 7 digits>`, with `-<n>` behind it where an item gives
        several samples. Ids, paths and names of the source are labels and go into `meta`.
        """

    def identity(self) -> dict[str, Any]:
        """What tells this source from another one of the same options, such as digests of its index files."""
        return {}


def split_of(key: str, val_share: float, test_share: float = 0) -> str:
    """The split of a picture: a function of its key alone, so no picture is in two.

    What is in the test set does not depend on `val_share`, so it is in no other split of any build.
    """
    if _lot(f"test/{key}") < test_share:
        return "test"
    return "val" if _lot(key) < val_share else "train"


def _lot(key: str) -> float:
    return int(sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12], 16) / 16**12
