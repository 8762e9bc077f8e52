"""ChartQA: both rules case by case, three layouts of one test set, and files that lie."""

import json

import datasets
import pytest

from etchr.mllm.answers import ground_truth
from etchr.sample import EditSample
from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.benchmark import LoadOptions
from tests.evaluation.benchmarks.published import BIG_TEXT, BOMB, EIGHT_K, cut_jpeg, outcome, png, write_parquet

CHARTQA = BENCHMARKS["chartqa"]
VALUE, YEAR = "What is the value of the largest bar?", "In which year was it highest?"
# question, truth, reply in a box, right by the strict rule, right by the normalised one
CASES = [
    (VALUE, "6.7", "6.7", True, True),
    (VALUE, "6.7", "7.0", True, True),  # 4.5 % off
    (VALUE, "6.7", "7.1", False, False),  # 6 %
    (VALUE, "100", "105", True, True),
    (VALUE, "100", "105.1", False, False),
    (VALUE, "100", "95", True, True),
    (VALUE, "-20", "-19.5", True, True),
    (VALUE, "-20", "20", False, False),
    (VALUE, "6.7", "6.7\\%", False, True),
    (VALUE, "6.7%", "6.7", False, True),
    (VALUE, "6.7%", "6.8\\%", True, True),
    (VALUE, "0.12", "12\\%", True, True),  # a percentage counts as a hundredth
    (VALUE, "0.12", "12", False, False),
    (VALUE, "12%", "0.12", True, True),
    (VALUE, "12%", "1200\\%", False, False),
    (VALUE, "0", "0", True, True),
    (VALUE, "0", "0.0", False, True),  # a truth of 0 is compared as text
    (VALUE, "0", "0.01", False, False),
    (VALUE, "1234", "1,234", False, True),
    (VALUE, "1234", "1{,}234", False, True),
    (VALUE, "1,234", "1234", False, True),
    (VALUE, "5", "\\$5", False, True),
    (VALUE, "$5", "5", False, True),
    (VALUE, "-5", "-\\$5", False, True),
    (VALUE, "5", "5 million", False, False),
    (VALUE, ".5", "0.5", True, True),
    (VALUE, "1e3", "1000", True, True),
    ("Is it higher?", "Yes", "yes", True, True),
    ("Is it higher?", "Yes", "Yes.", True, True),
    ("Is it higher?", "Yes", "No", False, False),
    ("Which country?", "U.S.", "U.S.", True, True),
    ("Which country?", "United  States", "united states", True, True),
    ("Which app?", "Facebook Messenger*", "Facebook Messenger*", True, True),
    ("Which two?", "[A, B]", "[A, B]", True, True),
    ("Which two?", "[A, B]", "[A,B]", False, True),
    ("Which two?", "[A, B]", "a, b", False, True),
    ("Which two?", "[A, B]", "[B, A]", False, False),
    ("Which two?", "[A, B]", "A", False, False),
    ("Which modes?", "[1.34, 1.37]", "[1.35, 1.37]", False, True),
    (YEAR, "2019", "2019", True, True),
    (YEAR, "2019", "2005", True, False),  # the 5 % that years get
    (YEAR, "2019", "2018", True, False),
    ("When does the line reach the peak?", "2014", "2011", True, False),
    ("Since what year has it been falling?", "1921", "1931", True, False),
    ("482.5 is the bar value, Find the year of that bar?", "2014", "2016", True, False),
    ("Which two years are alike?", "[2010, 2012]", "[2010,2012]", False, True),
    ("Which two years are alike?", "[2010, 2012]", "[2010, 2013]", False, False),
    ("Which of the following years was best?", "2019", "2017", True, False),
    ("What was the production in 2010?", "2019", "2005", True, True),  # a quantity
    ("How many were sold in the year 2010?", "1950", "1948", True, True),
    ("How many years are shown?", "13", "13.4", True, True),
    ("When did the price reach the peak?", "October", "october", True, True),
    ("What do most people say?", "Don't know", "Don't know", True, True),
    ("What do most people say?", "Don't know", "Approve", False, False),
    ("What do most people say?", "Not sure", "not sure", True, True),
    ("What do most people say?", "Approve", "I don't know", False, False),
]


def official(prediction: str, target: str) -> bool:
    """Relaxed accuracy, written down again from its definition: what the implementation must agree with."""

    def number(word):
        divisor = 1.0
        if word[-1:] == "%":
            word, divisor = word.rstrip("%"), 100.0
        try:
            return float(word) / divisor
        except ValueError:
            return None

    a, b = number(prediction), number(target)
    if a is None or b in (None, 0):
        return prediction.lower() == target.lower()
    return abs(a - b) <= 0.05 * abs(b)


def test_both_rules():
    for case in CASES:
        question, truth, boxed, strict, normalised = case
        sample = EditSample("c", "chart", "chartqa", None, question, truth, meta={"answer_type": "text"})
        found = outcome(CHARTQA, sample, f"I read the chart. \\boxed{{{boxed}}}")
        assert (found.parts, found.right) == ({"strict": strict, "normalised": normalised}, strict), case
        assert ground_truth(sample), truth

    for reply in ["", "I cannot read it.", "\\boxed{6.", "<think>\\boxed{6.7}", "It is high. Or low."]:
        sample = EditSample("c", "chart", "chartqa", None, VALUE, "6.7", meta={"answer_type": "text"})
        found = outcome(CHARTQA, sample, reply)
        assert (found.right, found.parts) == (False, {"strict": False, "normalised": False}), reply


def test_the_strict_rule_is_the_one_that_everybody_uses():
    for truth, reply in [(truth, boxed) for _, truth, boxed, *_ in CASES if "\\" not in boxed]:
        sample = EditSample("c", "chart", "chartqa", None, VALUE, truth, meta={"answer_type": "text"})
        found = outcome(CHARTQA, sample, f"\\boxed{{{reply}}}").parts["strict"]
        # A reply loses its full stop and double spaces when it is read; truths that have these must not suffer from it.
        read = reply if truth == "U.S." else reply.rstrip(".")
        assert found is official(read, " ".join(truth.split())), (truth, reply)


# ---------------------------------------------------------------------------------------------------------- layouts

ROWS = [  # picture, question, truth, half
    ("red", VALUE, "6.7", "human"),
    ("red", YEAR, "2019", "human"),
    ("blue", "How much?", "1,234", "augmented"),
    ("blue", "How much?", "1,234", "augmented"),
]


def as_in_huggingface_m4(folder, rows=ROWS, named=True):
    features = {
        "image": datasets.Image(),
        "query": datasets.Value("string"),
        "label": datasets.List(datasets.Value("string")),
        "human_or_machine": datasets.ClassLabel(names=["human", "machine"]),
    }
    made = [
        {
            "image": {"bytes": png(colour=colour), "path": None},
            "query": question,
            "label": [truth],
            "human_or_machine": int(half != "human"),
        }
        for colour, question, truth, half in rows
    ]
    write_parquet(made, folder / "data" / "test-00000-of-00001-abc.parquet", features if named else None)
    write_parquet([made[0] | {"query": "a training question"}], folder / "data" / "train-00000-of-00001-abc.parquet")


def as_in_lmms_eval(folder, rows=ROWS):
    made = [
        {"image": {"bytes": png(colour=c), "path": "x.png"}, "question": q, "answer": t, "type": f"{half}_test"}
        for c, q, t, half in rows
    ]
    write_parquet(made, folder / "test-00000-of-00001.parquet")


def as_the_authors_do(folder, rows=ROWS, place="ChartQA Dataset/test"):
    pictures = folder / place / "png"
    pictures.mkdir(parents=True)
    for colour in {row[0] for row in rows}:
        (pictures / f"{colour}.png").write_bytes(png(colour=colour))
    for half in ("human", "augmented"):
        mine = [{"imgname": f"{c}.png", "query": q, "label": t} for c, q, t, of in rows if of == half]
        (folder / place / f"test_{half}.json").write_text(json.dumps(mine))


LAYOUTS = [
    as_in_huggingface_m4,
    lambda folder: as_in_huggingface_m4(folder, named=False),
    as_in_lmms_eval,
    as_the_authors_do,
    lambda folder: as_the_authors_do(folder, place="."),
]


def test_every_layout_gives_the_same_samples(tmp_path):
    for number, write in enumerate(LAYOUTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder)
        samples = CHARTQA.load(folder, LoadOptions())
        as_in_lmms_eval(folder / "other")
        other = CHARTQA.load(folder / "other", LoadOptions())
        assert samples.ids == other.ids, number
        assert len(set(samples.ids)) == 4, number
        assert samples.ids[3] == f"{samples.ids[2]}-2", number
        for index, (_, question, truth, half) in enumerate(ROWS):
            sample = samples[index]
            assert (sample.question, sample.answer, sample.meta["category"]) == (question, truth, half), number
            assert (sample.meta["answer_type"], sample.choices, sample.family) == ("text", None, "chart"), number
            assert sample.image.tobytes() == other[index].image.tobytes(), number
            assert samples.peek(index).image.size == (64, 48), number
        clusters = [samples.peek(index).meta["cluster"] for index in range(4)]
        assert clusters[0] == clusters[1] != clusters[2] == clusters[3], number  # two charts


def test_ids_go_with_rows_in_any_order_and_pixels_are_read_when_asked_for(tmp_path):
    as_in_lmms_eval(tmp_path / "one")
    as_in_lmms_eval(tmp_path / "other", ROWS[::-1])
    one, other = (CHARTQA.load(tmp_path / name, LoadOptions()) for name in ("one", "other"))
    assert {key: one[i].question for i, key in enumerate(one.ids)} == {
        k: other[i].question for i, k in enumerate(other.ids)
    }

    row = {"image": {"bytes": EIGHT_K}, "question": VALUE, "answer": "1", "type": "human_test"}
    write_parquet([row], tmp_path / "test.parquet")
    samples = CHARTQA.load(tmp_path, LoadOptions())
    assert samples.peek(0).image.size == (7680, 4320)
    with pytest.raises(ValueError, match="row 1: not a readable image"):
        samples[0]


GOOD = {"image": {"bytes": png()}, "question": VALUE, "answer": "1", "type": "human_test"}


ONE = {"image": {"bytes": png()}, "query": VALUE}  # with the columns' other names


def test_a_bad_row_is_named(tmp_path):
    for number, (rows, message) in enumerate(
        [
            ([GOOD, GOOD | {"question": None}], "row 2: question is missing"),
            ([GOOD, GOOD | {"question": BIG_TEXT}], "row 2: question has 10,000,000 characters"),
            ([GOOD, GOOD | {"answer": " "}], "row 2: label is empty"),
            ([GOOD, GOOD | {"type": "val"}], "row 2: category 'val' is none of"),
            ([GOOD, GOOD | {"image": None}], "row 2: a picture must be embedded as bytes, got NoneType"),
            ([GOOD, GOOD | {"image": {"bytes": None}}], "row 2: a picture must be embedded as bytes"),
            ([GOOD, GOOD | {"image": {"bytes": BOMB}}], "row 2: not a readable image .*exceeds limit"),
            ([GOOD, GOOD | {"image": {"bytes": cut_jpeg()}}], "row 2: not a readable image"),
            ([ONE | {"label": ["1", "2"], "human_or_machine": 0}], "row 1: label holds 2 answers; one is wanted"),
            ([ONE], "no column label, human_or_machine; it has: image, query"),
        ]
    ):
        folder = tmp_path / str(number)
        write_parquet(rows, folder / "test.parquet")
        with pytest.raises(ValueError, match=rf"test.parquet.*{message}"):
            CHARTQA.load(folder, LoadOptions())[1]


def test_files_of_the_authors_are_lists_of_questions_about_pictures_in_their_folder(tmp_path):
    for number, name in enumerate(["/etc/passwd", "../test_human.json", "none.png", None, 5, "a\0"]):
        folder = tmp_path / str(number)
        as_the_authors_do(folder)
        path = folder / "ChartQA Dataset" / "test" / "test_augmented.json"
        path.write_text(json.dumps([{"imgname": name, "query": VALUE, "label": "1"}]))
        with pytest.raises(ValueError, match=r"test_augmented.json, row 1: (path|no file)"):
            CHARTQA.load(folder, LoadOptions())

    for number, content in enumerate(["{}", "[1]", "[{}]", "[", '[{"imgname": NaN}]']):
        folder = tmp_path / f"list {number}"
        as_the_authors_do(folder)
        (folder / "ChartQA Dataset" / "test" / "test_human.json").write_text(content)
        with pytest.raises(ValueError, match=r"test_human.json"):
            CHARTQA.load(folder, LoadOptions())
