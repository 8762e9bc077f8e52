"""Lakes: answers carried out in gymnasium itself, pictures against its renderer."""

import hashlib
import random
from itertools import pairwise

import gymnasium
import numpy as np
import pytest

from data_prep.draw import MAGENTA
from data_prep.sources import lakes
from data_prep.sources.build import build
from data_prep.sources.lakes import LakesConfig, LakeSource
from etchr.families import TaskFamily
from etchr.mllm.answers import ground_truth
from etchr.sample import read_parquet

ACTIONS = {"L": 0, "D": 1, "R": 2, "U": 3}


def made(count, **options):
    source = LakeSource(LakesConfig(**{"size": 256, **options}))
    return [sample for i in range(count) for sample in source.samples(i, random.Random(0))]


def lake(grid, **options):
    rows = [line.replace(".", "F").replace("#", "H") for line in grid]
    return gymnasium.make("FrozenLake-v1", desc=rows, is_slippery=False, **options)


def floods(grid):
    """Moves from S to G by spreading over the whole board at once, and the number of shortest ways."""
    free = np.array([[mark != "#" for mark in row] for row in grid])
    ways, moves = np.array([[int(mark == "S") for mark in row] for row in grid]), 0
    while not ways[-1, -1]:
        spread = np.zeros_like(ways)
        spread[1:] += ways[:-1]
        spread[:-1] += ways[1:]
        spread[:, 1:] += ways[:, :-1]
        spread[:, :-1] += ways[:, 1:]
        ways, moves = spread * free, moves + 1
        assert moves <= free.size
    return moves, int(ways[-1, -1])


@pytest.mark.parametrize("options", [{}, {"frozen_share": 0.5, "unique": True}])
def test_every_answer_reaches_the_goal_in_gymnasium_step_by_step(options):
    ways = []
    for sample in made(16, **options):
        grid, size = sample.meta["grid"], sample.meta["cells_a_side"]
        environment = lake(grid)
        state, _ = environment.reset(seed=0)
        states, done, reward = [state], False, 0.0
        for move in sample.answer.split(","):
            assert not done
            state, reward, done, _, _ = environment.step(ACTIONS[move])
            states.append(state)
        assert done
        assert reward == 1
        assert [list(divmod(state, size)) for state in states] == sample.meta["path"]
        assert (len(states) - 1, sample.meta["num_shortest_paths"]) == floods(grid)
        assert sample.meta["path_length"] == len(states) - 1
        assert ground_truth(sample) == sample.answer
        ways.append(sample.meta["num_shortest_paths"])
    assert (max(ways) == 1) == ("unique" in options)


def test_sizes_run_from_the_smallest_to_the_largest():
    source = LakeSource(LakesConfig())
    assert {source.key(i).count("/") + 1 for i in range(60)} == {3, 4, 5, 6, 7, 8}


def test_the_picture_is_gymnasiums_own():
    (sample,) = made(1, smallest=8, size=512)  # at which no pixel is scaled
    environment = lake(sample.meta["grid"], render_mode="rgb_array")
    environment.reset(seed=0)
    assert (np.asarray(sample.image) == environment.render()).all()


@pytest.mark.parametrize("size", [256, 500])
def test_the_path_is_drawn_over_its_tiles_and_nothing_else(size):
    for sample in made(8, size=size):
        n, path = sample.meta["cells_a_side"], sample.meta["path"]
        source, edit = np.asarray(sample.image), np.asarray(sample.edit_image)
        changed, tile = (source != edit).any(-1), size / n
        assert (edit[changed] == MAGENTA).all()
        for r in range(n):
            for c in range(n):
                rows, columns = (slice(round(k * tile) + 2, round((k + 1) * tile) - 2) for k in (r, c))
                assert changed[rows, columns].any() == ([r, c] in path[1:-1])
                if [r, c] in path[1:-1]:
                    assert tuple(edit[int((r + 0.5) * tile), int((c + 0.5) * tile)]) == MAGENTA
        for (r, c), (y, x) in pairwise(path[1:-1]):  # the line runs on from tile to tile
            assert tuple(edit[int((r + y + 1) / 2 * tile), int((c + x + 1) / 2 * tile)]) == MAGENTA


def test_a_sample_says_what_it_is():
    (sample,) = made(1)
    n = sample.meta["cells_a_side"]
    assert f"{n}x{n}" in sample.question
    assert (sample.family, sample.task, sample.id) == (TaskFamily.LOGIC, "frozen_lake", "lakes-0000000")
    assert sample.meta["answer_type"] == "moves"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"smallest": 2}, "smallest=2"),
        ({"largest": 9}, "largest=9"),
        ({"size": 128}, "size=128"),
        ({"size": 5000}, "size=5000"),
        ({"frozen_share": 0.29}, "frozen_share=0.29 must be from 0.3"),
        ({"frozen_share": 1.0, "unique": True}, "unique=true"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        LakesConfig(**options)


def test_a_map_that_does_not_come_up_is_refused(monkeypatch):
    source = LakeSource(LakesConfig(smallest=8, frozen_share=0.99, unique=True))
    for _ in range(2):
        with pytest.raises(ValueError, match="no map of 8x8 tiles with one shortest path"):
            source.key(0)
        monkeypatch.setattr(lakes, "make_lake", None)  # it is not sought again


def test_a_build_is_reproducible_and_its_splits_are_disjoint(tmp_path):
    def grids(out, split):
        options = {"out": str(tmp_path / out), "split": split, "val_share": 0.4, "processes": 1, "size": 256}
        build(LakeSource, LakesConfig(**options, num_lakes=12, smallest=3, largest=3))
        files = sorted((tmp_path / out / "lakes").glob(f"{split}-*.parquet"))
        digest = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        return digest, ["/".join(sample.meta["grid"]) for sample in read_parquet(tmp_path / out / "lakes", split)]

    digest, train = grids("a", "train")
    again, _ = grids("b", "train")
    _, val = grids("a", "val")
    assert digest == again
    assert 8 < len(train) + len(val) <= 12  # the others are kept for the test set
    assert val
    assert not set(train) & set(val)
