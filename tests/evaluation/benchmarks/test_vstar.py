"""V*Bench: the options' order, the boxes drawn, both layouts, and files that lie."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.benchmark import LoadOptions
from evaluation.factory import fingerprint, read_tasks, sample_digest
from evaluation.settings import EditingConfig, EvalConfig, SystemConfig
from tests.evaluation.benchmarks.published import BIG_TEXT, BOMB, EIGHT_K, cut_jpeg, outcome, png

VSTAR = BENCHMARKS["vstar"]
OPTIONS = ["The cup is red.", "The cup is blue.", "The cup is green.", "The cup is white."]
ROW = {
    "target_object": ["cup"],
    "bbox": [[20, 10, 12, 8]],
    "question": "What is the color of the cup?",
    "options": OPTIONS,
}


def write(folder, name="direct_attributes/sa_1", picture=None, suffix=".jpg", **changes):
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({key: value for key, value in (ROW | changes).items() if value is not ...}))
    if picture is not False:
        path.with_suffix(suffix).write_bytes(png((64, 48)) if picture is None else picture)
    return path


def load(folder, seed=126):
    return VSTAR.load(folder, LoadOptions(option_seed=seed))


def test_a_letter_is_right_where_the_authors_index_0_is(tmp_path):
    for number in range(12):
        count = 2 if number % 3 == 0 else 4
        write(tmp_path, f"direct_attributes/sa_{number}", options=OPTIONS[:count])
    samples = load(tmp_path)
    for index in range(len(samples)):
        sample = samples[index]
        order = sample.meta["option_order"]
        assert [OPTIONS[place] for place in order] == list(sample.choices)
        for letter, place in zip("ABCD", order, strict=False):
            official = place == 0  # the option that the authors' likelihood must choose
            assert outcome(VSTAR, sample, f"It is \\boxed{{{letter}}}").right is official
            assert outcome(VSTAR, sample, f"The answer is: {OPTIONS[place]}").right is official
        assert outcome(VSTAR, sample, "I cannot see it.").right is False
        assert VSTAR.chance(sample) == 1 / len(order)


def test_the_options_are_in_an_order_of_seed_and_id_alone_and_the_right_letter_is_spread(tmp_path):
    for number in range(120):
        write(tmp_path, f"direct_attributes/sa_{number}")
    samples = load(tmp_path)
    first = {sample_id: samples.peek(i) for i, sample_id in enumerate(samples.ids)}
    letters = Counter(sample.answer for sample in first.values())
    assert set(letters) == set("ABCD")
    assert min(letters.values()) >= 15  # 30 are expected, with a deviation of 4.7
    other = load(tmp_path, seed=7)
    assert [other.peek(i).answer for i in range(120)] != [sample.answer for sample in first.values()]
    (tmp_path / "direct_attributes" / "sa_0.json").unlink()
    fewer = load(tmp_path)
    assert len(fewer) == 119
    assert all(fewer.peek(i).choices == first[fewer.ids[i]].choices for i in range(119))

    # Edits with other noise are compared on the same questions; a run remembers which ones it asked.
    for number in range(8):
        write(tmp_path / "own" / "vstar", f"direct_attributes/sa_{number}")

    def asked(**options):
        config = EvalConfig({"x": SystemConfig()}, tasks=["vstar"], benchmarks=str(tmp_path / "own"), **options)
        tasks = read_tasks(config)
        samples = tasks["vstar"].samples
        digests = [sample_digest(samples.peek(index)) for index in range(8)]
        return digests, fingerprint(config, tasks)["tasks"]["vstar"]["option_seed"]

    assert asked(editing=EditingConfig(seed=7)) == asked()
    other = asked(option_seed=7)
    assert other[0] != asked()[0]
    assert (other[1], asked()[1]) == (7, 126)


def test_the_two_categories_are_read_and_nothing_else(tmp_path):
    write(tmp_path)
    write(tmp_path, "relative_position/sa_1", suffix=".JPG")
    write(tmp_path, "OCR/1")
    write(tmp_path, "GPT4V-hard/2")
    samples = load(tmp_path)
    assert samples.ids == ["vstar-direct_attributes/sa_1", "vstar-relative_position/sa_1"]
    sample = samples[1]
    assert (sample.meta["category"], sample.meta["answer_type"]) == ("relative_position", "option")
    assert (sample.meta["targets"], sample.meta["boxes"]) == (["cup"], [[20, 10, 12, 8]])
    assert sample.meta["cluster"] == "relative_position/sa_1.JPG"
    assert (sample.family, sample.task, sample.image.size) == ("perception", "vstar", (64, 48))


def test_the_edit_frames_the_boxes_and_leaves_the_rest(tmp_path):
    write(tmp_path, bbox=[[20, 10, 12, 8], [50.5, 30, 15, 20]])  # the second reaches out of the picture
    sample = load(tmp_path)[0]
    changed = (np.asarray(sample.edit_image) != np.asarray(sample.image)).any(axis=2)
    rows, columns = np.nonzero(changed[:28, :40])
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (
        18,
        33,
        8,
        19,
    )  # two pixels round x 20-31, y 10-17
    assert not changed[10:18, 20:32].any()
    assert changed[28:, 48:].any()
    peeked = load(tmp_path).peek(0)
    assert peeked.edit_image.size == (64, 48)
    moved = write(tmp_path, bbox=[[21, 10, 12, 8]])
    assert moved.is_file()
    assert load(tmp_path).peek(0).edit_image.digest != peeked.edit_image.digest
    assert load(tmp_path).peek(0).image.digest == peeked.image.digest


def test_a_question_whose_boxes_lie_elsewhere_is_still_a_question(tmp_path):
    for number, boxes in enumerate([[[500, 10, 12, 8]], [], None]):
        folder = tmp_path / str(number)
        write(folder, bbox=boxes)
        sample = load(folder)[0]
        assert sample.edit_image is None, boxes
        assert ("lies outside" in sample.meta.get("edit_is_missing", "")) == bool(boxes), boxes
        assert outcome(VSTAR, sample, f"\\boxed{{{sample.answer}}}").right, boxes


def test_pictures_are_read_when_a_sample_is_asked_for_and_lie_below_the_folder(tmp_path):
    write(tmp_path, picture=EIGHT_K)
    samples = load(tmp_path)
    assert samples.peek(0).image.size == (7680, 4320)
    assert samples.peek(0).edit_image.size == (7680, 4320)
    with pytest.raises(ValueError, match=r"sa_1.jpg: not a readable image"):
        samples[0]

    folder = tmp_path / "link" / "vstar"
    path = write(folder, picture=False)
    Image.new("RGB", (64, 48)).save(tmp_path / "link" / "secret.png")
    path.with_suffix(".png").symlink_to(tmp_path / "link" / "secret.png")
    with pytest.raises(ValueError, match="does not lie below"):
        load(folder).peek(0)


# ------------------------------------------------------------------------------------------ test_questions.jsonl


TEXT = (
    "What is the color of the cup?\n(A) red\n(B) blue, as A. said\n(C) green\n(D) white\n"
    "Answer with the option's letter from the given choices directly."
)
LISTED = {
    "image": "direct_attributes/sa_1.jpg",
    "text": TEXT,
    "category": "direct_attributes",
    "label": "B",
    "question_id": 0,
}


def write_list(folder, *rows):
    picture = folder / "direct_attributes" / "sa_1.jpg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(png())
    (folder / "test_questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_list_of_questions_is_read_in_its_own_order(tmp_path):
    write_list(tmp_path, LISTED, LISTED | {"category": "OCR", "image": "OCR/1.jpg"})
    samples = load(tmp_path)
    assert samples.ids == ["vstar-direct_attributes/sa_1"]
    sample = samples[0]
    assert sample.question == "What is the color of the cup?"
    assert sample.choices == ("red", "blue, as A. said", "green", "white")
    assert (sample.answer, sample.edit_image, sample.meta["option_order"]) == ("B", None, "as published")
    assert outcome(VSTAR, sample, "\\boxed{B}").right
    assert not outcome(VSTAR, sample, "\\boxed{A}").right


def test_a_listed_picture_lies_below_the_folder_and_a_bad_line_is_named(tmp_path):
    folder = tmp_path / "vstar"
    (tmp_path / "outside.jpg").write_bytes(png())
    for image in ["/etc/passwd", "../outside.jpg", "direct_attributes/none.jpg", "a\0b", "x" * 5000, 7]:
        write_list(folder, LISTED | {"image": image})
        with pytest.raises(ValueError, match=r"does not lie below|no file|row 1: image"):
            load(folder).peek(0)

    for rows, message in [
        ([LISTED | {"label": "E"}], "test_questions.jsonl, row 1: text and label must hold options"),
        ([LISTED | {"text": "No options"}], "test_questions.jsonl, row 1: text and label must hold options"),
        ([LISTED | {"text": BIG_TEXT}], "test_questions.jsonl, row 1: text has 10,000,000 characters"),
        ([LISTED | {"category": None}], "test_questions.jsonl, row 1: category is missing"),
        ([LISTED | {"label": float("nan")}], "test_questions.jsonl, row 1: label is missing"),
        ([LISTED, LISTED], "row 2: the id 'vstar-direct_attributes/sa_1' is that of row 1 too"),
    ]:
        write_list(tmp_path, *rows)
        with pytest.raises(ValueError, match=message):
            load(tmp_path)


# -------------------------------------------------------------------------------------------------------- bad files


def test_a_bad_annotation_or_picture_is_named(tmp_path):
    for number, (changes, message) in enumerate(
        [
            ({"options": ...}, "options must be a list of 2 to 26"),
            ({"options": ["one"]}, "options must be a list of 2 to 26"),
            ({"options": [f"option {i}" for i in range(27)]}, "options must be a list of 2 to 26"),
            ({"options": ["a", 3]}, "option is no text but int"),
            ({"question": float("nan")}, "question is missing"),
            ({"question": BIG_TEXT}, "question has 10,000,000 characters; at most 20,000"),
            ({"bbox": "20 10 12 8"}, "bbox must be a list of boxes"),
            ({"bbox": [[20, 10, 12]]}, r"box \[20, 10, 12\] is not x, y, w, h"),
            ({"bbox": [[float("inf"), 10, 12, 8]]}, r"box .* holds inf, which is no finite number"),
            ({"target_object": {"a": 1}}, "target_object must be a list"),
            ({"picture": False}, "no picture sa_1.jpg beside it"),
        ]
    ):
        folder = tmp_path / str(number)
        write(folder, **changes)
        with pytest.raises(ValueError, match=rf"sa_1.json: {message}"):
            load(folder)

    for number, content in enumerate(["[]", "{", '"text"', "[" * 100_000, "\udc80"]):
        folder = tmp_path / f"file {number}"
        write(folder).write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(ValueError, match=r"sa_1\.json"):
            load(folder)

    for number, (picture, message) in enumerate(
        [
            (BOMB, r"not a readable image .*exceeds limit"),
            (cut_jpeg(), "not a readable image"),
            (b"<svg/>", "not an image"),
        ]
    ):
        folder = tmp_path / f"picture {number}"
        write(folder, picture=picture, suffix=".png")
        with pytest.raises(ValueError, match=rf"sa_1.png: {message}"):
            load(folder)[0]
