"""DL3DV-2k: candidates in every usual form, and rows that cannot be read."""

import itertools
import json

import pytest

from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.benchmark import LoadOptions
from evaluation.benchmarks.dl3dv import candidates_in
from tests.evaluation.benchmarks.published import BIG_TEXT, BOMB, EIGHT_K, cut_jpeg, outcome, png, write_parquet

DL3DV = BENCHMARKS["dl3dv_2k"]
ROW = {
    "question": "What is behind the bench, seen from the other side?",
    "candidates": "A. a tree\nB. a bin\nC. a wall",
    "images": [{"bytes": png((40, 30), "red")}, {"bytes": png((40, 30), "blue")}],
    "answer": "B",
}


def load(folder, *rows, name="test-00000.parquet"):
    write_parquet(list(rows), folder / name)
    return DL3DV.load(folder, LoadOptions())


def test_candidates_and_answers_are_read_in_every_usual_form(tmp_path):
    for number, (written, answer) in enumerate(
        itertools.product(
            [
                "A. a tree\nB. a bin\nC. a wall",
                "A. a tree B. a bin C. a wall",
                "(A) a tree, (B) a bin, (C) a wall",
                "A: a tree; B: a bin; C: a wall",
                json.dumps(["a tree", "a bin", "a wall"]),
                json.dumps(["A. a tree", "B. a bin", "C. a wall"]),
                str(["a tree", "a bin", "a wall"]),
                str(("A. a tree", "B. a bin", "C. a wall")),
                "a tree\na bin\na wall\n",
            ],
            ["B", "B.", "(B)", "B. a bin", "a bin", "A bin"],
        )
    ):
        folder = tmp_path / str(number)
        sample = load(folder, ROW | {"candidates": written, "answer": answer})[0]
        assert (sample.choices, sample.answer) == (("a tree", "a bin", "a wall"), "B"), (written, answer)
        assert outcome(DL3DV, sample, "\\boxed{B}").right, (written, answer)
        assert outcome(DL3DV, sample, "It is \\boxed{\\text{a bin}}").right, (written, answer)
        assert not outcome(DL3DV, sample, "\\boxed{A. a tree}").right, (written, answer)


def test_candidates_in_a_list_column_or_in_none_that_can_be_read(tmp_path):
    sample = load(tmp_path, ROW | {"candidates": ["a tree", "a bin"]})[0]
    assert (sample.choices, sample.answer) == (("a tree", "a bin"), "B")

    for written in ["", "one thing", "[1, 2]", "['a'", "(" * 9000, "[" * 9000, "__import__('os')", "{'a': 1}"]:
        assert candidates_in(written) == (), written


def test_the_first_picture_is_shown_once_asked_for_and_the_others_are_counted(tmp_path):
    sample = load(tmp_path, ROW)[0]
    assert (sample.image.getpixel((0, 0)), sample.more_images, sample.meta["num_images"]) == ((255, 0, 0), (), 2)
    assert (sample.family, sample.meta["answer_type"]) == ("view3d", "option")
    samples = load(tmp_path, ROW | {"images": [{"bytes": EIGHT_K}]})
    assert samples.peek(0).image.size == (7680, 4320)  # whose pixels are not read before
    with pytest.raises(ValueError, match="row 1: not a readable image"):
        samples[0]


def test_several_files_are_one_set_in_any_order_of_rows(tmp_path):
    # Template questions repeat: it is the picture that tells them apart.
    rows = [ROW | {"images": [{"bytes": png((40, 30 + number))}]} for number in range(5)]
    one, other = load(tmp_path / "one", *rows), load(tmp_path / "other" / "data", *rows[::-1])
    other = DL3DV.load(tmp_path / "other", LoadOptions())
    sizes = [{key: samples.peek(i).image.size for i, key in enumerate(samples.ids)} for samples in (one, other)]
    assert sizes[0] == sizes[1]
    assert len(sizes[0]) == 5
    assert len({one.peek(i).meta["cluster"] for i in range(5)}) == 5

    load(tmp_path / "several", ROW, name="test-00000.parquet")
    assert len(load(tmp_path / "several", ROW | {"question": "And now?"}, name="test-00001.parquet")) == 2


def test_a_bad_row_is_named(tmp_path):
    for number, (changes, message) in enumerate(
        [
            ({"candidates": "somewhere"}, "candidates 'somewhere' cannot be told apart"),
            ({"candidates": None}, "candidates is missing"),
            ({"candidates": BIG_TEXT}, "candidates has 10,000,000 characters"),
            ({"answer": "D"}, "answer 'D' is none of the 3 candidates"),
            ({"answer": None}, "answer is missing"),
            ({"question": " "}, "question is empty"),
            ({"images": []}, "a picture must be embedded as bytes"),
            ({"images": [{"bytes": BOMB}]}, "not a readable image .*exceeds limit"),
            ({"images": [{"bytes": cut_jpeg()}]}, "not a readable image"),
        ]
    ):
        folder = tmp_path / str(number)
        with pytest.raises(ValueError, match=rf"test-00000.parquet, row 2: {message}"):
            load(folder, ROW, ROW | changes)[1]

    with pytest.raises(ValueError, match="no column candidates, images; it has: question, answer"):
        load(tmp_path / "columns", {"question": "?", "answer": "A"})
