"""What mazes and lakes share: grids that are made up, their shortest walks, and fixed test sets of them."""

import itertools
import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.grids import Cell, moves, neighbours
from data_prep.sources.source import TEST_SHARE, BuildConfig, Source, split_of
from etchr.seeds import hash_seed

MAX_MISSES = 3_000  # grids in a row that are not new to a test set, after which a size is held to have no more
FAILURE = 300  # misses that one stands for which did not even come up in its many tries


@dataclass(frozen=True)
class Walks:
    """The shortest walks from one cell of a grid to every cell that can be reached."""

    distance: dict[Cell, int]  # moves
    ways: dict[Cell, int]  # shortest walks, counted exactly
    before: dict[Cell, list[Cell]]  # the cells that may come before on one

    def path(self, goal: Cell) -> list[Cell]:
        """One shortest walk to `goal`, both ends included; the same for equal grids."""
        path = [goal]
        while before := self.before[path[-1]]:
            path.append(before[0])
        return path[::-1]


def shortest_walks(grid: list[str], start: Cell) -> Walks:
    """The shortest walks from `start` over the cells of `grid` that are not `#`, counted from near to far.

    `grids.unique_shortest_path` answers for one goal; a maze is grown first and its goal chosen by the length.
    """
    walks = Walks({start: 0}, {start: 1}, {start: []})
    for cell in (found := [start]):  # which grows meanwhile
        for near in neighbours(grid, cell):
            if near not in walks.distance:
                walks.distance[near] = walks.distance[cell] + 1
                found.append(near)
        if cell != start:
            before = [near for near in neighbours(grid, cell) if walks.distance[near] == walks.distance[cell] - 1]
            walks.before[cell], walks.ways[cell] = before, sum(walks.ways[near] for near in before)
    return walks


@dataclass(frozen=True)
class Solved:
    """A grid as in `grids.py` with one shortest path."""

    grid: list[str]
    path: list[Cell]  # from S to G, both included
    num_shortest: int  # shortest paths that there are

    @property
    def answer(self) -> str:
        return moves(self.path)

    def meta(self) -> dict[str, Any]:
        """What the samples of mazes and lakes have in common; cells are [row, column]."""
        return {
            "answer_type": "moves",
            "grid": self.grid,
            "cells_a_side": len(self.grid),
            "start": list(self.path[0]),
            "goal": list(self.path[-1]),
            "path": [list(cell) for cell in self.path],
            "path_length": len(self.path) - 1,  # moves
            "num_shortest_paths": self.num_shortest,
        }


class Generated(Source):
    """Grids that are made up; item `i` is a function of the seed, the options and `i`.

    A test set holds as many grids of each size, which take turns, and no grid twice.
    """

    test_share = TEST_SHARE

    def __init__(self, config: BuildConfig, sizes: Sequence[int], count: int) -> None:
        self.config, self._sizes, self._count = config, sizes, count
        self._newest: tuple[int, Solved | str] | None = None  # an item and its grid, or why there is none
        self._tests: dict[int, list[Solved]] = {size: [] for size in sizes}  # of a test set, as far as they are drawn
        self._draws = {size: self._draw_tests(size) for size in sizes}

    @abstractmethod
    def make(self, rng: random.Random, size: int) -> Solved:
        """A grid of `size` cells a side; `ValueError` if none comes up."""

    def __len__(self) -> int:
        """The number of items. Those of a test set are drawn now, so that one that cannot be is refused before work."""
        if self.config.split == "test":
            for index in range(min(self._count, self.config.num_items or self._count)):
                self._test(index)
        return self._count

    def key(self, index: int) -> str:
        """The grid without its ends, so that one with other ends is in the same split."""
        return _walls(self.solved(index))

    def solved(self, index: int) -> Solved:
        """The grid of an item. The newest is kept: the key, the samples and a note of a refusal ask for the same."""
        if self._newest is None or self._newest[0] != index:
            try:
                found: Solved | str = self._test(index) if self.config.split == "test" else self._any(index)
            except ValueError as error:
                found = str(error)
            self._newest = index, found
        if isinstance(found := self._newest[1], str):
            raise ValueError(found)
        return found

    def _any(self, index: int) -> Solved:
        rng = random.Random(hash_seed(self.name, self.config.seed, index))
        return self.make(rng, rng.choice(self._sizes))

    def _test(self, index: int) -> Solved:
        rank, turn = divmod(index, len(self._sizes))
        drawn = self._tests[size := self._sizes[turn]]
        while len(drawn) <= rank:
            grid = next(self._draws[size], None)
            if grid is None:
                raise ValueError(
                    f"split=test: only {len(drawn)} different {self.name} of {size}x{size} came up; with "
                    f"{self._count} in all, the sizes from {self._sizes[0]} to {self._sizes[-1]} need "
                    f"{-(-self._count // len(self._sizes))} each: ask for fewer, or raise smallest"
                )
            drawn.append(grid)
        return drawn[rank]

    def _draw_tests(self, size: int) -> Iterator[Solved]:
        """Different grids of one size in split=test, drawn one after the other until no more come up."""
        seen: set[str] = set()
        misses = 0
        for number in itertools.count():
            if misses >= MAX_MISSES:
                return
            try:
                grid = self.make(random.Random(hash_seed(self.name, "test", self.config.seed, size, number)), size)
            except ValueError:
                misses += FAILURE
                continue
            whole = "/".join(grid.grid)
            if whole in seen or split_of(_walls(grid), 0, self.test_share) != "test":
                misses += 1
                continue
            seen.add(whole)
            misses = 0
            yield grid


def _walls(grid: Solved) -> str:
    return "/".join(grid.grid).replace("S", ".").replace("G", ".")
