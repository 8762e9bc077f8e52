"""Mazes in the paper's look, generated: N x N cells, black walls, white free cells, a green start and a red goal; the
edit fills the cells of the shortest path blue. Nothing is downloaded: the paper's own mazes are in-house and not
published apart from its training sets. Licence Apache-2.0. As many mazes as are asked for; mazes of equal walls share a
split, and of the smallest sizes many are equal (num_mazes=100000 repeats most of the 3 x 3 ones), so raise smallest for
a set without repetition. A tenth of all walls is kept for split=test and is in no training set of any seed. A test set
has exactly num_mazes mazes, all different, as many of each size; a published seed makes it the same for all.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from PIL import Image, ImageDraw

from data_prep.draw import BLUE
from data_prep.grids import Cell, neighbours
from data_prep.maze import FILL
from data_prep.sources.generated import Generated, Solved, shortest_walks
from data_prep.sources.source import BuildConfig
from etchr.checks import Count, OneOf, at_least
from etchr.families import TaskFamily
from etchr.sample import EditSample

MAX_TRIES = 500  # mazes grown for an item before it is refused
MAX_LOOPS = 0.1  # share of the walls that are opened again at most, so that a maze may have several ways
LINE = (150, 150, 150)  # the thin lines between cells
LEAST_CELL, MOST_SIZE = 8, 4096  # px

Ends = Annotated[str, OneOf("anywhere", "corners")]


@dataclass
class MazesConfig(BuildConfig):
    """Options of `python -m data_prep mazes`."""

    has_test_set: ClassVar[bool] = True

    num_mazes: Count = 100_000  # mazes of all splits together; of split=test alone
    smallest: Annotated[int, Ge(3)] = 3  # cells a side; sizes are drawn evenly from smallest to largest
    largest: int = 12  # cells a side
    size: Annotated[int, Le(MOST_SIZE)] = 512  # side of the picture in px
    unique: bool = True  # only mazes with exactly one shortest path
    ends: Ends = "anywhere"  # anywhere, or corners: start in the upper left, goal in the lower right
    shortest: Annotated[int, Ge(2)] = 2  # least length of the shortest path in moves
    longest: int | None = None  # greatest length of the shortest path in moves; null: no limit

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, {"largest": self.smallest, "size": LEAST_CELL * self.largest})
        if self.longest is not None and self.longest < self.shortest:
            raise ValueError(f"longest={self.longest} must be at least shortest={self.shortest}, or null")
        if not possible_sizes(self):
            raise ValueError(
                f"no maze of {self.smallest} to {self.largest} cells a side has a path of {self.shortest} to "
                f"{self.longest or 'any number of'} moves with ends={self.ends}; change the range or the sizes"
            )


def possible_sizes(config: MazesConfig) -> list[int]:
    """The sizes, in cells a side, that may hold paths of the wanted length.

    A shortest path never touches itself, and such paths have at most 2/3 N^2 moves (https://oeis.org/A331968); between
    opposite corners it has at least 2 (N - 1).
    """
    sizes = range(config.smallest, config.largest + 1)
    return [
        n
        for n in sizes
        if config.shortest <= 2 * n * n // 3
        and (config.ends == "anywhere" or config.longest is None or config.longest >= 2 * (n - 1))
    ]


class MazeSource(Generated):
    """Generated mazes."""

    name = "mazes"
    config: MazesConfig

    def __init__(self, config: MazesConfig) -> None:
        super().__init__(config, possible_sizes(config), config.num_mazes)

    def make(self, rng: random.Random, size: int) -> Solved:
        return make_maze(rng, size, self.config)

    def samples(self, index: int, rng: random.Random) -> Iterator[EditSample]:
        maze, size = self.solved(index), self.config.size
        yield EditSample(
            id=f"{self.name}-{index:07d}",
            family=TaskFamily.LOGIC,
            task="maze",
            image=draw_maze(maze.grid, size),
            question=question(len(maze.grid), maze.num_shortest == 1),
            answer=maze.answer,
            edit_image=draw_maze(maze.grid, size, maze.path[1:-1]),
            meta={"source": "generated mazes", "licence": "Apache-2.0"} | maze.meta(),
        )


def make_maze(rng: random.Random, size: int, config: MazesConfig) -> Solved:
    """A random maze of `size` cells a side with a path as `config` wants it; `ValueError` after MAX_TRIES.

    The length of the path is drawn evenly from those that the grown maze offers, or most paths would be middling.
    """
    for _ in range(MAX_TRIES):
        free = grow(rng, size)
        rows = ["".join("." if (r, c) in free else "#" for c in range(size)) for r in range(size)]
        corners = config.ends == "corners"
        walks = shortest_walks(rows, (0, 0) if corners else rng.choice(sorted(free)))
        goals: dict[int, list[Cell]] = {}
        for cell, length in walks.distance.items():
            fits = config.shortest <= length <= (config.longest or length)
            placed = cell == (size - 1, size - 1) or not corners
            if fits and placed and (walks.ways[cell] == 1 or not config.unique):
                goals.setdefault(length, []).append(cell)
        if goals:
            goal = rng.choice(goals[rng.choice(sorted(goals))])
            path = walks.path(goal)
            return Solved(_marked(_marked(rows, path[0], "S"), goal, "G"), path, walks.ways[goal])
    raise ValueError(
        f"no maze of {size}x{size} cells with a path of {config.shortest} to {config.longest or 'any number of'} moves "
        f"came up in {MAX_TRIES} tries; widen the range or change smallest and largest"
    )


def grow(rng: random.Random, size: int) -> set[Cell]:
    """The free cells of a random maze, all connected; the upper left one is among them.

    A tree of cells grows from there, now from its newest cell (long corridors), now from any (many short branches);
    then some walls are opened again, which closes loops.
    """
    board = ["." * size] * size
    newest, loops = rng.random(), rng.uniform(0, MAX_LOOPS)
    free, tips = {(0, 0)}, [(0, 0)]
    while tips:
        at = len(tips) - 1 if rng.random() < newest else rng.randrange(len(tips))
        around = [cell for cell in neighbours(board, tips[at]) if cell not in free]
        ahead = [cell for cell in around if sum(near in free for near in neighbours(board, cell)) == 1]
        if ahead:
            tips.append(rng.choice(ahead))
            free.add(tips[-1])
        else:
            tips.pop(at)
    walls = [(r, c) for r in range(size) for c in range(size) if (r, c) not in free]
    for cell in walls:
        if rng.random() < loops and any(near in free for near in neighbours(board, cell)):
            free.add(cell)
    return free


def _marked(grid: list[str], cell: Cell, mark: str) -> list[str]:
    r, c = cell
    return [*grid[:r], grid[r][:c] + mark + grid[r][c + 1 :], *grid[r + 1 :]]


def draw_maze(grid: list[str], size: int, blue: list[Cell] | None = None) -> Image.Image:
    """The maze as a `size` x `size` RGB picture, the `blue` cells filled.

    Where `size` does not divide evenly, cells differ by one pixel; the lines between them are all equally thin.
    """
    image = Image.new("RGB", (size, size), LINE)
    canvas, line = ImageDraw.Draw(image), max(1, size // 400)
    edges = [i * (size - line) // len(grid) for i in range(len(grid) + 1)]
    filled = set(blue or ())
    for r, row in enumerate(grid):
        for c, mark in enumerate(row):
            box = (edges[c] + line, edges[r] + line, edges[c + 1] - 1, edges[r + 1] - 1)  # the ends are included
            canvas.rectangle(box, BLUE if (r, c) in filled else FILL[mark])
    return image


def question(cells: int, unique: bool) -> str:
    """The question about a maze of `cells` cells a side."""
    return (
        f"The picture shows a maze of {cells}x{cells} cells: black cells are walls, white cells are free. A move goes "
        "from a cell to the next one: U is up, D is down, L is left, R is right. Which moves are "
        f"{'the' if unique else 'a'} shortest path from the green cell to the red cell? "
        "Answer with the letters in order, separated by commas, such as D,D,R."
    )
