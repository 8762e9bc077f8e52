"""From Parquet to micro-batches: every kind of bad row is one sentence, every pair comes once."""

import io
import json
import struct
import zlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from etchr.families import TaskFamily
from etchr.images import encode_png
from etchr.router import Router
from etchr.sample import EditSample, features, find_files, to_row
from etchr.sft.cache import MemoryCache, NoCache
from etchr.sft.data import Sizing, StepLoader
from etchr.training.data import SampleTable, prompt_maker
from etchr.training.mixture import DataSet

ROUTER = Router({family: f"{family}:" for family in TaskFamily})
SIZING = Sizing("native", 96 * 96)
SKIP = "data.bad_rows=skip leaves such rows out"


def noisy(width, height, seed=0):
    """A picture that does not compress, so that a file cut in half lacks pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pair(name, width=64, height=48, task="chart", **meta):
    seed = zlib.crc32(name.encode())
    return to_row(
        EditSample(
            name,
            TaskFamily.CHART,
            task,
            noisy(width, height, seed),
            f"Q {name}?",
            "A",
            edit_image=noisy(width, height, seed + 1),
            meta=meta,
        )
    )


def cell(data):
    return {"bytes": data, "path": None}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=features().arrow_schema), path, row_group_size=3)
    return path


def load(*paths, split="train", kind="question", sizing=SIZING, bad_rows="stop"):
    sets = [DataSet([str(path) for path in paths], split)]
    return SampleTable(sets, prompt_maker(kind, ROUTER), sizing.of_sample, bad_rows)


def loader(data, size=4, rank=0, num_processes=1, batch_size=2, cache=None, seed=0, sizing=SIZING):
    plan = data.plan({}, size, seed)
    return StepLoader(data, plan, sizing, cache or NoCache(), rank, num_processes, batch_size)


def bomb():
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


# --------------------------------------------------------------------------------------------------------- files


def test_files_folders_and_folders_of_tasks(tmp_path):
    a = write(tmp_path / "one" / "train-0.parquet", [pair("a")])
    b = write(tmp_path / "one" / "train-1.parquet", [pair("b")])
    write(tmp_path / "one" / "val.parquet", [pair("c")])
    d = write(tmp_path / "tasks" / "maze" / "train.parquet", [pair("d")])
    e = write(tmp_path / "tasks" / "chart" / "train.parquet", [pair("e")])
    write(tmp_path / "tasks" / "deep" / "deeper" / "train.parquet", [pair("f")])
    prompts = {name: f"chart: Q {name}?" for name in "abcde"}
    for paths, names in (
        ([a], "a"),
        ([tmp_path / "one"], "ab"),
        ([tmp_path / "tasks"], "ed"),
        ([tmp_path / "tasks", b, a], "edba"),
        ([tmp_path], "ab"),
    ):
        assert load(*paths).prompts == [prompts[name] for name in names]
    assert load(tmp_path / "one", split="val").prompts == [prompts["c"]]
    assert find_files([str(tmp_path / "tasks")], "train") == [e, d]


def test_a_split_that_is_not_there_says_what_to_run(tmp_path):
    write(tmp_path / "train.parquet", [pair("a")])
    for path, split in ((tmp_path, "val"), (tmp_path / "none", "train")):
        with pytest.raises(ValueError, match=rf"no {split} data at .*python -m data_prep all split={split} out={path}"):
            load(path, split=split)


def test_pairs_of_several_sizes_get_buckets(tmp_path):
    sizes = [(64, 48), (48, 64), (64, 48), (70, 50), (192, 144)]
    data = load(write(tmp_path / "x.parquet", [pair(str(i), *size) for i, size in enumerate(sizes)]))
    assert [target for target, _ in data.sizes] == [(64, 48), (48, 64), (64, 48), (64, 48), (96, 80)]
    plan = data.plan({}, 1, 0)
    assert plan.buckets.tolist() == [0, 1, 0, 0, 2]
    assert plan.costs.tolist() == [2 * 64 * 48] * 4 + [2 * 96 * 80]  # target and condition
    released = load(tmp_path / "x.parquet", sizing=Sizing("released", 96 * 96))
    assert released.sizes[0] == ((64, 48), (1184, 896))


def sideways(image):
    """JPEG bytes that show `image` when turned as their EXIF orientation says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


def test_pictures_of_a_phone_are_upright(tmp_path):
    image = Image.new("RGB", (64, 32), "blue")
    image.paste("red", (0, 0, 32, 32))
    row = pair("a") | {"image": cell(sideways(image)), "edit_image": cell(encode_png(image))}
    data = load(write(tmp_path / "x.parquet", [row, pair("b", 64, 32)]))
    assert data.sizes == [((64, 32), (64, 32))] * 2
    assert data.plan({}, 1, 0).buckets.tolist() == [0, 0]
    batch = loader(data, 1).read([0], [0])
    for picture in (batch.conditions[0], batch.targets[0]):
        assert picture.pixels.shape == (3, 32, 64)
        assert (picture.pixels.permute(1, 2, 0).float() - torch.from_numpy(np.array(image))).abs().mean() < 4


def test_rows_of_a_file_in_several_row_groups_are_numbered_right(tmp_path):
    rows = [pair(str(i)) for i in range(10)]
    rows[4]["edit_image"] = None
    data = load(write(tmp_path / "x.parquet", rows[:7]), write(tmp_path / "y.parquet", rows[7:]), bad_rows="skip")
    assert [data.row(index)["id"] for index in range(len(data))] == list("012356789")
    assert [prompt[-2:-1] for prompt in data.prompts] == list("012356789")


# ------------------------------------------------------------------------------------------------------ bad rows

BAD = {
    "not an image": ({"image": cell(b"<html>")}, "not an image"),
    "no header": ({"edit_image": cell(encode_png(noisy(64, 48))[:20])}, "not a"),
    "no edit": ({"edit_image": None}, "has no edit_image to learn from"),
    "no bytes": ({"image": cell(None)}, "must be embedded as bytes"),
    "empty bytes": ({"image": cell(b"")}, "must be embedded as bytes"),
    "a path only": ({"edit_image": {"bytes": None, "path": "edit.png"}}, "must be embedded as bytes"),
    "another size": ({"edit_image": cell(encode_png(noisy(48, 64)))}, r"\(48, 64\), source is \(64, 48\)"),
    "unknown family": ({"family": "charts"}, "unknown task family 'charts'"),
    "empty question": ({"question": " "}, "question must be a non-empty text"),
    "no question": ({"question": None}, "question is missing"),
    "no JSON": ({"meta": "{"}, "bad row 'bad'"),
    "no object": ({"meta": "[1]"}, "meta must be a JSON object"),
    "bomb": ({"image": cell(bomb())}, r"30000x30000 pixels; at most|exceeds limit"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_row_that_is_bad_by_its_header_stops_or_is_counted(tmp_path, case):
    changes, reason = BAD[case]
    path = write(tmp_path / "x.parquet", [pair("a"), pair("bad") | changes, pair("b")])
    with pytest.raises(ValueError, match=reason) as caught:
        load(path)
    said = str(caught.value)
    assert "row 'bad'" in said
    assert said.endswith(SKIP)
    assert "\n" not in said
    data = load(path, bad_rows="skip")
    assert (len(data), data.num_skipped) == (2, 1)
    assert [data.row(index)["id"] for index in range(2)] == ["a", "b"]


def test_nothing_but_bad_rows_is_one_sentence(tmp_path):
    path = write(tmp_path / "x.parquet", [pair("a") | {"edit_image": None}, pair("b") | {"question": None}])
    with pytest.raises(ValueError, match=r"none of the 2 rows in .*x\.parquet can be used"):
        load(path, bad_rows="skip")


def test_instructions_are_prompts_where_they_are_asked_for(tmp_path):
    rows = [pair("a", instruction="Draw a box."), pair("b"), pair("c", instruction=" "), pair("d", instruction=7)]
    path = write(tmp_path / "x.parquet", rows)
    with pytest.raises(ValueError, match=r"row 'b' has no instruction in its meta; use data\.prompt=question"):
        load(path, kind="instruction")
    data = load(path, kind="instruction", bad_rows="skip")
    assert (data.prompts, data.num_skipped) == (["Draw a box."], 3)


@pytest.fixture
def truncated(tmp_path):
    """Six pairs, of which "bad" has a good header and half of its pixels."""
    rows = [pair(name) for name in ("a", "b", "bad", "c", "d", "e")]
    rows[2]["edit_image"]["bytes"] = rows[2]["edit_image"]["bytes"][:4000]
    return write(tmp_path / "x.parquet", rows)


def test_a_truncated_picture_stops_when_it_is_read(truncated):
    data = load(truncated)
    assert len(data) == 6
    with pytest.raises(ValueError, match=rf"^bad row 'bad': not a readable image \(.*\); {SKIP}$"):
        loader(data).read([1, 2], [0, 1])
    assert loader(data).read([0, 1], [0, 1]).failures == []


def test_a_truncated_picture_stands_in_and_its_neighbours_are_unharmed(truncated):
    data = load(truncated, bad_rows="skip")
    assert data.num_skipped == 0
    batch = loader(data).read([1, 2, 3], [5, 6, 7])
    assert batch.counts == [True, False, True]
    assert len(batch.failures) == 1
    assert "bad row 'bad': not a readable image" in batch.failures[0]
    assert batch.positions == [5, 6, 7]
    alone = loader(data).read([1], [5])
    assert torch.equal(alone.targets[0].pixels, batch.targets[0].pixels)
    assert torch.equal(alone.conditions[0].pixels, batch.conditions[0].pixels)
    assert batch.conditions[1].pixels.shape == batch.conditions[2].pixels.shape == (3, 48, 64)
    assert not batch.targets[1].pixels.any()
    assert batch.targets[1].key == batch.conditions[1].key == ""  # never cached


# ---------------------------------------------------------------------------------------------------------- plans


def test_plans_that_cannot_be_are_one_sentence(pairs):
    data = load(pairs)
    with pytest.raises(ValueError, match=r"data\.weights names \['charts'\]; the data hold: chart, perception"):
        data.plan({"charts": 2.0, "chart": 1.0}, 4, 0)
    with pytest.raises(ValueError, match=r"24 samples are fewer than batch_size=25"):
        data.plan({}, 25, 0)
    with pytest.raises(ValueError, match=r"12 samples are fewer than batch_size=13"):
        data.plan({"chart": 0.0}, 13, 0)
    assert data.plan({"chart": 0.0}, 12, 0).batches_per_epoch == 1
    assert data.plan({"chart": 2.0}, 36, 0).batches_per_epoch == 1


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_all_processes_together_read_exactly_the_global_batch(pairs, num_processes):
    data = load(pairs)
    loaders = [loader(data, 8, rank, num_processes, batch_size=2, seed=1) for rank in range(num_processes)]
    for step in (0, 1, 2, 3, 7):  # three steps are an epoch
        batches = [each[step] for each in loaders]
        assert len({len(mine) for mine in batches}) == 1
        counted = [
            (position, prompt)
            for mine in batches
            for batch in mine
            for position, prompt, counts in zip(batch.positions, batch.prompts, batch.counts, strict=True)
            if counts
        ]
        rows = loaders[0].plan.batch(step)
        assert sorted(counted) == [(position, data.prompts[row]) for position, row in enumerate(rows)]
        for batch in (batch for mine in batches for batch in mine):
            assert len(batch.positions) <= 2
            assert {data.sizes[rows[position]] for position in batch.positions} == {batch.sizes}
            for pictures, (width, height) in zip((batch.targets, batch.conditions), batch.sizes, strict=True):
                assert {picture.pixels.shape for picture in pictures} == {(3, height, width)}


def test_every_pair_comes_once_in_an_epoch_and_again_in_the_next(pairs):
    each = loader(load(pairs), 8)
    for epoch in (0, 1):
        rows = Counter(row for step in range(3) for row in each.plan.batch(3 * epoch + step).tolist())
        assert rows == Counter(range(24))
    assert not np.array_equal(each.plan.batch(0), each.plan.batch(3))
    assert np.array_equal(each.plan.batch(1), loader(load(pairs), 8).plan.batch(1))  # also after the other epoch


def test_a_process_with_fewer_forwards_gets_one_that_does_not_count(tmp_path):
    """Of four pairs in two sizes, 1 + 3, one of two processes needs two forwards, the other one."""
    rows = [pair("a", 96, 96), *(pair(name) for name in "bcd")]
    data = load(write(tmp_path / "x.parquet", rows))
    shares = [loader(data, 4, rank, 2, batch_size=2)[0] for rank in (0, 1)]
    assert [len(mine) for mine in shares] == [2, 2]
    idle = [batch for mine in shares for batch in mine if not any(batch.counts)]
    assert len(idle) == 1
    assert idle[0].counts == [False]
    assert idle[0].failures == []
    assert idle[0].targets[0].pixels.any()  # a real pair: its loss is finite and multiplied by 0


def test_a_stand_in_does_not_report_a_failure_twice(truncated):
    batch = loader(load(truncated, bad_rows="skip")).read([2], [0], count=False)
    assert (batch.counts, batch.failures) == ([False], [])


# -------------------------------------------------------------------------------------------------------- workers


def through_workers(each, steps, num_workers):
    return list(torch.utils.data.DataLoader(each, batch_size=None, sampler=steps, num_workers=num_workers))


def test_workers_give_the_same_as_the_main_process(pairs):
    each = loader(load(pairs), 8, batch_size=4)
    plain, worked = through_workers(each, range(4), 0), through_workers(each, range(4), 1)
    assert len(plain) == len(worked) == 4
    for left, right in zip(plain, worked, strict=True):
        assert [(b.positions, b.prompts, b.sizes, b.counts) for b in left] == [
            (b.positions, b.prompts, b.sizes, b.counts) for b in right
        ]
        for one, other in zip(left, right, strict=True):
            pictures = zip(one.targets + one.conditions, other.targets + other.conditions, strict=True)
            assert all(a.key == b.key and torch.equal(a.pixels, b.pixels) for a, b in pictures)


@pytest.mark.parametrize("bad_rows", ["stop", "skip"])
def test_a_broken_row_in_a_worker_is_still_one_sentence(truncated, bad_rows):
    """torch would put a traceback round an error there, so the sentence travels with the batch."""
    (batches,) = through_workers(loader(load(truncated, bad_rows=bad_rows), 6, batch_size=6), [0], 1)
    (batch,) = batches
    assert sum(batch.counts) == 5
    (said,) = batch.failures
    assert said.startswith("bad row 'bad': not a readable image")
    assert "\n" not in said


# ---------------------------------------------------------------------------------------------------------- cache


def test_pictures_in_the_cache_are_not_decoded(truncated):
    data, cache = load(truncated), MemoryCache()
    each = loader(data, cache=cache)
    first = each.read([0], [0])
    cache.put(first.targets[0].key, torch.ones(12, 4))
    again = each.read([0], [0])
    assert torch.equal(again.targets[0].tokens, torch.ones(12, 4))
    assert again.conditions[0].tokens is None
    assert again.conditions[0].pixels is not None  # one of two is not enough
    cache.put(first.conditions[0].key, torch.zeros(12, 4))
    both = each.read([0], [0])
    assert both.targets[0].pixels is None
    assert both.conditions[0].pixels is None
    assert both.counts == [True]


def test_keys_tell_content_size_and_way_apart(tmp_path):
    same = pair("a", 128, 128)
    same["edit_image"] = same["image"]
    path = write(tmp_path / "x.parquet", [same, pair("b", 128, 128)])

    def keys(sizing, index=0):
        batch = loader(load(path, sizing=sizing), 1, sizing=sizing).read([index], [0])
        return batch.targets[0].key, batch.conditions[0].key

    sizings = [Sizing("native", 96 * 96), Sizing("native", 64 * 64), Sizing("released", 96 * 96)]
    seen = [key for sizing in sizings for index in (0, 1) for key in keys(sizing, index)]
    assert len(set(seen)) == len(seen) == 12
    assert keys(sizings[0]) == keys(sizings[0])


def test_a_released_condition_that_went_through_another_size_has_another_key(tmp_path):
    """It is 1024 x 1024 both times, but once enlarged from 64 x 64 and once from 96 x 96."""
    path = write(tmp_path / "x.parquet", [pair("a", 96, 96)])
    small, large = (
        loader(load(path, sizing=sizing), 1, sizing=sizing).read([0], [0]).conditions[0]
        for sizing in (Sizing("released", 64 * 64), Sizing("released", 96 * 96))
    )
    assert small.pixels.shape == large.pixels.shape == (3, 1024, 1024)
    assert not torch.equal(small.pixels, large.pixels)
    assert small.key != large.key


def test_the_parquet_of_other_writers_is_read(tmp_path):
    """Plain binary pictures and large strings, as polars writes them."""
    row = pair("a")
    columns = {
        name: pa.array([row[name]], pa.large_string()) for name in ("id", "family", "task", "question", "answer")
    }
    columns |= {name: pa.array([row[name]["bytes"]], pa.binary()) for name in ("image", "edit_image")}
    columns |= {"meta": pa.array([json.dumps({"a": 1})]), "choices": pa.array([[]], pa.list_(pa.string()))}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    data = load(tmp_path / "x.parquet")
    assert data.sizes == [((64, 48), (64, 48))]
    assert loader(data, 1).read([0], [0]).targets[0].pixels.shape == (3, 48, 64)
