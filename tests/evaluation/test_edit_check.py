"""The pixel checker: strict about what an edit draws, patient with how softly it is drawn."""

import random
from functools import cache

from PIL import ImageChops, ImageDraw, ImageFilter

from data_prep import procedural_tasks
from data_prep.task import generate
from etchr.families import TASKS
from evaluation.edit_check import edit_matches

ALL = procedural_tasks()


@cache
def samples(name, count=20, size=64):
    return list(generate(ALL[name], split="train", num_samples=count, seed=21, size=size))


def test_the_ground_truth_matches_softly_drawn_or_resized_too():
    for name in TASKS:
        for sample in samples(name):
            truth = sample.edit_image
            assert edit_matches(truth, truth), name
            assert edit_matches(truth.filter(ImageFilter.GaussianBlur(0.6)), truth), name
            assert edit_matches(truth.resize((128, 128)), truth), name


def test_an_unedited_source_and_a_wrong_target_do_not_match():
    for name in TASKS:
        task, wrong = ALL[name], 0
        for index, sample in enumerate(samples(name)):
            assert not edit_matches(sample.image, sample.edit_image), name
            rng = random.Random(index)
            scene = task.scene(rng)
            target, other = task.target(scene, rng), task.any_target(scene, rng)
            if name == "jigsaw":
                other = {"order": other["order"], "shown": target["order"]}
            right, drawn = task.edit(scene, target, 64), task.edit(scene, other, 64)
            if ImageChops.difference(right, drawn).getbbox():
                wrong += 1
                assert not edit_matches(drawn, right), name
        assert wrong > 5, name


def test_one_missing_side_of_a_box_or_one_wrong_cell_of_a_path_is_enough_to_fail():
    for name in ["perception", "chart"]:
        for sample in samples(name):
            x, y, w, _ = (round(side * 64) for side in sample.meta["boxes"][0])
            broken = sample.edit_image.copy()
            broken.paste(sample.image.crop((x, y, x + w, y + 2)), (x, y))
            assert not edit_matches(broken, sample.edit_image), name

    for size in [64, 512]:
        unit = size // 64
        for sample in samples("maze", 8, size):
            row, column = sample.meta["target"]["cells"][4]
            broken = sample.edit_image.copy()
            left, top = (column + 1) * 8 * unit, (row + 1) * 8 * unit
            ImageDraw.Draw(broken).rectangle((left, top, left + 8 * unit - 1, top + 8 * unit - 1), fill="white")
            assert not edit_matches(broken, sample.edit_image), size
