"""Maze: a grid of white free and black blocked cells; the edit fills the cells of the shortest path blue.

Green start in the upper left, red goal in the lower right, exactly one shortest path.
"""

import random
import string

from PIL import Image

from data_prep.draw import BLACK, BLUE, WHITE, Canvas
from data_prep.grids import any_walk, moves, unique_shortest_path
from data_prep.task import Ask, ProceduralTask, Scene, Target

GRID, CELL = 6, 8  # cells a side, units a cell; a black border of one cell goes round
LENGTHS = (10, 10, 10, 10, 10, 10, 12, 12, 12, 14)  # moves; drawn uniformly, or nearly all mazes would have the least
FILL = {"S": (30, 190, 60), "G": (230, 30, 30), ".": WHITE, "#": BLACK}


class Maze(ProceduralTask):
    name = "maze"

    def scene(self, rng: random.Random) -> Scene:
        wanted = rng.choice(LENGTHS)
        while True:
            cells = ["#" if rng.random() < 0.38 else "." for _ in range(GRID * GRID)]
            cells[0], cells[-1] = "S", "G"
            grid = ["".join(cells[i : i + GRID]) for i in range(0, GRID * GRID, GRID)]
            path = unique_shortest_path(grid)
            if path and len(path) == wanted + 1:
                return {"grid": grid}

    def target(self, scene: Scene, rng: random.Random) -> Target:
        path = unique_shortest_path(scene["grid"])
        assert path
        return {"cells": path[1:-1]}

    def any_target(self, scene: Scene, rng: random.Random) -> Target:
        return {"cells": any_walk(rng, scene["grid"], 3, 14)}

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
