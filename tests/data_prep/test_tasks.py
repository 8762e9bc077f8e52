"""The procedural tasks: answers and edits against independent computations, splits, sizes, reproducibility."""

import itertools
import os
import random

import numpy as np
import pytest
from PIL import Image

from data_prep import procedural_tasks
from data_prep.__main__ import DataConfig
from data_prep.task import generate, place, scene_hash
from etchr.families import TASK_FAMILY, TASKS
from etchr.nano.sight import colour_names, pixels
from etchr.sample import read_parquet, write_parquet

ALL = procedural_tasks()


def samples(name, count=12, *, split="train", seed=3, size=64, kind="question"):
    return list(generate(ALL[name], split=split, num_samples=count, seed=seed, size=size, kind=kind))


@pytest.mark.parametrize("name", TASKS)
def test_same_seed_same_samples_and_another_seed_others(name):
    first, again, other = samples(name), samples(name), samples(name, seed=4)
    assert [s.image.tobytes() + s.edit_image.tobytes() for s in first] == [
        s.image.tobytes() + s.edit_image.tobytes() for s in again
    ]
    assert [s.answer + s.question for s in first] == [s.answer + s.question for s in again]
    assert [s.meta["scene"] for s in first] != [s.meta["scene"] for s in other]


@pytest.mark.parametrize("name", TASKS)
def test_no_test_scene_occurs_in_training_whatever_the_seed(name):
    sets = {
        (split, kind): {
            s.meta["scene"] for seed in (1, 2) for s in samples(name, 12, split=split, seed=seed, kind=kind)
        }
        for split in ("train", "val", "test")
        for kind in ("question", "instruction")
    }
    train = sets["train", "question"] | sets["train", "instruction"]
    assert not train & (sets["test", "question"] | sets["test", "instruction"])
    assert not train & (sets["val", "question"] | sets["val", "instruction"])


def test_3d_scenes_that_look_alike_share_a_split():
    task, rng = ALL["view3d"], random.Random(0)
    for _ in range(200):
        scene = task.scene(rng)
        anchor, first, second = scene["solids"]
        swapped = {"side": scene["side"], "solids": [anchor, second, first]}
        assert task.source(scene, {}, 64).tobytes() == task.source(swapped, {}, 64).tobytes()
        assert place(task, scene) == place(task, swapped)
        assert scene in task.aliases(scene)


@pytest.mark.parametrize("name", TASKS)
def test_no_test_picture_is_a_training_picture(name):
    pictures = {
        split: {s.image.tobytes() for s in samples(name, 150, split=split, seed=8)} for split in ("train", "test")
    }
    assert not pictures["train"] & pictures["test"]
    assert len(pictures["test"]) == 150


@pytest.mark.parametrize("name", TASKS)
def test_held_out_questions_are_about_different_scenes(name):
    assert len({s.meta["scene"] for s in samples(name, 40, split="test")}) == 40


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("size", [64, 256, 1024])
def test_any_size_gives_aligned_pictures(name, size):
    sample = samples(name, 1, size=size)[0]
    assert sample.image.size == sample.edit_image.size == (size, size)
    assert sample.family is TASK_FAMILY[name]
    assert sample.image.tobytes() != sample.edit_image.tobytes()


@pytest.mark.parametrize("name", ["perception", "chart"])
def test_a_red_box_encloses_the_recorded_box_and_nothing_else_changes(name):
    for sample in samples(name):
        x, y, w, h = (round(side * 64) for side in sample.meta["boxes"][0])
        changed = (np.asarray(sample.image) != np.asarray(sample.edit_image)).any(-1)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == (x, y, x + w, y + h)
        assert not changed[y + 2 : y + h - 2, x + 2 : x + w - 2].any()


def test_a_perception_dot_lies_on_the_side_that_the_answer_names():
    for sample in samples("perception", 30):
        x, y, w, h = (round(side * 64) for side in sample.meta["boxes"][0])
        dark = np.argwhere(np.asarray(sample.image)[y : y + h, x : x + w].max(-1) < 60).mean(0) - (h - 1) / 2
        side = (
            ("top", "bottom")[int(dark[0] > 0)] if abs(dark[0]) > abs(dark[1]) else ("left", "right")[int(dark[1] > 0)]
        )
        assert sample.choices["ABCD".index(sample.answer)] == side


def test_a_bar_is_as_high_as_its_value():
    for sample in samples("chart", 30):
        if "bar" in sample.question:
            x = round(sample.meta["boxes"][0][0] * 64)
            column = np.asarray(sample.image)[:60, x + 4]
            bar = (column == np.asarray(sample.image)[59, x + 4]).all(-1).sum()
            assert bar == 4 * int(sample.answer)


def test_every_frozen_lake_answer_reaches_the_gift_in_gymnasium():
    import gymnasium

    for sample in samples("frozen_lake", 12):
        rows = [line.replace(".", "F").replace("#", "H") for line in sample.meta["grid"]]
        lake = gymnasium.make("FrozenLake-v1", desc=rows, is_slippery=False)
        lake.reset(seed=0)
        for move in sample.answer.split(","):
            _, reward, done, _, _ = lake.step({"L": 0, "D": 1, "R": 2, "U": 3}[move])
        assert done
        assert reward == 1


def test_every_maze_answer_is_a_shortest_walk_and_the_only_one():
    def walks(grid, length):  # all walks of at most `length` moves that end on G, by brute force over positions
        at = {(0, 0): [""]}
        for _ in range(length):
            ahead = {}
            for (r, c), words in at.items():
                for name, (dr, dc) in {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}.items():
                    y, x = r + dr, c + dc
                    if 0 <= y < 6 and 0 <= x < 6 and grid[y][x] != "#":
                        ahead.setdefault((y, x), []).extend(w + name for w in words[:2])
            at = ahead
            if (5, 5) in at:
                return at[5, 5]
        return []

    for sample in samples("maze", 12):
        assert walks(sample.meta["grid"], 14) == [sample.answer.replace(",", "")]
        assert sample.meta["path_length"] == len(sample.answer.split(","))


def test_a_jigsaws_answer_rebuilds_the_picture():
    for sample in samples("jigsaw", 12):
        shuffled, restored = np.asarray(sample.image), np.asarray(sample.edit_image)
        order = [int(piece) for piece in sample.answer.split("-")]
        assert order != [0, 1, 2, 3]
        for quarter, piece in enumerate(order):
            (r, c), (y, x) = divmod(quarter, 2), divmod(piece, 2)
            inner = np.s_[20:30, 16:30]  # beside the border and the number
            assert (shuffled[32 * y :, 32 * x :][inner] == restored[32 * r :, 32 * c :][inner]).all()


def test_jigsaws_are_cut_from_photographs(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(tmp_path / f"{i}.JPG")
    task = procedural_tasks(tmp_path)["jigsaw"]
    made = {split: list(generate(task, split=split, num_samples=50, seed=0, size=128)) for split in ("train", "test")}
    assert all(s.image.size == (128, 128) for part in made.values() for s in part)
    used = {split: {s.meta["scene"] for s in part} for split, part in made.items()}
    assert not used["train"] & used["test"]
    Image.new("RGB", (64, 64)).save(tmp_path / "0a-new.png")  # another photo moves none of the old ones
    again = generate(procedural_tasks(tmp_path)["jigsaw"], split="test", num_samples=50, seed=1, size=128)
    assert not {s.meta["scene"] for s in again} & used["train"]
    with pytest.raises(ValueError, match="no photographs"):
        procedural_tasks(tmp_path / "empty")


def test_what_only_bears_the_name_of_a_photograph_is_passed_over(tmp_path):
    """Pipes would block, devices never end, links lead elsewhere; one damaged file is no reason to stop."""
    folder, outside = tmp_path / "photos", tmp_path / "outside.png"
    (folder / "folder.png").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (2, 50, 70, 3), dtype=np.uint8)
    Image.fromarray(noise[0]).save(outside)
    os.mkfifo(folder / "pipe.png")
    for name, target in {"device": "/dev/zero", "out": outside, "loop": folder / "loop.png", "none": "gone"}.items():
        (folder / f"{name}.png").symlink_to(target)
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.png").write_bytes(outside.read_bytes()[:2000])  # its header is sound
    with pytest.raises(ValueError, match="none of the photographs could be decoded"):
        list(generate(procedural_tasks(folder)["jigsaw"], split="train", num_samples=1, seed=0, size=64))
    (folder / "cut.png").rename(folder / "cut.txt")
    with pytest.raises(ValueError, match="none of the 7 photographs"):
        procedural_tasks(folder)
    (folder / "cut.txt").rename(folder / "cut.png")
    Image.fromarray(noise[1]).save(folder / "sound.png")
    task = procedural_tasks(folder)["jigsaw"]
    [(_, split)] = [place(task, {"photo": name}) for name, path in task.photos.items() if path.name == "sound.png"]
    made = generate(task, split=split, num_samples=8, seed=0, size=64)
    assert len({sample.meta["scene"] for sample in made}) == 1


def test_the_3d_answer_agrees_with_projected_points():
    for sample in samples("view3d", 30):
        scene = {}
        pose = np.array(sample.meta["poses"][1])
        names = colour_names(pixels(sample.edit_image))  # solids by colour: their centroids in the edit itself
        words = sample.question.replace(",", "").replace("?", "").split()
        first, second = words[words.index("is") + 2], words[words.index("to", words.index("is")) + 2]
        for colour in (first, second):
            scene[colour] = np.argwhere(names == colour).mean(0)
        dy, dx = scene[first] - scene[second]
        answer = sample.choices["ABCD".index(sample.answer)]
        assert {"to the left": -dx, "to the right": dx, "in front": dy, "behind": -dy}[answer] > 5
        assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3))


@pytest.mark.parametrize("name", TASKS)
def test_instructions_ask_for_more_than_the_questions_target(name):
    made = samples(name, 40, kind="instruction")
    assert all(s.question == s.meta["instruction"] for s in made)
    targets = {s.answer for s in made}
    assert len(targets) > 3


def test_parquet_round_trip_and_one_schema(tmp_path):
    made = [samples(name, 2)[0] for name in TASKS]
    assert write_parquet(made, tmp_path / "train.parquet") == 6
    back = list(read_parquet(tmp_path, "train"))
    for a, b in zip(made, back, strict=True):
        assert (a.id, a.family, a.task, a.question, a.answer, a.choices) == (
            b.id, b.family, b.task, b.question, b.answer, b.choices
        )  # fmt: skip
        assert a.image.tobytes() == b.image.tobytes()
        assert a.edit_image.tobytes() == b.edit_image.tobytes()
        assert b.meta["scene"] == a.meta["scene"]


@pytest.mark.slow
def test_a_task_without_enough_scenes_says_so():
    with pytest.raises(ValueError, match="has only"):
        list(generate(ALL["frozen_lake"], split="val", num_samples=300, seed=0, size=64))


def test_scene_hash_ignores_the_order_of_keys():
    assert scene_hash({"a": 1, "b": [2]}) == scene_hash({"b": [2], "a": 1})


@pytest.mark.parametrize("name", TASKS)
def test_shallow_questions_are_those_up_to_a_depth_and_the_test_set_goes_beyond(name):
    easy = list(generate(ALL[name], split="train", num_samples=60, seed=5, size=64, shallow=1.0))
    deep = {s.meta["depth"] for s in samples(name, 60, split="test")}
    depths = {s.meta["depth"] for s in easy}
    assert 0 < min(depths) <= max(depths) == ALL[name].shallow < max(deep)
    assert min(deep) <= ALL[name].shallow
    mostly = generate(ALL[name], split="train", num_samples=60, seed=5, size=64, shallow=0.5)
    assert 0 < sum(s.meta["depth"] > ALL[name].shallow for s in mostly) < 30


def test_depth_counts_what_it_says():
    assert all(s.meta["depth"] == s.meta["path_length"] for s in samples("maze", 20))
    for s in samples("jigsaw", 20):
        assert s.meta["depth"] == sum(int(piece) != place for place, piece in enumerate(s.answer.split("-")))
    for s in samples("frozen_lake", 20):
        moves = s.answer.split(",")
        assert s.meta["depth"] == sum(a != b for a, b in itertools.pairwise(moves))
    for s in samples("view3d", 20):  # how far the camera turns, of the recorded poses
        here, there = (np.array(pose)[:3, 0] for pose in s.meta["poses"])
        assert s.meta["depth"] == round(np.degrees(np.arccos(np.clip(here @ there, -1, 1))) / 90)


def test_instructions_of_any_depth_cannot_be_shallow():
    with pytest.raises(ValueError, match=r"shallow=0.8 is for kind=question"):
        DataConfig(shallow=0.8, kind="instruction")
    with pytest.raises(ValueError, match=r"shallow=1.5 must lie between 0 and 1"):
        DataConfig(shallow=1.5)


WORDS = {"perception": ("Remove ", "Make ", "Paint ", "Red box "), "chart": ("Remove ", "Make ", "Paint ", "Red box ")}


@pytest.mark.parametrize("name", WORDS)
def test_an_instruction_changes_the_named_thing_and_no_other(name):
    from data_prep.draw import COLOURS

    seen = set()
    for s in samples(name, 60, kind="instruction"):
        source, edit = (np.asarray(image).astype(int) for image in (s.image, s.edit_image))
        changed = (source != edit).any(-1)
        assert changed.any()
        verb = next(word for word in WORDS[name] if s.question.startswith(word))
        seen.add(verb)
        named = [word for word in s.question.replace(".", "").split() if word in COLOURS]
        if verb == "Red box " or not named:
            continue
        was = np.array(COLOURS[named[0]])
        assert (source[changed] == was).all(-1).mean() > 0.5, s.question  # mostly pixels of the named colour
        assert not (edit == was).all(-1).any(), s.question  # of which none are left: colours do not repeat
        if verb == "Make ":
            assert (edit == COLOURS[named[1]]).all(-1).sum() >= 8
    assert seen == set(WORDS[name])


def colours_in(image):
    names, counts = np.unique(colour_names(pixels(image)), return_counts=True)
    return {str(name) for name, count in zip(names, counts, strict=True) if name and count > 12}  # edges mix colours


def test_view_instructions_name_the_solid_that_stands_at_the_side_or_change_one():
    for s in samples("view3d", 60, kind="instruction"):
        verb = s.meta["target"]["verb"]
        moved = s.meta["target"]["side"] != "south"
        before, after = (colours_in(image) for image in (s.image, s.edit_image))
        if verb == "remove":
            assert len(before - after) == 1
            assert f"the {(before - after).pop()} " in s.question
        elif verb == "recolour":
            (old,), (new,) = before - after, after - before
            assert s.question.startswith(f"Make the {old} ")
            assert s.question.endswith(f" {new}.")
        elif verb == "behind":
            assert moved
            colour = s.question.split()[-2]
            rows, columns = np.nonzero(colour_names(pixels(s.edit_image)) == colour)
            assert rows.mean() > 32  # it stands in front now, in the middle
            assert abs(columns.mean() - 31.5) < 6
