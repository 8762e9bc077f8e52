"""Which samples a step trains on, and which process takes which: pure functions of seed and step.

A global batch holds pairs of one size wherever that is possible, so all processes have equal work. One process and many
see the same global batches; a run that is killed and started again sees the rest of them.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from etchr.seeds import hash_seed

T = TypeVar("T")
Sizes = Sequence[Hashable] | Mapping[int, Hashable]  # of rows


@dataclass(frozen=True)
class Plan:
    """The order of the training samples. `buckets` (R,) numbers each row's size, `costs` (R,) its pixels."""

    buckets: np.ndarray
    costs: np.ndarray
    repeats: np.ndarray  # (R,) how often a row comes in an epoch; the fraction by lot
    global_batch_size: int
    seed: int
    bucketing: bool = True  # global batches of one size wherever that is possible
    wrap: bool = False  # fill the last global batch with the epoch's first rows; else what is left over is left out
    _last: list[Any] = field(default_factory=lambda: [None, None], init=False, repr=False)  # an epoch that is known

    @property
    def batches_per_epoch(self) -> int:
        """Global batches in one pass. Without `wrap` they are full ones, and other samples are left out each time."""
        return self._full(self._rows_per_epoch()) // self.global_batch_size

    def _full(self, count: int) -> int:
        """How many of `count` rows there are in full batches, with those that fill up the last one."""
        missing = -count % self.global_batch_size
        return count + missing if self.wrap or not missing else count + missing - self.global_batch_size

    def _rows_per_epoch(self) -> int:
        whole = np.floor(self.repeats)
        return int(whole.sum() + sum(count for count, _ in self._fractions()))

    def _fractions(self) -> list[tuple[int, np.ndarray]]:
        """Per distinct fraction: how many of the rows with that fraction come once more, and which rows those are."""
        rest = np.round(self.repeats - np.floor(self.repeats), 6)
        return [
            (round(part * (rest == part).sum()), np.flatnonzero(rest == part)) for part in np.unique(rest[rest > 0])
        ]

    def batch(self, number: int) -> np.ndarray:
        """The rows (G,) of a global batch, counted from the start of the training."""
        epoch, index = divmod(number, self.batches_per_epoch)
        if self._last[0] != epoch:
            self._last[:] = epoch, self.epoch(epoch)
        return self._last[1][index]

    def epoch(self, epoch: int) -> np.ndarray:
        """The global batches (batches_per_epoch, G) of one pass over the data, in order."""
        rng = np.random.default_rng(hash_seed(self.seed, -1, epoch))
        rows = np.repeat(np.arange(len(self.repeats)), np.floor(self.repeats).astype(int))
        extra = [rng.choice(chosen, count, replace=False) for count, chosen in self._fractions()]
        rows = rng.permutation(np.concatenate([rows, *extra]))
        size = self.global_batch_size
        if not self.bucketing:
            return np.resize(rows, self._full(len(rows))).reshape(-1, size)
        full: list[np.ndarray] = []
        left: list[np.ndarray] = []
        for bucket in np.unique(self.buckets[rows]):
            same = rows[self.buckets[rows] == bucket]
            whole = len(same) // size * size
            full += list(same[:whole].reshape(-1, size))
            left.append(same[whole:])
        mixed = rng.permutation(np.concatenate(left))
        mixed = np.concatenate([mixed, np.resize(rows, self._full(len(mixed)))])[: self._full(len(mixed))]
        mixed = mixed[np.lexsort((self.buckets[mixed], self.costs[mixed]))]  # sizes that are alike go together
        batches = np.concatenate([np.reshape(full, (-1, size)).astype(int), mixed.reshape(-1, size)])
        return rng.permutation(batches)


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in order, `size` at a time."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def of_one_size(rows: Sequence[int], sizes: Sizes) -> list[list[int]]:
    """The rows apart by their `sizes`, which all rows have, in the order in which each size comes first."""
    groups: dict[Hashable, list[int]] = {}
    for row in rows:
        groups.setdefault(sizes[row], []).append(row)
    return list(groups.values())


def chunks_of_one_size(rows: Sequence[int], sizes: Sizes, count: int) -> list[Sequence[int]]:
    """The rows in groups of one size, `count` at most."""
    return [chunk for same in of_one_size(rows, sizes) for chunk in chunks(same, count)]


def in_step(items: Sequence[T], rank: int, num_processes: int) -> Iterator[tuple[T, bool]]:
    """This process's items, and whether each counts. Every process gets equally many, as sharded models need."""
    for start in range(0, len(items), num_processes):
        number = start + rank
        yield items[min(number, len(items) - 1)], number < len(items)


def share(buckets: Sequence[int], costs: Sequence[int], num_processes: int, batch_size: int) -> list[list[list[int]]]:
    """Micro-batches of every process: positions in the global batch, of one size each, `batch_size` at most.

    Processes get equally many pairs and nearly equal costs. Each gets equally many micro-batches, an empty one where
    its pairs need fewer: processes that hold slices of one model must do equally many forwards.
    """
    order = sorted(range(len(costs)), key=lambda position: (-costs[position], buckets[position], position))
    shares: list[list[int]] = [[] for _ in range(num_processes)]
    for turn in range(0, len(order), num_processes):
        least_first = sorted(range(num_processes), key=lambda process: _cost(shares[process], costs))
        for process, position in zip(least_first, order[turn : turn + num_processes], strict=False):
            shares[process].append(position)
    split = [_micro_batches(mine, buckets, batch_size) for mine in shares]
    most = max(map(len, split))
    return [mine + [[]] * (most - len(mine)) for mine in split]


def _cost(positions: list[int], costs: Sequence[int]) -> int:
    return sum(costs[position] for position in positions)


def _micro_batches(positions: list[int], buckets: Sequence[int], batch_size: int) -> list[list[int]]:
    return [list(chunk) for same in of_one_size(positions, buckets) for chunk in chunks(sorted(same), batch_size)]
