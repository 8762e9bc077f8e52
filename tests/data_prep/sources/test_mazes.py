"""Mazes: answers, uniqueness and pictures against computations of their own."""

import hashlib
import json
import random
from contextlib import nullcontext

import numpy as np
import pytest

from data_prep.draw import BLUE
from data_prep.grids import unique_shortest_path
from data_prep.sources import mazes
from data_prep.sources.build import build, split_of
from data_prep.sources.generated import shortest_walks
from data_prep.sources.mazes import MazesConfig, MazeSource, draw_maze
from etchr.families import TaskFamily
from etchr.mllm.answers import ground_truth, is_correct
from etchr.sample import read_parquet

STEPS = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
WHITE, BLACK, GREEN, RED = (255, 255, 255), (0, 0, 0), (30, 190, 60), (230, 30, 30)


def made(count=40, first=0, **options):
    source = MazeSource(MazesConfig(**{"size": 128, **options}))
    return [sample for i in range(first, first + count) for sample in source.samples(i, random.Random(0))]


def counted(grid):
    """Length of the shortest walks from S to G and their number, by powers of the adjacency matrix."""
    cells = [(r, c) for r, row in enumerate(grid) for c, mark in enumerate(row) if mark != "#"]
    near = np.array([[abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for b in cells] for a in cells], dtype=object) * 1
    start, goal = (next(i for i, (r, c) in enumerate(cells) if grid[r][c] == mark) for mark in "SG")
    walks, length = np.array([int(i == start) for i in range(len(cells))], dtype=object), 0
    while not walks[goal]:
        walks, length = walks @ near, length + 1
        assert length < len(cells)
    return length, walks[goal]


def walked(grid, answer):
    """The cells that the moves lead over, one by one; fails on a wall and outside."""
    r, c = next((r, row.index("S")) for r, row in enumerate(grid) if "S" in row)
    cells = [(r, c)]
    for move in answer.split(","):
        r, c = r + STEPS[move][0], c + STEPS[move][1]
        assert 0 <= r < len(grid)
        assert 0 <= c < len(grid)
        assert grid[r][c] != "#"
        cells.append((r, c))
    return cells


def all_ways(grid):
    """The lengths of all paths from S to G that enter no cell twice, by brute force."""
    found = []

    def go(r, c, seen):
        if grid[r][c] == "G":
            found.append(len(seen) - 1)
            return
        for y, x in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
            if 0 <= y < len(grid) and 0 <= x < len(grid) and grid[y][x] != "#" and (y, x) not in seen:
                go(y, x, seen | {(y, x)})

    start = next((r, row.index("S")) for r, row in enumerate(grid) if "S" in row)
    go(*start, {start})
    return found


@pytest.mark.parametrize("options", [{}, {"unique": False}, {"ends": "corners"}])
def test_every_answer_walks_to_the_goal_by_a_shortest_path(options):
    ways = []
    for sample in made(**options):
        grid = sample.meta["grid"]
        cells = walked(grid, sample.answer)
        assert grid[cells[-1][0]][cells[-1][1]] == "G"
        assert [list(cell) for cell in cells] == sample.meta["path"]
        assert (len(cells) - 1, sample.meta["num_shortest_paths"]) == counted(grid)
        assert sample.meta["path_length"] == len(cells) - 1 == len(sample.answer.split(","))
        assert ground_truth(sample) == sample.answer
        assert not is_correct(sample.answer + ",U,D,U", sample)
        ways.append(sample.meta["num_shortest_paths"])
    assert (max(ways) > 1) == (options == {"unique": False})


def test_a_unique_path_is_the_only_one_by_brute_force():
    for sample in made(40, smallest=3, largest=4):
        ways = all_ways(sample.meta["grid"])
        assert min(ways) == sample.meta["path_length"]
        assert ways.count(min(ways)) == 1


def test_ways_are_counted_exactly_on_an_open_field():
    walks = shortest_walks(["." * 12] * 12, (0, 0))
    assert walks.ways[11, 11] == 705_432  # 22 choose 11
    assert walks.distance[11, 11] == 22
    assert shortest_walks(["S#", "#G"], (0, 0)).distance == {(0, 0): 0}


def test_walks_agree_with_the_only_path_that_the_grids_of_the_quickstart_find():
    for sample in made(20, unique=False, smallest=4, largest=6):
        grid = sample.meta["grid"]
        only = unique_shortest_path(grid)
        assert (only is not None) == (sample.meta["num_shortest_paths"] == 1)
        if only:
            assert [list(cell) for cell in only] == sample.meta["path"]


@pytest.mark.parametrize("comes_up", [True, False])
def test_an_item_is_made_once_whether_it_comes_up_or_not(monkeypatch, comes_up):
    calls, real = [], mazes.make_maze
    monkeypatch.setattr(mazes, "make_maze", lambda *given: calls.append(1) or real(*given))
    monkeypatch.setattr(mazes, "MAX_TRIES", 20 * comes_up)
    source = MazeSource(MazesConfig(size=64, smallest=5, largest=5))
    for index in (3, 4, 3):
        for ask in (source.key, lambda i: next(source.samples(i, random.Random(0))), source.key):
            with nullcontext() if comes_up else pytest.raises(ValueError, match="no maze of 5x5"):
                assert ask(index)
    assert len(calls) == 3


def test_blue_cells_are_exactly_the_path_and_nothing_else_changes():
    for sample in made(20):
        n, size = len(sample.meta["grid"]), 128
        source, edit = np.asarray(sample.image), np.asarray(sample.edit_image)
        between = {tuple(cell) for cell in sample.meta["path"][1:-1]}
        assert between
        for r in range(n):
            for c in range(n):
                y, x = int((r + 0.5) * size / n), int((c + 0.5) * size / n)
                colour = {"S": GREEN, "G": RED, ".": WHITE, "#": BLACK}[sample.meta["grid"][r][c]]
                assert tuple(source[y, x]) == colour
                assert tuple(edit[y, x]) == (BLUE if (r, c) in between else colour)
        changed = (source != edit).any(-1)
        assert (source[changed] == WHITE).all()
        assert (edit[changed] == BLUE).all()
        assert (edit == BLUE).all(-1).sum() == changed.sum()


@pytest.mark.parametrize("size", [97, 500, 512])
@pytest.mark.parametrize("cells", [7, 12])
def test_cells_and_lines_stay_even_where_the_size_does_not_divide(size, cells):
    grid = ["S" + "." * (cells - 1), *["#." * (cells // 2) + "." * (cells % 2)] * (cells - 2), "." * (cells - 1) + "G"]
    picture = np.asarray(draw_maze(grid, size))
    assert picture.shape == (size, size, 3)
    is_line = (picture == picture[0, 0]).all(-1).all(0)  # columns of the line's colour
    assert is_line[-1]
    runs = "".join("l" if line else "c" for line in is_line)
    inner = [len(run) for run in runs.split("l") if run]
    assert len(inner) == cells
    assert max(inner) - min(inner) <= 1
    assert {len(run) for run in runs.split("c") if run} == {1}


def test_sizes_and_lengths_vary_and_stay_in_their_ranges():
    usual = made(120)
    assert {sample.meta["cells_a_side"] for sample in usual} == set(range(3, 13))
    assert min(sample.meta["path_length"] for sample in usual) >= 2
    assert len({sample.meta["path_length"] for sample in usual}) > 15
    ranged = made(30, smallest=5, largest=7, shortest=6, longest=9)
    assert {sample.meta["cells_a_side"] for sample in ranged} == {5, 6, 7}
    assert {sample.meta["path_length"] for sample in ranged} == {6, 7, 8, 9}
    for sample in made(10, ends="corners", largest=6):
        n = sample.meta["cells_a_side"]
        assert (sample.meta["start"], sample.meta["goal"]) == ([0, 0], [n - 1, n - 1])


def test_the_question_names_the_size_and_the_moves():
    sample = made(1)[0]
    n = sample.meta["cells_a_side"]
    assert f"{n}x{n}" in sample.question
    assert "shortest path" in sample.question
    assert (sample.family, sample.task, sample.id) == (TaskFamily.LOGIC, "maze", "mazes-0000000")


def test_mazes_of_one_key_have_the_same_walls():
    source = MazeSource(MazesConfig(size=64, smallest=3, largest=3))
    found = {}
    for i in range(150):
        picture = np.asarray(next(source.samples(i, random.Random(i))).image)
        found.setdefault(source.key(i), set()).add((picture == BLACK).all(-1).tobytes())
    assert 1 < len(found) < 150
    assert all(len(same) == 1 for same in found.values())
    assert len(set().union(*found.values())) == len(found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"smallest": 2}, "smallest=2"),
        ({"smallest": 6, "largest": 5}, "largest=5"),
        ({"shortest": 1}, "shortest=1"),
        ({"shortest": 9, "longest": 8}, "longest=8"),
        ({"shortest": 200}, "no maze of 3 to 12"),
        ({"smallest": 6, "longest": 9, "ends": "corners"}, "no maze of 6 to 12"),
        ({"size": 90}, "size=90"),
        ({"size": 5000}, "size=5000"),
        ({"ends": "edges"}, "ends='edges'"),
        ({"num_mazes": 0}, "num_mazes=0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        MazesConfig(**options)


def test_a_build_is_reproducible_and_its_splits_are_disjoint(tmp_path):
    def grids(out, split, **more):
        options = {"out": str(tmp_path / out), "split": split, "val_share": 0.3, "processes": 1, "size": 64}
        families = build(MazeSource, MazesConfig(**options, num_mazes=60, part_size=30, smallest=3, largest=5, **more))
        files = sorted((tmp_path / out / "mazes").glob(f"{split}-*.parquet"))
        digest = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        samples = list(read_parquet(tmp_path / out / "mazes", split))
        assert families == {"logic": len(samples)}
        return digest, ["/".join(sample.meta["grid"]) for sample in samples]

    digest, train = grids("a", "train")
    again, _ = grids("b", "train")
    _, val = grids("a", "val")
    _, other = grids("c", "train", seed=1)
    assert digest == again
    assert 40 < len(train) + len(val) < 60  # the others are kept for the test set
    assert val
    assert not set(train) & set(val)
    assert train != other
    assert all(split_of(grid.replace("S", ".").replace("G", "."), 0.3) == "val" for grid in val)


def test_a_maze_that_does_not_come_up_is_refused_and_said(tmp_path):
    config = MazesConfig(
        out=str(tmp_path), num_mazes=1, smallest=5, largest=5, shortest=16, size=64, val_share=0, processes=1
    )
    assert build(MazeSource, config) == {}  # only the one snake through all of the 5 x 5 cells would do
    refused = (tmp_path / "mazes" / "train" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(refused) == 1
    assert "no maze of 5x5 cells with a path of 16 to any number of moves" in json.loads(refused[0])["reason"]
