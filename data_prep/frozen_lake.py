"""Frozen Lake: maps of gymnasium's own environment; the edit marks the cells of the shortest safe path.

From 256 px up the picture is the one that gymnasium renders; below that the same map is drawn compactly, because an
elf of 16 px cannot be told from a gift. Only maps with exactly one shortest path are used.
"""

import itertools
import os
import random
from functools import lru_cache

from PIL import Image

from data_prep.draw import MAGENTA, Canvas
from data_prep.grids import any_walk, exact_walk, moves, unique_shortest_path
from data_prep.task import Ask, ProceduralTask, Scene, Target

GRID = 4
FREE_SHARE = 0.5  # probability that gymnasium leaves a cell frozen; its default .8 has nearly no unique paths
ICE, HOLE, SHORE = (205, 232, 245), (30, 70, 140), (160, 200, 225)
START, GIFT = (40, 150, 60), (245, 150, 30)
RENDERED_FROM = 256  # px


class FrozenLake(ProceduralTask):
    name = "frozen_lake"
    shallow = 2
    longest_path = 11  # moves; ten of the 1,454 maps with one shortest path have such a walk, and none a longer one

    def scene(self, rng: random.Random) -> Scene:
        from gymnasium.envs.toy_text.frozen_lake import generate_random_map

        while True:
            rows = generate_random_map(GRID, FREE_SHARE, seed=rng.randrange(2**31))
            grid = ["".join({"F": ".", "H": "#"}.get(mark, mark) for mark in row) for row in rows]
            if unique_shortest_path(grid):
                return {"grid": grid}

    def target(self, scene: Scene, rng: random.Random) -> Target:
        path = unique_shortest_path(scene["grid"])
        assert path
        return {"cells": path[1:-1]}

    def any_target(self, scene: Scene, rng: random.Random) -> Target:
        return {"cells": any_walk(rng, scene["grid"], 2, 8)}

    def path_target(self, scene: Scene, length: int, rng: random.Random) -> Target | None:
        cells = exact_walk(rng, scene["grid"], length)
        return {"cells": cells} if cells else None

    def depth(self, scene: Scene, target: Target) -> int:
        path = [(0, 0), *target["cells"], (GRID - 1, GRID - 1)]  # nearly all have six moves: its bends tell them apart
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(path)]
        return sum(a != b for a, b in itertools.pairwise(steps))

    def source(self, scene: Scene, target: Target, size: int) -> Image.Image:
        if size >= RENDERED_FROM:
            return _gymnasium_picture(tuple(scene["grid"])).resize((size, size), Image.Resampling.LANCZOS)
        canvas, cell = Canvas(size, SHORE), 64 / GRID
        for r, line in enumerate(scene["grid"]):
            for c, mark in enumerate(line):
                x, y = c * cell, r * cell
                canvas.rect(x + 1, y + 1, cell - 2, cell - 2, HOLE if mark == "#" else ICE)
                if mark == "S":
                    canvas.polygon([(x + 8, y + 2), (x + 13, y + 13), (x + 3, y + 13)], START)
                elif mark == "G":
                    canvas.rect(x + 4, y + 4, 8, 8, GIFT)
        return canvas.image

    def edit(self, scene: Scene, target: Target, size: int) -> Image.Image:
        canvas, cell = Canvas(size, self.source(scene, target, size)), 64 / GRID
        for r, c in target["cells"]:
            canvas.disc((c + 0.5) * cell, (r + 0.5) * cell, 4, MAGENTA)
        return canvas.image

    def instruction(self, scene: Scene, target: Target) -> str:
        return "Mark pink: " + " ".join(f"{'ABCD'[c]}{r + 1}" for r, c in target["cells"])

    def ask(self, scene: Scene, target: Target, rng: random.Random) -> Ask:
        path = unique_shortest_path(scene["grid"])
        assert path
        return Ask(
            f"Which moves cross the {GRID}x{GRID} frozen lake to the gift?",
            moves(path),
            "moves",
            meta={"grid": scene["grid"], "path_length": len(path) - 1},
        )


@lru_cache(maxsize=64)
def _gymnasium_picture(grid: tuple[str, ...]) -> Image.Image:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    import gymnasium

    rows = [line.replace(".", "F").replace("#", "H") for line in grid]
    environment = gymnasium.make("FrozenLake-v1", desc=rows, render_mode="rgb_array", is_slippery=False)
    try:
        environment.reset(seed=0)
        return Image.fromarray(environment.render())
    finally:
        environment.close()
