"""A set of one's own: every file format, what may be left out, and files that lie."""

import csv
import json

import pytest
import yaml

from evaluation.benchmarks import find_benchmark
from evaluation.benchmarks.benchmark import LoadOptions
from tests.evaluation.benchmarks.published import BIG_TEXT, BOMB, EIGHT_K, cut_jpeg, outcome, png, write_parquet

ROWS = [
    {
        "image": "pictures/a.png",
        "question": "Which way?",
        "choices": "A. left B. right",
        "answer": "B. right",
        "answer_type": "",
        "family": "view3d",
        "id": "way",
        "category": "ways",
        "cluster": "street",
    },
    {
        "image": "pictures/b.png",
        "question": "How many?",
        "choices": "",
        "answer": "7",
        "answer_type": "number",
        "family": "",
        "id": "count",
        "category": "",
        "cluster": "",
    },
]


def as_csv(rows, path):
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


WRITERS = {
    "csv": as_csv,
    "json": lambda rows, path: path.write_text(json.dumps(rows)),
    "jsonl": lambda rows, path: path.write_text("\n".join(map(json.dumps, rows)) + "\n\n"),
    "parquet": lambda rows, path: write_parquet(rows, path),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my" / "pictures").mkdir(parents=True)
    for name, size in (("a", (40, 30)), ("b", (50, 30))):
        (tmp_path / "my" / "pictures" / f"{name}.png").write_bytes(png(size))
    return tmp_path / "my"


def find(folder, **settings):
    path = folder / "set.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return find_benchmark(str(path), folder / "data", folder / "benchmarks")


def load(folder, **settings):
    benchmark, place = find(folder, **settings)
    return benchmark, benchmark.load(place, LoadOptions())


def test_every_format_gives_the_same_samples(folder):
    for kind in [*WRITERS, "inline"]:
        if kind == "inline":
            benchmark, samples = load(folder, samples=ROWS, licence="CC0", title="Mine")
        else:
            WRITERS[kind](ROWS, folder / f"rows.{kind}")
            benchmark, samples = load(folder, data=f"rows.{kind}", licence="CC0", title="Mine")
        assert (benchmark.name, benchmark.title, samples.ids) == ("set", "Mine", ["set-way", "set-count"]), kind
        way, count = samples[0], samples[1]
        assert (way.choices, way.answer) == (("left", "right"), "B"), kind
        assert (way.family, way.image.size) == ("view3d", (40, 30)), kind
        assert {key: way.meta[key] for key in ("answer_type", "category", "cluster", "licence", "source")} == {
            "answer_type": "option",
            "category": "ways",
            "cluster": "street",
            "licence": "CC0",
            "source": "Mine",
        }, kind
        assert "family_is_unknown" not in way.meta, kind
        assert (count.choices, count.answer, count.meta["family_is_unknown"]) == (None, "7", True), kind
        assert {"category", "cluster"} & set(count.meta) == set(), kind
        assert outcome(benchmark, way, "\\boxed{B}").right, kind
        assert outcome(benchmark, count, "\\boxed{7.0}").right, kind
        assert not outcome(benchmark, count, "\\boxed{8}").right, kind
        assert samples.peek(1).image.size == (50, 30), kind


def test_three_columns_are_enough(folder):
    rows = [{"image": "pictures/a.png", "question": f"What is {n}?", "answer": n} for n in (3, 4.0)]
    samples = load(folder, samples=rows)[1]
    assert samples.ids == ["set-1", "set-2"]
    assert [samples[i].answer for i in range(2)] == ["3", "4"]
    assert (samples[0].meta["answer_type"], samples[0].meta["licence"]) == ("text", "not stated")
    assert samples[0].meta["family_is_unknown"]


def test_what_holds_for_all_samples_is_said_once_and_columns_are_renamed(folder):
    rows = [{"image": "pictures/a.png", "query": "How many?", "label": "2"}]
    settings = {"columns": {"question": "query", "answer": "label"}, "family": "chart", "answer_type": "number"}
    benchmark, samples = load(folder, samples=rows, name="mine", **settings)
    sample = samples[0]
    assert (benchmark.name, sample.id, sample.family, sample.meta["answer_type"]) == (
        "mine",
        "mine-1",
        "chart",
        "number",
    )
    assert "family_is_unknown" not in sample.meta


def test_a_refusal_is_right_where_it_is_the_truth(folder):
    rows = [{"image": "pictures/a.png", "question": "Who?", "answer": answer} for answer in ("Not sure", "Ann")]
    benchmark, samples = load(folder, samples=rows)
    refused = [outcome(benchmark, samples[i], "\\boxed{Not sure}").right for i in range(2)]
    named = [outcome(benchmark, samples[i], "\\boxed{Ann}").right for i in range(2)]
    assert (refused, named) == ([True, False], [False, True])
    assert outcome(benchmark, samples[0], "").right is False


def test_choices_are_a_list_or_written_out(folder):
    for choices in [["left", "right"], ["A. left", "B. right"], "(A) left\n(B) right", [1, 2.0]]:
        row = ROWS[0] | {"choices": choices, "answer": "B"}
        sample = load(folder, samples=[row])[1][0]
        assert sample.answer == "B", choices
        assert sample.choices in {("left", "right"), ("1", "2")}, choices


def test_pictures_may_be_embedded_in_parquet(folder):
    write_parquet([{"image": {"bytes": png((33, 44))}, "question": "?", "answer": "yes"}], folder / "rows.parquet")
    assert load(folder, data="rows.parquet")[1][0].image.size == (33, 44)

    (folder / "pictures" / "a.png").write_bytes(EIGHT_K)
    samples = load(folder, samples=ROWS)[1]
    assert samples.peek(0).image.size == (7680, 4320)
    with pytest.raises(ValueError, match=r"set.yaml, row 1: .*a.png: not a readable image"):
        samples[0]


def test_line_breaks_in_a_csv_and_in_a_line_of_json(folder):
    as_csv([ROWS[0] | {"choices": "A. left\nB. right", "question": 'Which, the "left"?\nOr not?'}], folder / "rows.csv")
    sample = load(folder, data="rows.csv")[1][0]
    assert (sample.question, sample.choices) == ('Which, the "left"?\nOr not?', ("left", "right"))

    row = ROWS[0] | {"question": "Which\u2028way\x85now?"}
    (folder / "rows.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert load(folder, data="rows.jsonl")[1][0].question == row["question"]


# ----------------------------------------------------------------------------------------------------- what is refused


def test_a_bad_row_is_named(folder):
    (folder.parent / "secret.png").write_bytes(png())
    (folder / "pictures" / "bomb.png").write_bytes(BOMB)
    (folder / "pictures" / "cut.jpg").write_bytes(cut_jpeg())
    for changes, message in [
        ({"image": "/etc/passwd"}, "does not lie below"),
        ({"image": "../secret.png"}, "does not lie below"),
        ({"image": "pictures/none.png"}, "no file 'pictures/none.png' below"),
        ({"image": None}, "a picture must be embedded as bytes, got NoneType"),
        ({"image": "pictures/bomb.png"}, r"bomb.png: not a readable image .*exceeds limit"),
        ({"image": "pictures/cut.jpg"}, r"cut.jpg: not a readable image"),
        ({"question": BIG_TEXT}, "question has 10,000,000 characters"),
        ({"question": float("nan")}, "question is missing"),
        ({"answer": None}, "answer is missing"),
        ({"answer": True}, "answer is no text but bool"),
        ({"answer": "C"}, "answer 'C' is none of the 2 choices"),
        ({"choices": ["only one"], "answer": "A"}, "choices .* must be a list of 2 to 26"),
        ({"choices": "left or right"}, "choices .* must be a list of 2 to 26"),
        ({"family": "geometry"}, "unknown task family 'geometry'"),
        ({"answer_type": "essay"}, "unknown answer_type 'essay'"),
        ({"choices": None, "answer_type": "number", "answer": "many"}, "its answer 'many' is no number answer"),
        ({"category": "x" * 300}, "category has 300 characters"),
    ]:
        WRITERS["json"]([ROWS[1], ROWS[0] | changes], folder / "rows.json")
        samples = load(folder, data="rows.json")[1]
        assert samples[0].answer == "7", changes
        with pytest.raises(ValueError, match=rf"rows.json, row 2: .*{message}"):
            samples[1]


def test_a_set_that_does_not_fit_is_refused(folder):
    for settings, message in [
        ({}, "needs either data: FILE or samples"),
        ({"data": "rows.csv", "samples": ROWS}, "needs either data: FILE or samples"),
        ({"samples": "rows"}, "samples must be a list of mappings"),
        ({"samples": [3]}, "samples must be a list of mappings"),
        ({"data": "../rows.csv"}, "does not lie below"),
        ({"data": "/etc/passwd"}, "does not lie below"),
        ({"data": "none.csv"}, "no file 'none.csv' below"),
        ({"data": "set.yaml"}, "data 'set.yaml' is none of .csv, .jsonl, .json, .parquet"),
        ({"samples": ROWS, "family": "geometry"}, "unknown task family"),
        ({"samples": ROWS, "name": "a b/c"}, "may hold up to 60 letters"),
        ({"samples": ROWS, "name": "mazes"}, "the name mazes is that of another task"),
        ({"samples": ROWS, "name": "chart"}, "the name chart is that of another task"),
        ({"samples": ROWS, "judge": "me"}, "has the unknown key judge; known: name, title"),
        ({"samples": ROWS, "columns": ["a"]}, "columns must map names"),
        ({"samples": ROWS, "columns": {"colour": "red"}}, "columns has colour; it may have image, question"),
        ({"samples": ROWS, "columns": {"category": "kind"}}, "has no column kind; it has: image, question"),
        ({"samples": [{"image": "pictures/a.png"}]}, "has no column question, answer; it has: image"),
        ({"samples": [ROWS[0], ROWS[0]]}, "row 2: the id 'set-way' is that of row 1 too"),
        ({"samples": [ROWS[0] | {"id": "x" * 999}]}, "row 1: id has 999 characters"),
    ]:
        with pytest.raises(ValueError, match=message):
            load(folder, **settings)


def test_a_file_that_is_no_yaml_of_settings_or_no_table_is_named(folder):
    for content in ["a: [", "- 1", "7", "!!python/object/apply:os.system [ls]", "[" * 700, "a: \x00"]:
        (folder / "set.yml").write_text(content)
        with pytest.raises(ValueError, match=r"set\.yml"):
            find_benchmark(str(folder / "set.yml"), folder, folder)

    with pytest.raises(ValueError, match=r"no file .*none.yaml"):
        find_benchmark(str(folder / "none.yaml"), folder, folder)

    for content in ["image,question\n1,2,3\n", 'image\n"open', "\0,\0\n1\n", "image,question,answer\n\xff"]:
        (folder / "rows.csv").write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=r"rows.csv"):
            load(folder, data="rows.csv")
