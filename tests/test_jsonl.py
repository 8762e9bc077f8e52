"""Lines of JSON on disk, and a journal of keyed ones."""

import json

import pytest

from etchr.jsonl import Journal, JsonLines

# --------------------------------------------------------------------------------------------------------- lines


def test_lines_are_there_as_soon_as_they_are_appended(tmp_path):
    lines = JsonLines(tmp_path / "new" / "x.jsonl")
    assert list(lines) == []
    for record in ({"a": 1}, {"text": "ß\n\ud800"}):
        lines.append(record)
    assert list(JsonLines(lines.path)) == [{"a": 1}, {"text": "ß\n\ud800"}]
    lines.close()
    lines.append({"b": 2})
    assert len(list(lines)) == 3


@pytest.mark.parametrize("torn", [b'{"a": 2', b'{"a": 2}', b"\xff"])
def test_a_torn_last_line_counts_as_never_written(tmp_path, torn):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n' + torn)
    assert list(JsonLines(path)) == [{"a": 1}]
    JsonLines(path).append({"a": 3})
    assert path.read_bytes() == b'{"a": 1}\n{"a": 3}\n'


@pytest.mark.parametrize("damage", [b"\0\0\0\0", b'{"a": ', b"\xff\xfe", b"null", b"[1]", b'"a"'])
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n' + damage + b'\n{"a": 3}\n')
    with pytest.raises(ValueError, match=r"x\.jsonl holds a damaged line .*; remove that line") as caught:
        list(JsonLines(path))
    assert repr(damage) in str(caught.value)


def test_replace_makes_the_whole_content_and_appending_goes_on_behind_it(tmp_path):
    lines = JsonLines(tmp_path / "new" / "x.jsonl")
    lines.replace([{"a": 0}])
    for number in (1, 2, 3):
        lines.append({"a": number})
    lines.replace([{"a": 1}, {"a": 2}])
    lines.append({"a": 4})
    assert list(lines) == [{"a": 1}, {"a": 2}, {"a": 4}]
    assert [file.name for file in lines.path.parent.iterdir()] == ["x.jsonl"]


# ------------------------------------------------------------------------------------------------------- journal


def journal(folder, rank=0, **options):
    return Journal(folder, "x", rank, read=lambda record, _: record["value"], **options)


def test_a_journal_writes_one_file_a_process_and_reads_those_of_all(tmp_path):
    first, second = journal(tmp_path), journal(tmp_path, 1)
    first.put({"key": "a", "value": 1})
    second.put({"key": "b", "value": 2})
    assert (first.values, second.values) == ({"a": 1}, {"b": 2})
    assert journal(tmp_path, 7).values == {"a": 1, "b": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.1.jsonl", "x.jsonl"]
    assert Journal(tmp_path, "y", read=lambda record, _: record).values == {}


def test_of_several_records_of_a_key_the_last_or_the_one_that_supersedes_counts(tmp_path):
    written = journal(tmp_path)
    for value in (2, 5, 3):
        written.put({"key": "a", "value": value})
    assert written.values == journal(tmp_path).values == {"a": 3}
    assert journal(tmp_path, supersedes=lambda new, old: new > old).values == {"a": 5}
    assert journal(tmp_path, key=lambda record: record["value"] % 2).values == {0: 2, 1: 3}


def test_a_place_finds_its_record_again(tmp_path):
    places = Journal(tmp_path, "x", read=lambda _, place: place)
    for value in range(3):
        places.put({"key": str(value), "value": value})
    again = Journal(tmp_path, "x", 1, read=lambda _, place: place)
    for found in (places, again):
        assert [found.values[str(value)].record()["value"] for value in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("line", [{"value": 1}, {"key": "a"}, 3])
def test_a_line_that_is_no_entry_is_named(tmp_path, line):
    (tmp_path / "x.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=r"x\.jsonl holds a (bad|damaged) line \(.*\); remove that line"):
        journal(tmp_path)
