"""RefChartQA rows: boxes, labels, row groups, splits, and rows that must be refused without harm."""

import hashlib
import random
import re

import numpy as np
import pytest

from data_prep.sources.build import build
from data_prep.sources.refchartqa import RefChartQA, RefChartQAConfig
from etchr.boxes import RED
from etchr.families import TaskFamily
from etchr.mllm.answers import extract_answer, ground_truth, is_correct
from etchr.sample import read_parquet
from tests.data_prep.sources.fixtures_boxes import chart, picture, refused, write_charts


def options(root, **more):
    out = {"out": str(root / "out"), "processes": 1, "part_size": 50, "val_share": 0.0}
    return RefChartQAConfig(root=str(root), **{**out, **more})


def sample_of(source, index):
    (sample,) = source.samples(index, random.Random(0))
    return sample


def only(root, row, **more):
    return sample_of(RefChartQA(options(write_charts(root, [row]), **more)), 0)


def test_a_row_becomes_a_question_with_a_frame_round_each_element(tmp_path):
    boxes = [{"x": 20.5, "y": 30.25, "w": 25.0, "h": 15.5}, {"x": 70.0, "y": 50.0, "w": 10.0, "h": 10.0}]
    row = chart(4, grounding_bboxes=[*boxes, boxes[0]])
    sample = only(tmp_path, row)
    assert (sample.id, sample.family, sample.task) == ("refchartqa-0000000", TaskFamily.CHART, "refchartqa")
    assert (sample.question, sample.answer) == ("What is the value of bar 4?", "45")
    meta = sample.meta
    assert meta["boxes"] == [[20, 30, 26, 16], [70, 50, 10, 10]]
    assert (meta["original_id"], meta["type"], meta["source_split"]) == ("RefChartQA_human_train_4", "human", "train")
    assert (meta["answer_type"], meta["source"]) == ("number", "RefChartQA")
    assert "AGPL-3.0" in meta["licence"]
    assert meta["picture"] == hashlib.sha256(row["image"]["bytes"]).hexdigest()
    changed = (np.asarray(sample.image) != np.asarray(sample.edit_image)).any(-1)
    assert (np.asarray(sample.edit_image)[changed] == RED).all()
    assert changed.sum() == (30 * 20 - 26 * 16) + (14 * 14 - 10 * 10)  # lines of 2 px


@pytest.mark.parametrize(
    ("label", "answer", "kind"),
    [
        ("2019", "2019", "number"),
        (" -3.5 ", "-3.5", "number"),
        ("1,234,567.8", "1,234,567.8", "number"),
        ("45%", "45%", "number"),
        ("$5", "$5", "number"),
        ("-$5", "-$5", "text"),
        ("+5", "+5", "number"),
        ("12,34", "12,34", "text"),
        ("2-3", "2-3", "text"),
        ("[2015, 2016]", "[2015, 2016]", "text"),
        ("Yes", "Yes", "text"),
        (["7"], "7", "number"),
        (["Norway", "Chad"], "Norway, Chad", "text"),
    ],
)
def test_labels_are_texts_or_lists_and_numbers_where_the_graders_read_one(tmp_path, label, answer, kind):
    sample = only(tmp_path, chart(label=label))
    assert (sample.answer, sample.meta["answer_type"]) == (answer, kind)
    assert ground_truth(sample)
    if kind == "number":
        assert float(ground_truth(sample)) == float(answer.strip("$%").replace(",", ""))


def test_rows_are_found_across_files_and_row_groups_in_any_order(tmp_path):
    rows = [
        chart(number, data=picture(number % 4), type=("human", "machine", "pot")[number % 3]) for number in range(11)
    ]
    write_charts(tmp_path, rows[:5], rows[5:6], rows[6:], group=2)
    write_charts(tmp_path, [chart(90)], split="test")
    source = RefChartQA(options(tmp_path))
    order = list(range(11))
    random.Random(1).shuffle(order)
    for index in order:
        assert sample_of(source, index).question == rows[index]["query"]
        assert source.key(index) == hashlib.sha256(picture(index % 4)).hexdigest()
    assert len(source) == 11
    chosen = RefChartQA(options(tmp_path, types=["pot", "machine"]))
    assert [sample_of(chosen, index).question for index in range(len(chosen))] == [
        row["query"] for row in rows if row["type"] != "human"
    ]
    assert sample_of(RefChartQA(options(tmp_path, source_split="test")), 0).meta["source_split"] == "test"
    assert chosen.identity() != source.identity() == RefChartQA(options(tmp_path)).identity()


def test_row_groups_are_opened_once_and_not_read_whole(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    source = RefChartQA(options(write_charts(tmp_path, [chart(number) for number in range(7)], group=3)))
    groups, read = [], pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda self, *sizes, **more: groups.extend(more["row_groups"]) or read(self, *sizes, **more),
    )
    monkeypatch.delattr(pq.ParquetFile, "read_row_group")
    for index in range(7):
        source.key(index)
        sample_of(source, index)
    assert groups == [0, 1, 2]


def test_another_id_is_another_build_though_the_file_is_as_long(tmp_path):
    rows = [chart(number) for number in range(4)]
    sources = [RefChartQA(options(write_charts(tmp_path / name, rows, group=2))) for name in "ab"]
    assert sources[0].identity() == sources[1].identity()
    swapped = [row | {"id": other["id"]} for row, other in zip(rows, rows[::-1], strict=True)]
    other = RefChartQA(options(write_charts(tmp_path / "c", swapped, group=2)))
    sizes = [next((tmp_path / name / "data").iterdir()).stat().st_size for name in "ac"]
    assert sizes[0] == sizes[1]
    assert other.identity() != sources[0].identity()


def test_a_cell_that_cannot_be_read_refuses_its_row_alone(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = next((write_charts(tmp_path, [chart(0), chart(1), chart(2)]) / "data").iterdir())
    table = pq.read_table(path)
    broken = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.array([0, 4, 8, 12], pa.int32()).buffers()[1], pa.py_buffer(b"id_0id\xff1id_2")]
    )
    labels = pa.array([2**62, 0, 0], pa.timestamp("ms"))
    for column, cells, bad in (("id", broken, 1), ("label", labels, 0)):
        where = table.schema.get_field_index(column)
        pq.write_table(table.set_column(where, column, cells), path)
        source = RefChartQA(options(tmp_path))
        assert len(source) == 3
        with pytest.raises(ValueError, match=f"column {column} of the row cannot be read"):
            source.key(bad)
        assert source.key(2) == hashlib.sha256(picture(2)).hexdigest()


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        ("51.666666666666664", "51.67"),
        ("-51.666666666666664", "-51.67"),
        ("0.30000000000000004", "0.3"),
        ("0.016666666666666666", "0.0167"),
        ("0.00001234567", "0.0000123"),
        ("2.0000000000000004", "2"),
        ("1234567.891234567", "1234567.89"),
        ("0.0625", "0.0625"),
        ("12", "12"),
    ],
)
def test_results_of_programs_are_rounded_to_what_a_reader_gives(tmp_path, label, answer):
    sample = only(tmp_path, chart(label=label, type="pot"))
    assert (sample.answer, sample.meta["label"], sample.meta["answer_type"]) == (answer, label, "number")
    assert is_correct(extract_answer(f"\\boxed{{{answer}}}", "number"), sample)
    assert float(answer) == pytest.approx(float(label), rel=5e-3)
    assert only(tmp_path / "human", chart(label=label)).answer == label


def test_the_parquet_files_may_lie_in_the_root_itself(tmp_path):
    write_charts(tmp_path, [chart(1)])
    assert len(RefChartQA(options(tmp_path / "data"))) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"query": None}, "query is missing"),
        ({"query": " "}, "query is empty"),
        ({"label": None}, "label is missing"),
        ({"label": []}, "label is empty"),
        ({"label": ["a", None]}, "label is missing"),
        ({"id": None}, "id is missing"),
        ({"type": "robot"}, "type='robot'"),
        ({"grounding_bboxes": []}, "no boxes"),
        ({"grounding_bboxes": None}, "no boxes"),
        ({"grounding_bboxes": [{"x": float("nan"), "y": 1, "w": 2, "h": 3}]}, "holds nan"),
        ({"grounding_bboxes": [{"x": 1, "y": 1, "w": -2, "h": 3}]}, "no area"),
        ({"grounding_bboxes": [{"x": 1, "y": 1, "w": None, "h": 3}]}, "holds None"),
        ({"grounding_bboxes": [None]}, "box None"),
        ({"grounding_bboxes": [{"x": 300, "y": 1, "w": 2, "h": 3}]}, "lies outside"),
        ({"grounding_bboxes": [{"x": 1, "y": 1, "w": 2, "h": 3}] * 21}, "21 boxes; at most 20"),
        ({"image": None}, "not embedded as bytes"),
        ({"image": {"bytes": None, "path": "/etc/passwd"}}, "not embedded as bytes"),
        ({"image": {"bytes": b"GIF89a", "path": None}}, "not"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, change, reason):
    with pytest.raises(ValueError, match=reason):
        only(tmp_path, chart() | change)


def test_boxes_that_reach_outside_are_cut_or_refused(tmp_path):
    row = chart(grounding_bboxes=[{"x": 100, "y": 30, "w": 30, "h": 20}])
    assert only(tmp_path, row).meta["boxes"] == [[100, 30, 20, 20]]
    with pytest.raises(ValueError, match="reaches 10 px outside"):
        only(tmp_path, row, outside="refuse")


def test_wrong_folders_files_columns_and_options_say_what_to_do(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(ValueError, match=r"no train\*.parquet in .*hf download omoured/RefChartQA"):
        RefChartQA(options(tmp_path))
    path = tmp_path / "train-0.parquet"
    path.write_bytes(b"PAR1 cut")
    with pytest.raises(ValueError, match="not a whole Parquet file"):
        RefChartQA(options(tmp_path))
    pq.write_table(pa.table({"imgname": ["a"], "query": ["b"]}), path)
    with pytest.raises(ValueError, match=r"columns seen: imgname \(string\), query \(string\)"):
        RefChartQA(options(tmp_path))
    text = pa.array(["a"])
    table = {"id": text, "image": text, "query": text, "label": text, "type": text, "grounding_bboxes": text}
    pq.write_table(pa.table(table), path)
    with pytest.raises(ValueError, match=r"image \(string\)"):
        RefChartQA(options(tmp_path))
    for wrong in ({"source_split": "val"}, {"types": []}, {"types": ["men"]}, {"outside": "keep"}, {"max_boxes": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            options(tmp_path, **wrong)


def test_a_build_of_hostile_rows_keeps_the_good_ones_and_writes_nowhere_else(tmp_path):
    import io

    from PIL import Image

    thin = io.BytesIO()
    Image.new("RGB", (1, 20_000)).save(thin, "PNG")
    hostile = [
        (chart(0), "id 'RefChartQA_human_train_0' occurs a second time"),
        (chart(11, image={"bytes": None, "path": "../../secret.png"}), "not embedded"),
        (chart(12, image={"bytes": b"", "path": "/etc/passwd"}), "not embedded"),
        (chart(13, data=picture(kind="JPEG")[:900]), "not a readable image"),
        (chart(14, data=thin.getvalue()), "1x20000 px is too small"),
        (chart(15, query="x" * 10_000_000), "query has 10,000,000 characters"),
        (chart(16, query=None), "query is missing"),
        (chart(17, grounding_bboxes=[{"x": 1, "y": float("inf"), "w": 2, "h": 3}]), "holds inf"),
        (chart(18, type="robot"), "robot"),
    ]
    good = [chart(number, image={"bytes": picture(1), "path": "../../evil.png"}) for number in (0, 1, 2)]
    rows = [*good, *(row for row, _ in hostile), chart(30)]
    root = write_charts(tmp_path / "charts", rows[:8], rows[8:], group=4)
    before = set(tmp_path.rglob("*"))
    assert build(RefChartQA, options(root, out=str(tmp_path / "made"))) == {"chart": 4}
    reasons = refused(tmp_path / "made", "refchartqa")
    assert sorted(reasons) == list(range(3, 3 + len(hostile)))
    for index, (_, reason) in enumerate(hostile, start=3):
        assert re.search(reason, reasons[index]), reasons[index]
    assert all(path.is_relative_to(tmp_path / "made") for path in set(tmp_path.rglob("*")) - before)
    back = list(read_parquet(tmp_path / "made" / "refchartqa", "train"))
    assert [sample.question for sample in back] == [row["query"] for row in (*good, chart(30))]
    assert len({sample.id for sample in back}) == 4
    build(RefChartQA, options(root, out=str(tmp_path / "again")))
    files = [tmp_path / out / "refchartqa" / "train-00000.parquet" for out in ("made", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_questions_on_one_chart_share_a_split(tmp_path):
    rows = [chart(number, data=picture(number // 3, (40, 40)), grounding_bboxes=[{"x": 9, "y": 9, "w": 9, "h": 9}])
            for number in range(36)]  # fmt: skip
    write_charts(tmp_path, rows, group=9)
    found = {}
    for split in ("train", "val"):
        build(RefChartQA, options(tmp_path, split=split, val_share=0.4))
        found[split] = {sample.meta["picture"] for sample in read_parquet(tmp_path / "out" / "refchartqa", split)}
    assert not found["train"] & found["val"]
    assert found["train"] | found["val"] == {hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in rows}
    assert min(map(len, found.values())) > 1
