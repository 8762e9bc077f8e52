"""ViewSpatial-Bench: the real question file, the authors' reading of replies, several pictures, and files that lie."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from etchr.mllm.prompts import options_block
from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.benchmark import LoadOptions
from evaluation.benchmarks.viewspatial import TYPES
from tests.evaluation.benchmarks.published import BIG_TEXT, BOMB, EIGHT_K, cut_jpeg, outcome, png

PERSON, ALL = BENCHMARKS["viewspatial"], BENCHMARKS["viewspatial_all"]
REAL = Path(__file__).parents[3].parent / "shared/data/viewspatial"
ROW = {
    "question_type": "Person perspective - Relative Direction",
    "image_path": ["ViewSpatial-Bench/val2017/000000000001.jpg"],
    "question": "Where is the dog, seen by the man?",
    "answer": "B. left",
    "choices": "A. right\nB. left\nC. front-right\nD. back",
}


@pytest.fixture
def real():
    if not REAL.is_dir():
        pytest.skip("no shared/data/viewspatial here")
    return REAL


def write(folder, *rows, pictures=True, below=""):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ViewSpatial-Bench.json").write_text(json.dumps(rows))
    for row in rows if pictures else ():
        for label in row["image_path"]:
            path = folder / below / label.removeprefix("ViewSpatial-Bench/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():  # each is a line higher than the one before
                path.write_bytes(png((40, 30 + len(list(path.parent.iterdir())))))
    return folder


def load(folder, benchmark=PERSON):
    return benchmark.load(folder, LoadOptions())


# --------------------------------------------------------------------------------------------- the published questions


def test_the_published_questions_are_read_whole_without_a_picture(real):
    samples = load(real)
    assert len(samples) == len(set(samples.ids)) == PERSON.expected == 842
    with pytest.raises(
        ValueError, match=r"no file 'val2017/\d+.jpg' below .*python -m evaluation download viewspatial"
    ):
        samples.peek(0)

    assert len(load(real, ALL)) == len(set(load(real, ALL).ids)) == ALL.expected == 5712


def test_the_published_truths_are_what_the_authors_code_reads(real, tmp_path):
    """With a stand-in for each picture of the first 40 questions of every type."""
    rows = json.loads((real / "ViewSpatial-Bench.json").read_text())
    chosen = [row for kind in TYPES for row in [r for r in rows if r["question_type"] == kind][:40]]
    samples = load(write(tmp_path / "copy", *chosen), ALL)
    assert Counter(samples.peek(i).meta["category"] for i in range(len(samples))) == dict.fromkeys(TYPES, 40)
    for index, row in enumerate(chosen):
        sample = samples.peek(index)
        assert sample.answer == re.search(r"\b([A-D])\b", row["answer"]).group(1)
        assert options_block(sample.choices) == "\n" + row["choices"]
        assert len(sample.more_images) == len(row["image_path"]) - 1


# ----------------------------------------------------------------------------------------------------------- scoring

REPLIES = [  # reply, right by its letter, right as the authors read it (the truth is B)
    ("\\boxed{B}", True, True),
    ("B. left", True, True),
    ("The dog is to his left.\nSo the answer is: B", True, True),
    ("It is a left turn: B", True, False),  # their first letter that stands alone is the article
    ("\\boxed{B}\nThat is all.", True, False),  # their last line holds no letter
    ("\\boxed{A}\nb", False, True),
    ("\\boxed{C}", False, False),
    ("I cannot tell.", False, False),
    ("", False, False),
]


def test_a_reply_is_scored_by_its_letter_and_as_the_authors_read_it(tmp_path):
    for reply, right, official in REPLIES:
        sample = load(write(tmp_path / "vs", ROW))[0]
        found = outcome(PERSON, sample, reply)
        assert (found.right, found.parts) == (right, {"official": official}), (reply, right, official)

    sample = load(write(tmp_path / "two" / "vs", ROW | {"choices": "A. right\nB. left"}))[0]
    assert sample.choices == ("right", "left")
    assert PERSON.chance(sample) == 0.5
    assert not outcome(PERSON, sample, "\\boxed{C}").right


# ---------------------------------------------------------------------------------------------------------- pictures


def test_pictures_are_found_wherever_the_archives_were_extracted(tmp_path):
    for number, below in enumerate(["", "ViewSpatial-Bench"]):
        folder = tmp_path / str(number)
        scene = "ViewSpatial-Bench/scannetv2_val/scene0704_01/original_images"
        rows = [
            ROW | {"question_type": TYPES[4], "image_path": [f"{scene}/{number}.jpg" for number in (40, 80, 120)]},
            ROW | {"question_type": TYPES[0], "image_path": [f"{scene}/80.jpg"]},
            ROW,
        ]
        samples = load(write(folder / "vs", *rows, below=below), ALL)
        first = samples[0]
        assert (first.image.height, [image.height for image in first.more_images]) == (30, [31, 32]), below
        sizes = [image.size for image in first.more_images]
        assert [picture.size for picture in samples.peek(0).more_images] == sizes, below
        clusters = [samples.peek(index).meta["cluster"] for index in range(3)]
        assert clusters == ["scannetv2_val/scene0704_01"] * 2 + ["val2017/000000000001.jpg"], below
        assert len(load(folder / "vs")) == 1, below


def test_a_picture_lies_below_the_folder(tmp_path):
    for number, path in enumerate(
        ["/etc/passwd", "../secret.jpg", "ViewSpatial-Bench/../../secret.jpg", "val2017", "a\0b"]
    ):
        folder = write(tmp_path / str(number) / "vs", ROW)
        (folder.parent / "secret.jpg").write_bytes(png())
        write(folder, ROW | {"image_path": [path]}, pictures=False)
        with pytest.raises(ValueError, match=r"does not lie below|no file"):
            load(folder).peek(0)


def test_a_bad_picture_is_named_when_its_sample_is_asked_for(tmp_path):
    folder = write(tmp_path / "vs", ROW)
    for content in [BOMB, cut_jpeg(), b"", b"GIF89a", EIGHT_K]:
        (folder / "val2017" / "000000000001.jpg").write_bytes(content)
        samples = load(folder)
        if content == EIGHT_K:
            assert samples.peek(0).image.size == (7680, 4320)  # whose pixels are not read before
        with pytest.raises(ValueError, match=r"000000000001.jpg: not a" + " readable image" * (content == EIGHT_K)):
            samples[0]


# ---------------------------------------------------------------------------------------------------------- questions


def test_ids_go_with_the_questions_in_any_order(tmp_path):
    rows = [ROW | {"question": f"Where is dog {number}?"} for number in range(6)] + [ROW, ROW]
    one, other = load(write(tmp_path / "one", *rows)), load(write(tmp_path / "other", *rows[::-1]))
    assert len(set(one.ids)) == 8
    questions = [{key: samples.peek(i).question for i, key in enumerate(samples.ids)} for samples in (one, other)]
    assert questions[0] == questions[1]


def test_a_bad_row_and_a_file_that_is_no_list_of_questions_or_has_none_of_the_papers_are_named(tmp_path):
    for changes, message in [
        ({"question_type": "Person"}, "question_type 'Person' is none of: Camera"),
        ({"question_type": float("nan")}, "question_type is missing"),
        ({"image_path": "one.jpg"}, "image_path must be a list of 1 to 64 paths"),
        ({"image_path": []}, "image_path must be a list"),
        ({"image_path": ["x.jpg"] * 65}, "image_path must be a list"),
        ({"image_path": [3]}, "image_path is no text but int"),
        ({"question": BIG_TEXT}, "question has 10,000,000 characters"),
        ({"question": None}, "question is missing"),
        ({"choices": "right, left"}, "choices and answer must hold options"),
        ({"choices": None}, "choices is missing"),
        ({"answer": "E. up"}, "choices and answer must hold options"),
        ({"answer": "B. right"}, "choices and answer must hold options"),  # letter and text disagree
    ]:
        folder = write(tmp_path / "vs", ROW, ROW | changes, pictures=False)
        with pytest.raises(ValueError, match=rf"ViewSpatial-Bench.json, row 2: {re.escape(message)}"):
            load(folder)

    for content in ["{}", "[[]]", "[{}", "", "\ufeff\ufeff[]"]:
        (tmp_path / "ViewSpatial-Bench.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"ViewSpatial-Bench.json"):
            load(tmp_path)

    folder = write(tmp_path / "vs", ROW | {"question_type": TYPES[0]})
    with pytest.raises(ValueError, match="has no question of type Person perspective - Relative Direction"):
        load(folder)
