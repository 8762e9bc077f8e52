"""Frozen Lake in gymnasium's look, generated: random maps of gymnasium's FrozenLake-v1 (is_slippery=False), drawn by
its own renderer; the edit draws the shortest path that avoids the holes over the picture. Nothing is downloaded:
gymnasium (MIT) brings the pictures of the tiles. The maps are Apache-2.0. As many as are asked for; equal maps share a
split. There are fewer than 128 maps of 3 x 3 tiles, so small sizes repeat. A tenth of all maps is kept for split=test
and is in no training set of any seed. A test set has exactly num_lakes maps, all different, as many of each size, for
which smallest must be 4; a published seed makes it the same for all.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Interval, Le
from PIL import Image, ImageDraw

from data_prep.draw import MAGENTA
from data_prep.frozen_lake import RENDERED_FROM, FrozenLake
from data_prep.grids import Cell, find
from data_prep.sources.generated import Generated, Solved, shortest_walks
from data_prep.sources.mazes import MOST_SIZE
from data_prep.sources.source import BuildConfig
from etchr.checks import Count, at_least
from etchr.families import TaskFamily
from etchr.sample import EditSample

MAX_TRIES = 500  # maps drawn for an item before it is refused
LEAST_FROZEN = 0.3  # gymnasium draws until a map has a path: at 0.2 and 8 x 8 tiles that takes some 20 s
MARKS = {"F": ".", "H": "#"}  # gymnasium's letters to those of grids.py; S and G are the same


@dataclass
class LakesConfig(BuildConfig):
    """Options of `python -m data_prep lakes`."""

    has_test_set: ClassVar[bool] = True

    num_lakes: Count = 20_000  # maps of all splits together; of split=test alone
    smallest: Annotated[int, Ge(3)] = 3  # tiles a side; sizes are drawn evenly from smallest to largest
    largest: Annotated[int, Le(8)] = 8  # tiles a side, 8 at most: the renderer makes tiles of more smaller
    size: Annotated[int, Interval(ge=RENDERED_FROM, le=MOST_SIZE)] = 512  # side of the picture in px
    frozen_share: float = 0.8  # probability that a tile is no hole; gymnasium's default
    unique: bool = False  # only maps with exactly one shortest path; they are rare unless frozen_share is about 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, {"largest": self.smallest})
        if not LEAST_FROZEN <= self.frozen_share <= 1:
            raise ValueError(
                f"frozen_share={self.frozen_share} must be from {LEAST_FROZEN} to 1; below, hardly a map has a path"
            )
        if self.unique and self.frozen_share == 1:
            raise ValueError("unique=true needs holes: set frozen_share below 1")


class LakeSource(Generated):
    """Generated maps."""

    name = "lakes"
    config: LakesConfig

    def __init__(self, config: LakesConfig) -> None:
        super().__init__(config, range(config.smallest, config.largest + 1), config.num_lakes)

    def identity(self) -> dict[str, Any]:
        return {"gymnasium": version("gymnasium")}  # it draws the maps and the pictures

    def make(self, rng: random.Random, size: int) -> Solved:
        return make_lake(rng, size, self.config)

    def samples(self, index: int, rng: random.Random) -> Iterator[EditSample]:
        lake = self.solved(index)
        image = FrozenLake().source({"grid": lake.grid}, {}, self.config.size)
        yield EditSample(
            id=f"{self.name}-{index:07d}",
            family=TaskFamily.LOGIC,
            task="frozen_lake",
            image=image,
            question=question(len(lake.grid)),
            answer=lake.answer,
            edit_image=with_path(image, lake.path, len(lake.grid)),
            meta={"source": "generated maps of gymnasium's FrozenLake-v1", "licence": "Apache-2.0"} | lake.meta(),
        )


def make_lake(rng: random.Random, size: int, config: LakesConfig) -> Solved:
    """A random map of `size` tiles a side, with one of its shortest safe paths; `ValueError` after MAX_TRIES."""
    from gymnasium.envs.toy_text.frozen_lake import generate_random_map

    for _ in range(MAX_TRIES):
        rows = generate_random_map(size, config.frozen_share, seed=rng.randrange(2**31))
        grid = ["".join(MARKS.get(mark, mark) for mark in row) for row in rows]
        goal = find(grid, "G")
        walks = shortest_walks(grid, find(grid, "S"))
        if walks.ways[goal] == 1 or not config.unique:
            return Solved(grid, walks.path(goal), walks.ways[goal])
    raise ValueError(
        f"no map of {size}x{size} tiles with one shortest path came up in {MAX_TRIES} tries; lower "
        f"frozen_share={config.frozen_share} or set unique=false"
    )


def with_path(image: Image.Image, path: list[Cell], tiles: int) -> Image.Image:
    """A copy of the picture of `tiles` x `tiles` tiles with an arrow along `path`.

    It reaches from the edge of the start's tile to that of the goal's, so that the elf and the flag stay visible.
    """
    marked = image.copy()
    canvas, tile = ImageDraw.Draw(marked), image.width / tiles
    centres = [((c + 0.5) * tile, (r + 0.5) * tile) for r, c in path]
    tail, tip = _between(centres[0], centres[1]), _between(centres[-2], centres[-1])
    neck = _between(centres[-2], tip)  # where the head begins
    canvas.line([tail, *centres[1:-1], neck], MAGENTA, round(tile / 8), joint="curve")
    dx, dy = 0.6 * (tip[0] - neck[0]), 0.6 * (tip[1] - neck[1])
    canvas.polygon([tip, (neck[0] - dy, neck[1] + dx), (neck[0] + dy, neck[1] - dx)], MAGENTA)
    return marked


def _between(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    return (first[0] + second[0]) / 2, (first[1] + second[1]) / 2


def question(tiles: int) -> str:
    """The question about a map of `tiles` tiles a side."""
    return (
        f"The picture shows a frozen lake of {tiles}x{tiles} tiles from above. The figure stands on the start in the "
        "upper left corner and has to reach the goal in the lower right corner without stepping into a hole. It does "
        "not slip. A move goes to the next tile: U is up, D is down, L is left, R is right. Which moves are a shortest "
        "path? Answer with the letters in order, separated by commas, such as D,D,R."
    )
