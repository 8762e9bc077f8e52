"""Instructions with paths of given lengths, and the quick search for mazes, against walks counted by brute force."""

import random
import string

import numpy as np
import pytest

from data_prep import procedural_tasks
from data_prep.grids import exact_walk, find, neighbours, unique_shortest_path
from data_prep.making import DataConfig, make_all
from data_prep.maze import GRID, only_way
from data_prep.task import generate, place

TASKS = {"maze": [2, 3, 9, 14], "frozen_lake": [2, 3, 6, 9]}


def made(name, lengths, count, split="train", seed=0, **options):
    task = procedural_tasks()[name]
    options = {"size": 64, "kind": "instruction"} | options
    return list(generate(task, split=split, num_samples=count, seed=seed, lengths=lengths, **options))


def all_walks(grid):
    """The numbers of moves of all walks from S that enter no cell twice and never G."""
    found = set()

    def go(cell, seen):
        found.add(len(seen) - 1)
        for near in neighbours(grid, cell):
            if near not in seen and grid[near[0]][near[1]] != "G":
                go(near, seen | {near})

    go(find(grid, "S"), {find(grid, "S")})
    return found


@pytest.mark.parametrize("name", TASKS)
def test_every_length_comes_as_often_and_its_path_is_walked_in_the_picture(name):
    lengths = TASKS[name]
    samples = made(name, lengths, 3 * len(lengths))
    assert [sample.meta["path_length"] for sample in samples] == 3 * lengths
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        cells = [tuple(cell) for cell in sample.meta["target"]["cells"]]
        assert len(set(cells)) == len(cells) == sample.meta["path_length"]
        steps = zip([(0, 0), *cells], cells, strict=False)
        assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in steps)
        letters = string.ascii_lowercase if name == "maze" else string.ascii_uppercase
        assert [f"{letters[c]}{r + 1}" for r, c in cells] == sample.question.split(": ")[1].split()
        side, border = (8, 1) if name == "maze" else (16, 0)
        changed = (np.asarray(sample.image) != np.asarray(sample.edit_image)).any(-1)
        touched = {(y // side - border, x // side - border) for y, x in np.argwhere(changed)}
        assert touched == set(cells)
        before = np.asarray(sample.image)
        walls = {"maze": (0, 0, 0), "frozen_lake": (30, 70, 140)}[name]
        for r, c in cells:  # no wall and no hole, seen in the source
            assert tuple(before[(r + border) * side + side // 2, (c + border) * side + side // 2]) != walls


@pytest.mark.parametrize("name", TASKS)
def test_paths_of_a_test_set_lie_in_scenes_of_that_split(name):
    task = procedural_tasks()[name]
    scenes = {split: {s.meta["scene"] for s in made(name, [2, 4], 20, split, seed=1)} for split in ("train", "test")}
    assert not scenes["train"] & scenes["test"]
    rng = random.Random(0)
    drawn = (task.scene(rng) for _ in range(200))
    assert {place(task, scene)[1] for scene in drawn} == {"train", "val", "test"}


def test_a_walk_is_found_if_and_only_if_there_is_one():
    rng = random.Random(0)
    for name, most in (("maze", 28), ("frozen_lake", 13)):
        for _ in range(15):
            grid = procedural_tasks()[name].scene(rng)["grid"]
            there = all_walks(grid)
            assert {n for n in range(1, most) if exact_walk(rng, grid, n)} == there - {0}


def test_no_lake_has_a_longer_walk_than_may_be_asked_for():
    longest = 0
    for bits in range(0, 1 << 14, 3):  # a third of all maps; whole, it is the same
        cells = ["S", *("#" if bits >> i & 1 else "." for i in range(14)), "G"]
        grid = ["".join(cells[i : i + 4]) for i in range(0, 16, 4)]
        if unique_shortest_path(grid):
            longest = max(longest, *all_walks(grid))
    assert longest == procedural_tasks()["frozen_lake"].longest_path


def test_the_quick_search_agrees_with_the_walks_that_the_grids_count():
    rng, found = random.Random(3), set()
    for _ in range(3000):
        walls = [rng.random() < rng.choice((0.3, 0.4, 0.5)) for _ in range(GRID * GRID)]
        walls[0] = walls[-1] = False
        marks = ["#" if wall else "." for wall in walls]
        marks[0], marks[-1] = "S", "G"
        path = unique_shortest_path(["".join(marks[i : i + GRID]) for i in range(0, GRID * GRID, GRID)])
        assert only_way(walls) == (len(path) - 1 if path else 0)
        found.add(only_way(walls))
    assert found >= {0, 10, 12}


def test_instructions_of_any_length_stay_what_they_were():
    usual = made("maze", None, 4)
    assert all("path_length" not in sample.meta for sample in usual)
    assert [sample.id for sample in usual] == [f"maze-instruction-train-s0-{i:06d}" for i in range(4)]
    assert made("maze", [3], 1)[0].id == "maze-instruction-train-s0-l03-000000"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("maze", {"lengths": [2, 25]}, "a path of 25 moves cannot be had in the scenes of maze; ask for 1 to 24"),
        ("maze", {"lengths": [0]}, "a path of 0 moves"),
        ("frozen_lake", {"lengths": [12]}, "ask for 1 to 11"),
        ("maze", {"lengths": []}, "names none"),
        ("chart", {"lengths": [2]}, "maze and frozen_lake; chart has none"),
    ],
)
def test_lengths_that_cannot_be_are_refused_before_anything_is_written(tmp_path, name, options, said):
    config = DataConfig(kind="instruction", out=str(tmp_path), **options)
    with pytest.raises(ValueError, match=said):
        make_all([name], config)
    assert not list(tmp_path.iterdir())


def test_a_questions_path_cannot_have_a_length_of_ones_own():
    with pytest.raises(ValueError, match="lengths= is for kind=instruction"):
        DataConfig(lengths=[2])
