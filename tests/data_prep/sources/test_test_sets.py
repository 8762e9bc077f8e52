"""Fixed test sets: exactly as many as asked for, all different, and in no training set of any seed or option."""

import hashlib
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data_prep.sources import SOURCES, find_source
from data_prep.sources.build import build
from data_prep.sources.jigsaws import Jigsaws, JigsawsConfig
from data_prep.sources.lakes import LakesConfig, LakeSource
from data_prep.sources.mazes import MazesConfig, MazeSource
from data_prep.sources.source import TEST_SHARE, split_of
from etchr.sample import read_parquet

# Options of small sets, and the option that says how many.
GRIDS = {
    "mazes": (MazeSource, MazesConfig, {"size": 64, "smallest": 3, "largest": 4}, "num_mazes"),
    "lakes": (LakeSource, LakesConfig, {"size": 256, "smallest": 4, "largest": 4}, "num_lakes"),
}


def grids(kind, count, split, *, out=None, **options):
    """The grids that come out of a source, as (grid with ends, walls alone)."""
    source, config, usual, number = GRIDS[kind]
    options = {**usual, "split": split, "val_share": 0.2, "processes": 1, number: count, **options}
    made = source(config(**options, **({"out": str(out)} if out else {})))
    if out is None:  # the driver's rule, without the pictures
        keys = [(index, made.key(index)) for index in range(len(made))]
        kept = [i for i, key in keys if split_of(key, 0.2, made.test_share) == split]
        return ["/".join(made.solved(i).grid) for i in kept]
    build(source, config(**options, out=str(out)))
    return ["/".join(sample.meta["grid"]) for sample in read_parquet(out / kind, split)]


def walls(found):
    return {grid.replace("S", ".").replace("G", ".") for grid in found}


@pytest.mark.parametrize("kind", GRIDS)
def test_exactly_as_many_different_grids_come_out(tmp_path, kind):
    found = grids(kind, 12, "test", out=tmp_path)
    assert len(found) == len(set(found)) == 12
    assert found == grids(kind, 12, "test")


@pytest.mark.parametrize("kind", GRIDS)
def test_no_walls_of_a_test_set_occur_in_training_whatever_the_seeds(kind):
    tested = set().union(*(walls(grids(kind, 30, "test", seed=seed)) for seed in range(4)))
    for seed in range(4):
        for split in ("train", "val"):
            found = grids(kind, 150, split, seed=seed)
            assert found
            assert not tested & walls(found)


def test_nor_with_other_ends_lengths_or_shares():
    sizes = {"smallest": 4, "largest": 5}
    tested = walls(grids("mazes", 20, "test", **sizes, ends="corners")) | walls(grids("mazes", 40, "test", **sizes))
    for options in ({}, {"ends": "corners"}, {"shortest": 4}, {"unique": False}, {"val_share": 0.9}):
        assert not tested & walls(grids("mazes", 150, "train", **sizes, **options))


def test_the_sizes_of_a_test_set_take_turns_and_its_paths_are_as_long_as_asked_for():
    source = MazeSource(MazesConfig(split="test", num_mazes=25, smallest=3, largest=7, shortest=2, longest=3, size=64))
    assert [len(source.solved(i).grid) for i in range(len(source))] == 5 * [3, 4, 5, 6, 7]
    assert {len(source.solved(i).path) - 1 for i in range(25)} == {2, 3}


def test_the_published_sets_are_the_same_for_everybody():
    """Whoever changes this number makes another benchmark."""
    mazes = MazeSource(MazesConfig(split="test", seed=2026, num_mazes=200, num_items=20))
    lakes = LakeSource(LakesConfig(split="test", seed=2026, num_lakes=200, num_items=10, smallest=4))
    for source, count, digest in ((mazes, 20, "afc0cc624205e256"), (lakes, 10, "24cc10ecb236135a")):
        found = "\n".join("/".join(source.solved(i).grid) for i in range(count))
        assert hashlib.sha256(found.encode()).hexdigest()[:16] == digest


def test_parts_and_processes_make_the_same_test_set(tmp_path):
    options = {"split": "test", "num_mazes": 12, "largest": 5, "size": 64}
    build(MazeSource, MazesConfig(out=str(tmp_path / "one"), processes=1, **options))
    build(MazeSource, MazesConfig(out=str(tmp_path / "two"), processes=2, part_size=5, **options))
    ids = [
        [s.id + s.image.tobytes().hex() for s in read_parquet(tmp_path / n / "mazes", "test")] for n in ("one", "two")
    ]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 12


def test_a_size_with_too_few_is_refused_before_anything_is_written(tmp_path):
    options = {"split": "test", "size": 256, "smallest": 3, "largest": 3, "out": str(tmp_path), "num_lakes": 60}
    with pytest.raises(ValueError, match=r"only \d+ different lakes of 3x3 came up; .* need 60 each"):
        build(LakeSource, LakesConfig(**options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted({*SOURCES} - {"mazes", "lakes", "jigsaws"}))
def test_data_to_train_on_have_no_test_set(name):
    config, _, _ = find_source(name)
    with pytest.raises(ValueError, match="this source's data are for training"):
        config(split="test")


# --- photographs ---


@pytest.fixture
def photos(tmp_path):
    """Fifty small photographs by their numbers, as COCO names them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(50):
        pixels = np.random.default_rng(number).integers(0, 255, (128, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:012d}.png", compress_level=1)
    return folder


def puzzles(photos, out, split, **options):
    config = JigsawsConfig(**{"photos": str(photos), "out": str(out), "split": split, "processes": 1, **options})
    build(Jigsaws, config)
    return list(read_parquet(out / "jigsaws", split))


def test_a_test_set_of_photographs_is_fixed_and_disjoint_from_the_folders_other_splits(photos, tmp_path):
    tested = puzzles(photos, tmp_path / "a", "test", num_items=3)
    names = [sample.meta["path"] for sample in tested]
    assert len(set(names)) == 3
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    assert digests == sorted(digests)
    other = puzzles(photos, tmp_path / "b", "test", num_items=3, seed=7)
    assert [sample.meta["path"] for sample in other] == names
    assert [sample.answer for sample in other] != [sample.answer for sample in tested]
    pictures = {sample.edit_image.tobytes() for sample in tested}
    for seed, split in ((0, "train"), (1, "train"), (1, "val")):
        learnt = puzzles(photos, tmp_path / f"{seed}", split, seed=seed, val_share=0.3)
        assert not pictures & {sample.edit_image.tobytes() for sample in learnt}


def test_photographs_that_cannot_be_cut_and_copies_leave_their_place_to_others(photos, tmp_path):
    before = [sample.meta["path"] for sample in puzzles(photos, tmp_path / "a", "test", num_items=3)]
    shutil.copy(photos / before[1], photos / "copy.png")
    Image.new("RGB", (128, 128)).save(photos / "plain.png")
    (photos / "damaged.jpg").write_bytes(b"\xff\xd8\xff")
    after = [sample.meta["path"] for sample in puzzles(photos, tmp_path / "b", "test", num_items=3)]
    assert [name for name in after if name != "copy.png"] == [name for name in before if name in after]
    assert len(after) == 3
    assert len({(photos / name).read_bytes() for name in after}) == 3


def test_no_order_is_asked_for_more_often_than_others(photos):
    source = Jigsaws(JigsawsConfig(photos=str(photos), split="test", num_items=3))
    orders = Counter(order for item in range(46) for order in source.orders(item))
    assert set(orders.values()) == {2}
    assert (0, 1, 2, 3) not in orders
    assert len(orders) == 23


def test_too_few_photographs_are_refused_with_their_number(photos):
    share = sum(split_of(Jigsaws(JigsawsConfig(photos=str(photos))).key(i), 0, TEST_SHARE) == "test" for i in range(50))
    with pytest.raises(ValueError, match=f"of the 50 photographs in .* only {share} are in that split"):
        len(Jigsaws(JigsawsConfig(photos=str(photos), split="test")))


@pytest.mark.parametrize("options", [{"spatial_ssrl": "a"}, {"photos": "a", "puzzles": 2}])
def test_published_puzzles_and_several_of_a_photo_are_no_test_set(options):
    with pytest.raises(ValueError, match="split=test has one puzzle of each photograph"):
        JigsawsConfig(split="test", **options)
