"""Parquet files are read as they are stored: nothing that they name is opened, and every way to hold bytes is read."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.sources.columns import Rows, WantedColumns, find_layout, schema_of
from data_prep.sources.released import pictures
from etchr.families import TaskFamily
from etchr.images import encode_png
from etchr.parquet import class_names, open_parquet, read_schema
from etchr.sample import EditSample, features, read_parquet, to_row
from evaluation.benchmarks.files import ParquetRows


def make_sample():
    return EditSample("a", TaskFamily.CHART, "bars", Image.new("RGB", (8, 6), "red"), "What?", "4")


def test_what_a_file_says_of_its_cells_opens_no_file_and_fetches_nothing(tmp_path):
    """`datasets` decodes by notes in the file: a path in a cell would be opened, a URL fetched, outside all limits."""
    (tmp_path / "private.png").write_bytes(encode_png(make_sample().image))
    image, audio = datasets.Image(), datasets.Audio()
    for label in (str(tmp_path / "private.png"), "http://127.0.0.1:9/image.png"):
        cell = {"bytes": None, "path": label}
        cases = {
            "top": (image, cell),
            "struct": ({"inner": image}, {"inner": cell}),
            "list": (datasets.List(image), [cell]),
            "list of structs": (datasets.List({"inner": image}), [{"inner": cell}]),
            "list of lists": (datasets.List(datasets.List(image)), [[cell]]),
            "large list": (datasets.LargeList(image), [cell]),
            "audio": (audio, cell),
            "audio in a list": (datasets.List(audio), [cell]),
        }
        schema = datasets.Features({name: kind for name, (kind, _) in cases.items()}).arrow_schema
        wanted = {name: value for name, (_, value) in cases.items()}
        pq.write_table(pa.Table.from_pylist([wanted], schema=schema), tmp_path / "rows.parquet")
        rows = ParquetRows([tmp_path / "rows.parquet"])
        assert rows[0] == wanted
        assert {name: rows.column(name)[0] for name in rows.columns} == wanted


def test_the_project_s_own_schema_is_read_whatever_the_file_notes(tmp_path):
    sample = make_sample()
    plain = pa.Table.from_pylist([to_row(sample)], schema=features().arrow_schema)
    for note in (
        {"info": {"features": {"image": {"_type": "NoSuchType"}}}},
        {"info": {"features": {"question": {"_type": "Image", "decode": True}}}},
        {"info": {"features": [1, 2]}},
        {"info": None},
        ["odd"],
        "odd",
    ):
        pq.write_table(plain.replace_schema_metadata({"huggingface": json.dumps(note)}), tmp_path / "val.parquet")
        (read,) = read_parquet(tmp_path / "val.parquet")
        assert (read.id, read.question, read.image.tobytes()) == (sample.id, sample.question, sample.image.tobytes())
        assert class_names(read_schema(tmp_path / "val.parquet")) == {}


def test_labels_of_classes_come_as_their_names(tmp_path):
    kinds = datasets.Features({"kind": datasets.ClassLabel(names=["chart", "maze"])})
    pq.write_table(pa.Table.from_pylist([{"kind": 1}, {"kind": 0}], schema=kinds.arrow_schema), tmp_path / "a.parquet")
    rows = ParquetRows([tmp_path / "a.parquet"])
    assert (rows[0], rows.column("kind")) == ({"kind": "maze"}, ["maze", "chart"])


PLAIN = pa.binary()
WAYS = {
    "dictionary": (pa.dictionary(pa.int32(), PLAIN), lambda data: data),
    "large": (pa.large_binary(), lambda data: data),
    "view": (pa.binary_view(), lambda data: data),
    "list": (pa.list_(PLAIN), lambda data: [data]),
    "list view": (pa.list_view(PLAIN), lambda data: [data]),
    "large list view": (pa.large_list_view(PLAIN), lambda data: [data]),
    "list of a fixed size": (pa.list_(PLAIN, 1), lambda data: [data]),
    "list of lists": (pa.list_(pa.list_(PLAIN)), lambda data: [[data]]),
    "list of dictionaries": (pa.list_(pa.dictionary(pa.int32(), PLAIN)), lambda data: [data]),
    "struct": (pa.struct([("bytes", PLAIN), ("path", pa.string())]), lambda data: {"bytes": data, "path": None}),
    "struct in a list view": (
        pa.list_view(pa.struct([("bytes", pa.dictionary(pa.int32(), PLAIN))])),
        lambda data: [{"bytes": data}],
    ),
}


def test_pictures_are_read_in_whichever_way_their_bytes_are_held(tmp_path):
    for name, (kind, held) in WAYS.items():
        data, path = encode_png(make_sample().image), tmp_path / "rows.parquet"
        texts = {"prompt": pa.array(["What?"] * 2).dictionary_encode(), "answer": pa.array(["A"] * 2, pa.string_view())}
        pq.write_table(pa.table({"source_image": _array([held(data), held(data)], kind), **texts}), path)
        layout = find_layout(schema_of(path), WantedColumns(kind="grpo"))
        assert (layout.source, layout.prompt, layout.answer) == ("source_image", "prompt", "answer"), name
        assert [picture.data for picture in pictures(Rows([path], layout.columns())[1]["source_image"])] == [data], name
        if "list view" in name:  # which `datasets`, the memory map of the benchmarks, does not know
            with pytest.raises(ValueError, match=r"list_view.*write it with plain lists"):
                ParquetRows([path])
            continue
        rows = ParquetRows([path])
        assert rows[1] == {"source_image": held(data), "prompt": "What?", "answer": "A"}, name


def _array(values, kind):
    """An array of a type that Arrow cannot always build from Python values at once."""
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode()
    return pa.array(values, kind)


def test_two_columns_of_one_name_are_one_sentence(tmp_path):
    doubled = pa.table([pa.array(["a"]), pa.array(["b"])], names=["question", "question"])
    pq.write_table(doubled, tmp_path / "rows.parquet")
    row = pa.Table.from_pylist([to_row(make_sample())], schema=features().arrow_schema)
    pq.write_table(row.append_column("question", row["question"]), tmp_path / "val.parquet")
    for read in (
        lambda: ParquetRows([tmp_path / "rows.parquet"]),
        lambda: open_parquet([tmp_path / "rows.parquet"]),
        lambda: read_parquet(tmp_path / "val.parquet"),
        lambda: find_layout(schema_of(tmp_path / "rows.parquet"), WantedColumns()),
    ):
        with pytest.raises(ValueError, match=r"two columns .*name") as caught:
            read()
        assert "\n" not in str(caught.value)
