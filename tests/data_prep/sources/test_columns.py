"""Rows of Parquet files: memory stays small, and damage, odd cells and faults of a disk are told apart."""

import errno
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.sources import columns
from data_prep.sources.columns import Rows, schema_of


def write(path, numbers, row_group_size=4):
    pq.write_table(pa.table({"number": numbers}), path, row_group_size=row_group_size)
    return path


def test_one_row_group_is_open_at_a_time_and_little_of_it_is_in_memory(tmp_path, monkeypatch):
    size = 64 * 1024
    schema = pa.schema([("number", pa.int64()), ("data", pa.binary())])
    noise = random.Random(0).randbytes(size)
    table = [{"number": i, "data": i.to_bytes(2, "big") + noise[2:]} for i in range(300)]
    for file in range(2):
        part = pa.Table.from_pylist(table[file * 150 : file * 150 + 150], schema)
        pq.write_table(part, tmp_path / f"{file}.parquet", row_group_size=100, compression="none", use_dictionary=False)
    del table, part
    opened = []
    real = pq.ParquetFile.iter_batches

    def counted(self, *args, **options):
        opened.append(options["row_groups"])
        return real(self, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    before, peak = pa.total_allocated_bytes(), 0
    rows = Rows(sorted(tmp_path.glob("*.parquet")), ["number", "data"])
    assert (len(rows), opened) == (300, [])
    for index in range(300):
        row = rows[index]
        assert row["number"] == int.from_bytes(row["data"][:2], "big") == index
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert opened == [[0], [1], [0], [1]]
    assert peak < 50 * size  # half of a row group
    assert rows[299]["number"] == 299
    assert len(opened) == 4
    assert (rows[10]["number"], opened[-1], rows.place(160)) == (10, [0], (tmp_path / "1.parquet", 10))


def test_the_place_of_a_damaged_page_does_not_depend_on_the_order_of_reading(tmp_path):
    path = write(tmp_path / "a.parquet", [*range(12)])
    meta = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = meta.dictionary_page_offset or meta.data_page_offset
    data[start : start + 30] = bytes(30)
    path.write_bytes(data)
    for order in (range(12), reversed(range(12))):
        rows, bad = Rows([path], ["number"]), []
        for index in order:
            try:
                assert rows[index] == {"number": index}
            except ValueError as error:
                bad.append((index, str(error)[:24]))
        assert sorted(bad) == [(index, "row group 1 of a.parquet") for index in (4, 5, 6, 7)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.timestamp("ms"), 2**62),
        (pa.date32(), 2**30),
        (pa.timestamp("us", tz="No/Where"), 0),
        (pa.duration("s"), 2**62),
    ],
)
def test_a_cell_that_python_cannot_hold_refuses_its_row_alone(tmp_path, kind, value):
    when = pa.array([None, value, None], kind)
    answers = pa.StructArray.from_arrays([pa.array(["4", "5", "6"]), when], ["answer", "when"])
    pq.write_table(pa.table({"qa": answers}), tmp_path / "a.parquet")
    rows = Rows([tmp_path / "a.parquet"], ["qa"])
    for _ in range(2):
        with pytest.raises(ValueError, match="column qa of the row cannot be read"):
            rows[1]
        assert [rows[index]["qa"]["answer"] for index in (0, 2)] == ["4", "6"]


def test_whatever_arrow_says_of_a_file_becomes_one_sentence(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", [1])

    def unknown(self):
        raise pa.ArrowNotImplementedError("no such type")

    monkeypatch.setattr(pq.ParquetFile, "schema_arrow", property(unknown))
    with pytest.raises(ValueError, match=r"a\.parquet is not a whole Parquet file.*no such type"):
        schema_of(path)
    monkeypatch.undo()
    path.write_bytes(path.read_bytes().replace(b"number", b"numbe\xff"))
    with pytest.raises(ValueError, match=r"a\.parquet is not a whole Parquet file"):
        schema_of(path)


def test_a_column_that_a_file_has_twice_is_said(tmp_path):
    first = write(tmp_path / "a.parquet", [1])
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["number", "number"]), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet has several columns number, unlike .*a\.parquet"):
        Rows([first, tmp_path / "b.parquet"], ["number"])


def test_a_fault_of_the_disk_is_no_damage_and_the_rows_are_there_when_it_is_over(tmp_path, monkeypatch):
    files = [write(tmp_path / f"{file}.parquet", [3 * file, 3 * file + 1, 3 * file + 2]) for file in range(2)]
    rows = Rows(files, ["number"])
    assert rows[1] == {"number": 1}
    files[1].rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            rows[4]
    (tmp_path / "away").rename(files[1])
    assert rows[4] == {"number": 4}
    real = pq.ParquetFile.iter_batches

    def failing(self, *args, **options):
        yield next(real(self, *args, **options))
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(columns, "BATCH", 2)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", failing)
    rows = Rows(files, ["number"])
    assert rows[1] == {"number": 1}
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            rows[2]
    monkeypatch.undo()
    assert rows[2] == {"number": 2}
