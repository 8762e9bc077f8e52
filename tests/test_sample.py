"""`EditSample` on disk: what is written is read, and what does not fit is one clear sentence."""

import io
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from etchr.families import TaskFamily
from etchr.images import encode_png, peek_image
from etchr.sample import EditSample, features, from_row, read_parquet, to_row, write_parquet

PICTURE = Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 50).convert("RGB")
EDIT = Image.new("RGB", (64, 64), "red")
FULL = EditSample(
    "a-1",
    TaskFamily.CHART,
    "chart",
    PICTURE,
    "Wie groß? ↑\u2028",
    "B",
    ("one", "two"),
    EDIT,
    {"box": [1, 2], "ß": None},
)
BARE = EditSample("a-2", TaskFamily.LOGIC, "maze", PICTURE, "Where?", "D,R")


def row(**changes):
    return to_row(FULL) | changes


def same(left, right):
    assert (left.image.tobytes(), left.edit_image and left.edit_image.tobytes()) == (
        right.image.tobytes(),
        right.edit_image and right.edit_image.tobytes(),
    )
    for name in ("id", "family", "task", "question", "answer", "choices", "meta"):
        assert getattr(left, name) == getattr(right, name)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new" / "test.parquet"
    assert write_parquet([FULL, BARE], path) == 2
    assert [file.name for file in path.parent.iterdir()] == ["test.parquet"]
    samples = read_parquet(path)
    assert len(samples) == 2
    for sample, original in zip(samples, (FULL, BARE), strict=True):
        same(sample, original)
    same(samples[1], BARE)


def test_more_rows_than_one_batch_of_the_writer(tmp_path):
    def many():
        for i in range(300):
            yield EditSample(str(i), TaskFamily.LOGIC, "maze", EDIT, "q", "a")

    assert write_parquet(many(), tmp_path / "x.parquet") == 300
    assert [sample.id for sample in read_parquet(tmp_path / "x.parquet")] == [str(i) for i in range(300)]


def test_a_writer_that_fails_leaves_no_file_that_looks_whole(tmp_path):
    def broken():
        yield FULL
        raise RuntimeError("out of ideas")

    with pytest.raises(RuntimeError):
        write_parquet(broken(), tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_a_folder_is_read_by_split(tmp_path):
    write_parquet([FULL], tmp_path / "train.parquet")
    write_parquet([BARE], tmp_path / "test.parquet")
    assert [sample.id for sample in read_parquet(tmp_path)] == ["a-2", "a-1"]
    assert [sample.id for sample in read_parquet(tmp_path, "train")] == ["a-1"]


def test_equal_samples_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_parquet([FULL, BARE], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"answer": math.nan}, r"answer is missing \(got nan\)"),
        ({"answer": None}, r"answer is missing \(got None\)"),
        ({"answer": "  "}, "answer must be a non-empty text"),
        ({"question": ""}, "question must be a non-empty text"),
        ({"family": "charts"}, "unknown task family 'charts'; known: perception, chart, logic, jigsaw, view3d"),
        ({"image": {"bytes": b"no picture", "path": None}}, "not an image"),
        ({"image": {"bytes": encode_png(PICTURE)[:-900], "path": None}}, "not a readable image"),
        ({"image": {"bytes": None, "path": "/etc/hostname"}}, "an image must be embedded as bytes"),
        ({"image": None}, "an image must be embedded as bytes"),
        ({"edit_image": {"bytes": None, "path": "/etc/hostname"}}, "an image must be embedded as bytes"),
        ({"edit_image": {"bytes": encode_png(EDIT.resize((32, 64))), "path": None}}, "they must align"),
        ({"choices": ["one", None]}, "choices must be texts"),
        ({"meta": "[1]"}, "meta must be a JSON object, got list"),
        ({"meta": "{"}, "bad row 'a-1'"),
        ({"meta": "[" * 100_000}, "bad row 'a-1'"),
        ({"meta": '{"note": "' + "x" * 10**6 + '"}'}, "meta has 1,000,012 characters; at most 1,000,000 are read"),
        ({"meta": '{"category": ["a"]}'}, r"meta.category must be a text, got \['a'\]"),
        ({"meta": '{"cluster": 0.5}'}, "meta.cluster must be a text, got 0.5"),
        ({"meta": '{"category": "' + "x" * 2000 + '"}'}, "meta.category has 2,000 characters"),
        ({"meta": '{"path_length": NaN}'}, "meta holds NaN, which is no JSON"),
        ({"meta": '{"path_length": 3.0}'}, "meta.path_length must be a whole number from 0 up, got 3.0"),
        ({"meta": '{"edit_question": 3}'}, "meta.edit_question must be a text, got 3"),
        (
            {"meta": '{"pairs": {"question": "?"}}'},
            "meta.pairs must list questions with answer, answer_type and choices",
        ),
        ({"meta": '{"pairs": [{"question": "?", "answer": "1", "answer_type": "number"}]}'}, "meta.pairs must list"),
        (
            {"meta": '{"pairs": [{"question": "?", "answer": 1, "answer_type": "number", "choices": null}]}'},
            "meta.pairs must list",
        ),
        (
            {"meta": '{"pairs": [{"question": "?", "answer": "A", "answer_type": "option", "choices": ["", "b"]}]}'},
            "meta.pairs must list",
        ),
        ({"meta": '{"depth": -1}'}, "meta.depth must be a whole number from 0 up, got -1"),
        ({"question": "?" * 20_001}, "question has 20,001 characters; at most 20,000 are read"),
        ({"answer": "7" * 20_001}, "answer has 20,001 characters"),
        ({"choices": ["one", "2" * 20_001]}, "a choice has 20,001 characters"),
        ({"task": "t" * 1_001}, "task has 1,001 characters; at most 1,000 are read"),
    ],
)
def test_a_bad_row_is_one_sentence_that_names_it(changes, match):
    with pytest.raises(ValueError, match=match) as caught:
        from_row(row(**changes))
    assert str(caught.value).startswith("bad row 'a-1': ")
    assert "\n" not in str(caught.value)


def test_a_row_without_a_column_is_bad():
    for name in ("id", "family", "task", "image", "question", "answer"):
        with pytest.raises(ValueError, match=f"{name}|bad row 'a-1'"):
            from_row({key: value for key, value in row().items() if key != name})


@pytest.mark.parametrize("edit", [None, {"bytes": None, "path": None}])
def test_no_edit_comes_in_two_forms(edit):
    assert from_row(row(edit_image=edit)).edit_image is None


def peek(data):
    return peek_image(io.BytesIO(data))


def test_a_row_is_checked_by_headers_alone():
    sample = from_row(row(), peek)
    assert sample.edit_image is not None
    assert (sample.image.size, sample.edit_image.size) == ((64, 64), (64, 64))
    full = from_row(row())
    for name in ("id", "family", "task", "question", "answer", "choices", "meta"):
        assert getattr(sample, name) == getattr(full, name)
    cut = {"bytes": encode_png(PICTURE)[:-900], "path": None}
    assert from_row(row(image=cut), peek).image.size == (64, 64)  # damaged pixels go unnoticed
    assert from_row(row(edit_image=None), peek).edit_image is None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"image": {"bytes": b"no picture", "path": None}}, "not an image"),
        ({"image": {"bytes": None, "path": "picture.png"}}, "an image must be embedded as bytes"),
        ({"edit_image": {"bytes": encode_png(EDIT.resize((32, 64))), "path": None}}, "they must align"),
        ({"family": "charts"}, "unknown task family"),
    ],
)
def test_headers_show_what_is_wrong_with_a_row(changes, match):
    with pytest.raises(ValueError, match=match) as caught:
        from_row(row(**changes), peek)
    assert str(caught.value).startswith("bad row 'a-1': ")


# -------------------------------------------------------------------------------------------------------- files


def write(path, rows, schema=None):
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


def refused(path):
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_parquet(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    return said


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    rows = [{key: value for key, value in row().items() if key not in ("answer", "meta")}]
    said = refused(write(tmp_path / "x.parquet", rows))
    assert "columns ['answer', 'meta'] are missing, it has ['id', 'family'" in said


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"answer": math.nan}, "column answer holds double, not text"),  # as text it would be the answer "nan"
        ({"answer": 7}, "column answer holds int64, not text"),
        ({"meta": {"a": 1}}, "column meta holds struct<a: int64>, not text"),
        ({"choices": "A, B"}, "cast"),
        ({"image": 3}, "cast"),
    ],
)
def test_a_wrong_schema_is_named(tmp_path, changes, match):
    assert match in refused(write(tmp_path / "x.parquet", [row(**changes)]))


def test_what_is_no_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    for data in (b"", b"hello, world", b"PAR1" * 20):
        path.write_bytes(data)
        assert "is not a Parquet file" in refused(path)
    write_parquet([FULL] * 20, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is not a Parquet file" in refused(path)
    path.write_bytes(whole[:40] + b"\xff" * 400 + whole[440:])
    assert "is damaged" in refused(path)


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match=r"no Parquet data at .*; make some with: python -m data_prep"):
        read_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="no Parquet data"):
        read_parquet(tmp_path)
    assert refused(write(tmp_path / "x.parquet", [], features().arrow_schema)).endswith("holds no samples")


def test_a_path_in_a_row_is_never_opened(tmp_path):
    """Not even one that leads to a picture: a data set could otherwise read the reader's files."""
    EDIT.save(tmp_path / "private.png")
    path = str(tmp_path / "private.png")
    for cell in ({"bytes": None, "path": path}, path):
        samples = read_parquet(write(tmp_path / "x.parquet", [row(image=cell)]))
        with pytest.raises(ValueError, match="bad row 'a-1': an image must be embedded as bytes"):
            samples[0]
    samples = read_parquet(write(tmp_path / "x.parquet", [row(image={"bytes": encode_png(PICTURE), "path": path})]))
    assert samples[0].image.tobytes() == PICTURE.tobytes()


def test_text_columns_of_other_writers_are_read(tmp_path):
    """Large strings, as polars writes them, missing meta, plain binary pictures."""
    rows = [row(meta=None, image=encode_png(PICTURE), edit_image=None)]
    schema = pa.schema(
        [(name, pa.large_string()) for name in ("id", "family", "task", "question", "answer", "meta")]
        + [("image", pa.binary()), ("edit_image", pa.null()), ("choices", pa.list_(pa.string())), ("more", pa.int8())]
    )
    sample = read_parquet(write(tmp_path / "x.parquet", rows, schema))[0]
    assert (sample.meta, sample.edit_image, sample.choices) == ({}, None, ("one", "two"))
    assert json.loads(to_row(sample)["meta"]) == {}
