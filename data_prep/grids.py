"""Walks on small grids of free cells, shared by the maze and the Frozen Lake.

A grid is a list of strings with `S` start, `G` goal, `.` free and `#` blocked; a cell is (row, column).
"""

import itertools
import random
from collections import deque

Cell = tuple[int, int]
STEPS = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}


def find(grid: list[str], mark: str) -> Cell:
    """The cell that holds `mark`."""
    return next((r, line.index(mark)) for r, line in enumerate(grid) if mark in line)


def neighbours(grid: list[str], cell: Cell) -> list[Cell]:
    """The free cells beside `cell`."""
    around = [(cell[0] + dr, cell[1] + dc) for dr, dc in STEPS.values()]
    return [(r, c) for r, c in around if 0 <= r < len(grid) and 0 <= c < len(grid[r]) and grid[r][c] != "#"]


def unique_shortest_path(grid: list[str]) -> list[Cell] | None:
    """The only shortest path from S to G, both included; None if there is none or more than one."""
    start, goal = find(grid, "S"), find(grid, "G")
    distance, ways, parent = {start: 0}, {start: 1}, {}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        for near in neighbours(grid, cell):
            if near not in distance:
                distance[near], ways[near], parent[near] = distance[cell] + 1, 0, cell
                queue.append(near)
            if distance[near] == distance[cell] + 1:
                ways[near] += ways[cell]
    if ways.get(goal, 0) != 1:
        return None
    path = [goal]
    while path[-1] != start:
        path.append(parent[path[-1]])
    return path[::-1]


def moves(path: list[Cell]) -> str:
    """A path as `D,R,R,...`."""
    names = {step: name for name, step in STEPS.items()}
    return ",".join(names[(b[0] - a[0], b[1] - a[1])] for a, b in itertools.pairwise(path))


def random_walk(rng: random.Random, size: int, start: Cell, length: int, grid: list[str] | None = None) -> list[Cell]:
    """A self-avoiding walk from `start` of at most `length` cells, over free cells where a `grid` is given."""
    grid = grid or ["." * size] * size
    walk = [start]
    while len(walk) < length:
        ways = [cell for cell in neighbours(grid, walk[-1]) if cell not in walk]
        if not ways:
            break
        walk.append(rng.choice(ways))
    return walk


def any_walk(rng: random.Random, grid: list[str], shortest: int, longest: int) -> list[Cell]:
    """A path for an arbitrary instruction: half of them follow free cells from the start, half ignore the walls."""
    size, length = len(grid), rng.randint(shortest, longest)
    if rng.random() < 0.5:
        return random_walk(rng, size, find(grid, "S"), length, grid)[1:] or [find(grid, "S")]
    return random_walk(rng, size, (rng.randrange(size), rng.randrange(size)), length)


def exact_walk(rng: random.Random, grid: list[str], length: int) -> list[Cell] | None:
    """A random walk from S of exactly `length` moves over free cells but G, each entered once, S not included.

    None if there is none: all are tried.
    """
    start = find(grid, "S")
    walk, untried = [start], [_shuffled_ways(rng, grid, [start])]
    while len(walk) <= length:
        if untried[-1]:
            walk.append(untried[-1].pop())
            untried.append(_shuffled_ways(rng, grid, walk))
        else:
            untried.pop()
            if walk.pop() == start:
                return None
    return walk[1:]


def _shuffled_ways(rng: random.Random, grid: list[str], walk: list[Cell]) -> list[Cell]:
    ways = [(r, c) for r, c in neighbours(grid, walk[-1]) if (r, c) not in walk and grid[r][c] != "G"]
    rng.shuffle(ways)
    return ways
