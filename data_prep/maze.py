"""Maze: a grid of white free and black blocked cells; the edit fills the cells of the shortest path blue.

Green start in the upper left, red goal in the lower right, exactly one shortest path.
"""

import random
import string
from collections.abc import Iterable, Sequence

from PIL import Image

from data_prep.draw import BLACK, BLUE, WHITE, Canvas
from data_prep.grids import any_walk, exact_walk, moves, unique_shortest_path
from data_prep.task import Ask, ProceduralTask, Scene, Target

GRID, CELL = 6, 8  # cells a side, units a cell; a black border of one cell goes round
WALLS = 0.38  # probability that a cell is blocked
LENGTHS = (10, 10, 10, 10, 10, 10, 12, 12, 12, 14)  # moves; drawn uniformly, or nearly all mazes would have the least
FILL = {"S": (30, 190, 60), "G": (230, 30, 30), ".": WHITE, "#": BLACK}


def _board(cells: Iterable[int]) -> int:
    """A set of cells as the bits of a number, eight for each cell, so that `bytes` makes one of a list."""
    return int.from_bytes(bytes(cells), "little")


_EVERYWHERE = _board([1] * GRID * GRID)
_FROM_LEFT = _board(i % GRID > 0 for i in range(GRID * GRID))  # cells that a step to the right may end on
_FROM_RIGHT = _board(i % GRID < GRID - 1 for i in range(GRID * GRID))
_START, _GOAL = 1, 1 << 8 * (GRID * GRID - 1)


def only_way(walls: Sequence[bool]) -> int:
    """The moves of the only shortest path between the corners of a maze, cell by cell; 0 if there is none or another.

    As `unique_shortest_path` would find, with all cells of a distance at once.
    """
    free = _EVERYWHERE ^ _board(walls)
    rings, seen = [_START], _START  # the cells at each distance
    while not rings[-1] & _GOAL:
        ring = _beside(rings[-1]) & free & ~seen
        if not ring:
            return 0
        seen |= ring
        rings.append(ring)
    back = _GOAL
    for ring in rings[-2::-1]:
        back = _beside(back) & ring
        if back & (back - 1):  # two cells, so two paths
            return 0
    return len(rings) - 1


def _beside(cells: int) -> int:
    """The cells one move from some of `cells`; what falls off the lower edge is no cell of any maze."""
    return cells << 8 & _FROM_LEFT | cells >> 8 & _FROM_RIGHT | cells << 8 * GRID | cells >> 8 * GRID


class Maze(ProceduralTask):
    name = "maze"
    shallow = 10
    longest_path = 24  # of a random scene's walks; one scene in 130 has one, and longer ones hardly come up

    def scene(self, rng: random.Random) -> Scene:
        wanted, draw = rng.choice(LENGTHS), rng.random
        while True:  # some 200 times, which is what the task takes
            walls = [draw() < WALLS for _ in range(GRID * GRID)]
            walls[0] = walls[-1] = False
            if only_way(walls) == wanted:
                marks = ["#" if wall else "." for wall in walls]
                marks[0], marks[-1] = "S", "G"
                return {"grid": ["".join(marks[i : i + GRID]) for i in range(0, GRID * GRID, GRID)]}

    def target(self, scene: Scene, rng: random.Random) -> Target:
        path = unique_shortest_path(scene["grid"])
        assert path
        return {"cells": path[1:-1]}

    def any_target(self, scene: Scene, rng: random.Random) -> Target:
        return {"cells": any_walk(rng, scene["grid"], 6, 14)}

    def path_target(self, scene: Scene, length: int, rng: random.Random) -> Target | None:
        cells = exact_walk(rng, scene["grid"], length)
        return {"cells": cells} if cells else None

    def depth(self, scene: Scene, target: Target) -> int:
        return len(target["cells"]) + 1

    def source(self, scene: Scene, target: Target, size: int) -> Image.Image:
        canvas = Canvas(size, BLACK)
        for r, line in enumerate(scene["grid"]):
            for c, mark in enumerate(line):
                canvas.rect((c + 1) * CELL, (r + 1) * CELL, CELL, CELL, FILL[mark])
        return canvas.image

    def edit(self, scene: Scene, target: Target, size: int) -> Image.Image:
        canvas = Canvas(size, self.source(scene, target, size))
        for r, c in target["cells"]:
            canvas.rect((c + 1) * CELL, (r + 1) * CELL, CELL, CELL, BLUE)
        return canvas.image

    def instruction(self, scene: Scene, target: Target) -> str:
        return "Fill blue: " + " ".join(f"{string.ascii_lowercase[c]}{r + 1}" for r, c in target["cells"])

    def ask(self, scene: Scene, target: Target, rng: random.Random) -> Ask:
        path = unique_shortest_path(scene["grid"])
        assert path
        return Ask(
            f"Which moves lead from green to red in the {GRID}x{GRID} maze?",
            moves(path),
            "moves",
            meta={"grid": scene["grid"], "path_length": len(path) - 1},
        )
