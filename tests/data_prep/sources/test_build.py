"""The frame of all sources: parts, splits, refused items, going on after a kill, several processes and machines."""

import hashlib
import json
import random
from dataclasses import dataclass, replace

import pytest
from PIL import Image

from data_prep.sources.build import Runs, build, split_of
from data_prep.sources.source import BuildConfig, Source
from etchr.families import TaskFamily
from etchr.rows import inside, text
from etchr.sample import EditSample, read_parquet


@dataclass
class DotsConfig(BuildConfig):
    """A fake source's options."""

    num_dots: int = 40  # items
    bad: int = 7  # every so many-th item is refused


class Dots(Source):
    """A picture an item, two questions on it; one key for every two items."""

    name = "dots"

    def __init__(self, config):
        self.config = config

    def __len__(self):
        return self.config.num_dots

    def key(self, index):
        return f"picture {index // 2}"

    def samples(self, index, rng):
        if index % self.config.bad == 0:
            raise ValueError(f"item {index} is\nbad {'x' * 1000}")
        picture = Image.new("RGB", (64, 64), (rng.randrange(256), index, 0))
        for number in range(2):
            yield EditSample(f"dots-{index:07d}-{number}", TaskFamily.JIGSAW, "dots", picture, "Which?", "A")


class Killed(Dots):
    """The same source on a machine that dies at item 20."""

    def samples(self, index, rng):
        if index == 20:
            raise KeyboardInterrupt
        return super().samples(index, rng)


def options(out, **more):
    return DotsConfig(**{"out": str(out), "part_size": 6, "processes": 1, **more})


def digests(out):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (out / "dots").glob("*.parquet")}


def ids(out, split="train"):
    return read_parquet(out / "dots", split).table["id"]


def test_samples_come_in_order_and_refused_items_are_noted(tmp_path, capsys):
    assert build(Dots, options(tmp_path, val_share=0)) == {"jigsaw": 68}
    wanted = [f"dots-{i:07d}-{n}" for i in range(40) if i % 7 for n in (0, 1)]
    assert list(ids(tmp_path)) == wanted
    assert len(digests(tmp_path)) == 7
    refused = [json.loads(line) for line in (tmp_path / "dots/train/rejected.jsonl").read_text().splitlines()]
    assert [entry["item"] for entry in refused] == [0, 7, 14, 21, 28, 35]
    assert refused[1]["key"] == "picture 3"
    assert refused[1]["reason"].startswith("item 7 is bad xxx")
    assert len(refused[1]["reason"]) == 300
    assert "68 samples, 6 items refused, 7 of 7 parts" in capsys.readouterr().out


def test_splits_share_no_picture_and_hold_all_items(tmp_path):
    for split in ("train", "val"):
        build(Dots, options(tmp_path, split=split, val_share=0.4))
    train, val = ({name.split("-")[1] for name in ids(tmp_path, split)} for split in ("train", "val"))
    assert train
    assert val
    assert not {int(name) // 2 for name in train} & {int(name) // 2 for name in val}
    assert {*train, *val} == {f"{i:07d}" for i in range(40) if i % 7}


def test_the_share_of_a_split_is_what_was_asked_for():
    share = sum(split_of(f"picture {i}", 0.1) == "val" for i in range(5000)) / 5000
    assert share == pytest.approx(0.1, abs=0.015)


def test_a_build_that_was_killed_goes_on_and_ends_the_same(tmp_path):
    build(Dots, options(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        build(Killed, options(tmp_path / "broken"))
    assert 0 < len(digests(tmp_path / "broken")) < 7
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "broken/dots").glob("*.parquet")}
    build(Dots, options(tmp_path / "broken"))
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_processes_and_shards_make_the_same_files(tmp_path):
    build(Dots, options(tmp_path / "one"))
    build(Dots, options(tmp_path / "two", processes=2))
    for shard in (2, 0, 1):
        build(Dots, options(tmp_path / "three", shard=shard, num_shards=3))
        assert (tmp_path / "three/dots/train/rejected.jsonl").is_file() == (shard == 1)
    assert digests(tmp_path / "one") == digests(tmp_path / "two") == digests(tmp_path / "three")
    notes = [(tmp_path / name / "dots/train/rejected.jsonl").read_bytes() for name in ("one", "two", "three")]
    assert notes[0] == notes[1] == notes[2]


@pytest.mark.parametrize(("count", "processes"), [(1, 1), (7, 3), (64, 5), (3, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_every_part_is_taken_once_by_processes_of_any_speed(count, processes, seed):
    runs, rng = Runs(range(10, 10 + count), processes), random.Random(seed)
    speed = [rng.random() ** 3 for _ in range(processes)]
    taken = {process: [] for process in range(processes)}
    at_work = set(taken)
    while at_work:
        process = rng.choices(sorted(at_work), [speed[each] for each in sorted(at_work)])[0]
        part = runs.take(process)
        if part is None:
            at_work.remove(process)
        else:
            taken[process].append(part)
    assert sorted(part for parts in taken.values() for part in parts) == list(range(10, 10 + count))


def test_processes_of_one_speed_each_read_their_own_stretch():
    runs = Runs(range(12), 3)
    taken = [[runs.take(process) for process in range(3)] for _ in range(4)]
    assert list(zip(*taken, strict=True)) == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert runs.take(0) is None
    late = Runs(range(8), 2)
    assert [late.take(0) for _ in range(4)] == [0, 1, 2, 3]
    assert [late.take(0), late.take(1), late.take(0), late.take(1)] == [6, 4, 7, 5]  # half of what the other one has


def test_a_part_whose_file_or_note_is_gone_is_made_again(tmp_path):
    build(Dots, options(tmp_path))
    whole = digests(tmp_path)
    (tmp_path / "dots/train-00002.parquet").unlink()
    (tmp_path / "dots/train-00003.parquet").write_bytes(b"torn")
    (tmp_path / "dots/train/part-00004.json").write_bytes(b"")
    build(Dots, options(tmp_path))
    assert digests(tmp_path) == whole


class Vague(Dots):
    """The same source with answers that say nothing."""

    def samples(self, index, rng):
        for sample in super().samples(index, rng):
            yield replace(sample, answer="I cannot tell.", meta={"answer_type": "number"})


def test_answers_that_the_grader_cannot_read_are_refused(tmp_path, capsys):
    assert build(Vague, options(tmp_path)) == {}
    assert "40 items refused" in capsys.readouterr().out


class Loses(Dots):
    """The same source on a disk that fails."""

    def samples(self, index, rng):
        raise OSError("input/output error")


def test_a_disk_that_fails_stops_the_build_and_refuses_nothing(tmp_path):
    with pytest.raises(OSError, match="input/output"):
        build(Loses, options(tmp_path))
    build(Dots, options(tmp_path))
    build(Dots, options(tmp_path / "other"))
    assert digests(tmp_path) == digests(tmp_path / "other")


def test_another_seed_makes_another_set_and_needs_another_folder(tmp_path):
    build(Dots, options(tmp_path / "a"))
    build(Dots, options(tmp_path / "b", seed=1))
    assert digests(tmp_path / "a") != digests(tmp_path / "b")
    with pytest.raises(ValueError, match=r"options.seed: 0 there, 1 here"):
        build(Dots, options(tmp_path / "a", seed=1))


def test_fewer_items_can_be_asked_for_and_an_empty_part_leaves_no_file(tmp_path):
    assert build(Dots, options(tmp_path, num_items=9, val_share=0)) == {"jigsaw": 14}
    assert build(Dots, options(tmp_path / "bad", bad=1)) == {}
    assert not digests(tmp_path / "bad")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"split": "val", "val_share": 0.0}, "val_share=0 leaves nothing"),
        ({"split": "tests"}, "split='tests' must be one of train, val, test"),
        ({"split": "test"}, "split=test is not there"),
        ({"val_share": 1.0}, "val_share=1.0 must be"),
        ({"num_items": 0}, "num_items=0 must be"),
        ({"shard": 2, "num_shards": 2}, "shard=2 must be below num_shards=2"),
        ({"part_size": 0}, "part_size=0 must be"),
    ],
)
def test_wrong_options_are_named(tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words):
        options(tmp_path, **wrong)


@pytest.mark.parametrize("label", ["../secret", "/etc/passwd", "a/../../secret", "link", "a\0b", "x" * 999])
def test_a_label_never_leads_out_of_the_folder(tmp_path, label):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="path"):
        inside(root, label)


def test_a_label_names_a_file_below_the_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").write_bytes(b"here")
    assert inside(tmp_path, "a/b.png").read_bytes() == b"here"
    with pytest.raises(ValueError, match=r"no file 'a/c.png'"):
        inside(tmp_path, "a/c.png")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "is missing"),
        (float("nan"), "is missing"),
        (7, "no text but int"),
        (" \n", "is empty"),
        ("x" * 21, "21 char"),
        ("a\ud800b", "half a character"),
    ],
)
def test_a_text_that_is_none_says_so(value, words):
    with pytest.raises(ValueError, match=words):
        text(value, "question", limit=20)
    assert text(" why? ", "question") == "why?"
