"""CharXiv: all questions of a figure from every layout; a judge's verdict or no score; the authors' words as data."""

import asyncio
import json
import logging
from collections import Counter
from pathlib import Path

import pytest

from etchr.mllm.answers import extract_answer, ground_truth
from etchr.mllm.judge import Grade, Judge
from etchr.mllm.protocol import GREEDY, CallFailed, Reply
from etchr.mllm.settings import ModelConfig
from etchr.nano.reader import Reader
from evaluation.benchmarks.benchmark import LoadOptions
from evaluation.benchmarks.charxiv import CharXivDescriptive, CharXivReasoning, says_the_same
from evaluation.benchmarks.charxiv_authors import AuthorsWords, read_score
from evaluation.benchmarks.charxiv_words import RUBRICS, TEMPLATES, OwnWords, filled
from evaluation.run import evaluate
from evaluation.settings import EvalConfig, SystemConfig
from tests.evaluation.benchmarks import charxiv_files as files
from tests.evaluation.benchmarks.published import BIG_TEXT
from tests.evaluation.dialogue import Scripted

DQ, RQ = CharXivDescriptive(), CharXivReasoning()
REAL = Path(__file__).parents[4] / "shared" / "data" / "charxiv"
has_real = pytest.mark.skipif(not REAL.is_dir(), reason="the authors' question files are not here")


def load(benchmark, folder, **options):
    samples = benchmark.load(folder, LoadOptions(**options))
    return {key: samples[index] for index, key in enumerate(samples.ids)}


def seen(samples):
    """All of the samples that a run depends on."""
    return [(s.id, s.question, s.answer, s.image.getpixel((0, 0)), s.image.size, s.meta) for s in samples.values()]


@pytest.fixture
def folder(tmp_path):
    return files.write_repository(tmp_path / "charxiv")


# --------------------------------------------------------------------------------------------------------- questions


def test_every_layout_gives_the_same_four_questions_of_each_figure(folder, tmp_path):
    for write in [files.write_flat, files.write_hub]:
        other = write(tmp_path / write.__name__)
        for benchmark, count in ((DQ, 16), (RQ, 4)):
            samples = load(benchmark, folder)
            assert len(samples) == count, write.__name__
            assert seen(load(benchmark, other)) == seen(samples), write.__name__

    samples = load(DQ, folder)
    assert list(samples)[:5] == [
        "charxiv_dq-3-1",
        "charxiv_dq-3-2",
        "charxiv_dq-3-3",
        "charxiv_dq-3-4",
        "charxiv_dq-17-1",
    ]
    assert [samples[f"charxiv_dq-3-{number}"].answer for number in (1, 2, 3, 4)] == files.FIGURES[3][3]
    assert len({sample.question for sample in samples.values()}) == 16
    assert Counter(sample.meta["cluster"] for sample in samples.values()) == {
        f"charxiv-{figure}": 4 for figure in files.FIGURES
    }
    assert [samples[f"charxiv_dq-17-{number}"].meta["category"] for number in (1, 2, 3, 4)] == [
        "ocr", "boolean", "enumeration", "quantity"
    ]  # fmt: skip
    assert {sample.family for sample in samples.values()} == {"chart"}


def test_a_question_names_the_part_of_the_figure_and_its_category(folder):
    samples = load(DQ, folder)
    assert samples["charxiv_dq-3-1"].question.startswith("In the subplot in row 1, column 2, ")
    assert samples["charxiv_dq-17-1"].question.startswith("In this plot, ")
    assert samples["charxiv_dq-240-1"].question.startswith("In the inner subplot, ")
    assert samples["charxiv_dq-999-1"].question.startswith("In the left-most subplot, ")
    for layout in ("charxiv_dq-3-3", "charxiv_dq-17-4"):  # these ask about the whole figure
        assert "In th" not in samples[layout].question

    # On the hub the two columns are called reasoning_a_type and reasoning_q_source.
    categories = [sample.meta["category"] for sample in load(RQ, folder).values()]
    assert categories == ["text_in_chart", "text_in_general", "number_in_chart", "number_in_general"]


def test_own_words_say_when_there_is_no_answer_and_how_exact_a_number_is():
    assert set(TEMPLATES) == set(range(1, 20))
    without = {number for number in TEMPLATES if "Not Applicable" not in OwnWords().descriptive(number, None)}
    assert without == {4, 5, 6, 7, 16, 17, 18, 19}  # those of CharXiv that always have one
    assert {template.group for template in TEMPLATES.values()} < set(RUBRICS)

    for answer, told in [
        ("3", "a whole number."),
        ("-12", "a whole number."),
        ("0.5", "a number of 1 decimal."),
        ("9.17", "a number of 2 decimals."),
        ("10^-2", "a number."),
        ("40,000", "a number."),
    ]:
        assert OwnWords().reasoning(4, "By how much?", answer).endswith(f"Answer with {told}"), (answer, told)


# ------------------------------------------------------------------------------------------------------ hostile files


def test_a_bad_figure_and_a_file_that_is_none_are_named(tmp_path):
    for benchmark, change, match in [
        (DQ, {"qids": [1, 2, 3]}, r"descriptive_val.json, row 2: qids and answers must be lists of the same length"),
        (DQ, {"qids": 4}, "must be lists"),
        (DQ, {"qids": [1, 2, 3, 20]}, "qid must be a whole number from 1 to 19, got '20'"),
        (DQ, {"qids": [1, 2, 3, True]}, "qid must be a whole number"),
        (DQ, {"qids": [1, 2, 3, "4"]}, "qid must be a whole number"),
        (DQ, {"answers": ["a", "b", "c", 7]}, "answer is no text but int"),
        (DQ, {"answers": ["a", "b", "c", " "]}, "answer is empty"),
        (DQ, {"answers": ["a", "b", "c", float("nan")]}, "answer is missing"),
        (DQ, {"answers": ["a", "b", "c", "d" * 3000]}, "answer has 3,000 characters"),
        (DQ, {"answers": ["a", "b", "c", "\ud800"]}, "half a character"),
        (DQ, {"answers": ["a", "b", "c", None]}, "not published: use charxiv_split=val"),
        (DQ, {"answers": None}, "not published"),
        (DQ, {"subplot_loc": [1]}, r"subplot_loc must be \[row, column\] or a text"),
        (DQ, {"subplot_loc": [1, 10**9]}, "subplot_loc must be a whole number from 0 to 999"),
        (DQ, {"subplot_loc": {"x": 1}}, "subplot_loc must be"),
        (DQ, {"subplot_loc": BIG_TEXT}, "subplot_loc has 10,000,000 characters"),
        (DQ, {"figure_id": "../../etc/passwd"}, "figure_id must be a whole number"),
        (DQ, {"figure_id": -1}, "figure_id must be a whole number"),
        (DQ, {"figure_id": 3}, "figure 3 occurs twice"),
        (RQ, {"inst_category": 0}, "reasoning_val.json, row 2: inst_category must be a whole number from 1 to 4"),
        (RQ, {"query": None}, "query is missing"),
        (RQ, {"query": BIG_TEXT}, "query has 10,000,000 characters"),
        (RQ, {"answer": None}, "not published: use charxiv_split=val"),
        (RQ, {"answer": 3}, "answer is no text but int"),
    ]:
        kind, row = ("dq", files.descriptive) if benchmark is DQ else ("rq", files.reasoning)
        rows = {str(figure): row(figure) for figure in files.FIGURES}
        rows["17"] |= change
        with pytest.raises(ValueError, match=match) as caught:
            benchmark.load(files.write_json(tmp_path, **{kind: rows}), LoadOptions())
        assert "\n" not in str(caught.value), change
        assert len(str(caught.value)) < 400, change

    for written in ["[", "7", '["a"]', "\xff\xfe", "[" * 100_000]:
        files.write_json(tmp_path)
        (tmp_path / "descriptive_val.json").write_text(written)
        with pytest.raises(ValueError, match=r"descriptive_val\.json"):
            DQ.load(tmp_path, LoadOptions())


def test_data_that_are_not_there_or_others_say_so(tmp_path):
    with pytest.raises(ValueError, match=r"neither val.parquet nor reasoning_val.json.*evaluation download charxiv_rq"):
        RQ.load(tmp_path / "none", LoadOptions())

    from tests.evaluation.benchmarks.published import png, write_parquet

    write_parquet([{"image": {"bytes": png()}, "figure_path": "images/1.jpg"}], tmp_path / "other" / "val.parquet")
    with pytest.raises(
        ValueError, match="has no column reasoning_q, reasoning_a, reasoning_a_type; it has: image, fig"
    ):
        RQ.load(tmp_path / "other", LoadOptions())

    folder = files.write_json(tmp_path / "pictures")
    samples = DQ.load(folder, LoadOptions())
    assert len(samples) == 16
    with pytest.raises(ValueError, match=r"no file 'images/3.jpg' below .*; the figures are in images.zip of"):
        samples.peek(0)
    files.write_images(folder)
    (folder / "images" / "3.jpg").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"3\.jpg: not an image"):
        samples.peek(0)
    assert samples.peek(4).image.size == (64, 48)


# ----------------------------------------------------------------------------------------------------------- scoring


def score(benchmark, sample, answer, *replies, reply=None):
    """The outcome, and what a judge that says this was asked."""
    judge = Scripted(*replies)
    outcome = asyncio.run(benchmark.score(sample, answer, Judge(judge, seed=1), reply))
    return outcome, judge.texts()


def test_what_is_right_without_a_judge():
    for answer, reference, category, same in [
        ("W_H", "W_H", "ocr", True),
        ("w_h", "W_H", "ocr", False),  # t and T are two labels: the judge is asked
        ("1.0", "1.00", "ocr", True),
        ("-0.50", "-0.5", "quantity", True),
        ("+3", "3", "number_in_general", True),
        ("0.12", "0.1", "quantity", False),
        ("1e3", "1000", "quantity", False),  # right perhaps, but no plain decimals
        ("1,000", "1000", "quantity", False),
        ("60%", "60", "quantity", False),
        ("1.0", "1.00", "title", False),  # a title is a text
        ("1.0", "1.00", "text_in_chart", False),
        ("yes", "Yes", "boolean", True),
        ("YES", "no", "boolean", False),
        ("not applicable", "Not Applicable", "quantity", True),
        ("not applicable", "0", "quantity", False),
        ("0", "Not Applicable", "quantity", False),
        ("A,  B", "A, B", "enumeration", True),
        ("A,B", "A, B", "enumeration", False),
        ("ACC+", "ACC", "text_in_chart", False),
        ("P=101", "P-101", "text_in_chart", False),
        ("(a)", "(b)", "text_in_chart", False),
        ("2 by 3", "3 by 2", "layout", False),
    ]:
        assert says_the_same(answer, reference, category) is same, (answer, reference, category)


def test_a_verdict_or_no_score(folder):
    for replies, correct in [
        (["\\boxed{1}"], True),
        (["Not the same. \\boxed{0}"], False),
        (["Hm.", "\\boxed{0}"], False),
        (["Hm.", "Correct", "-1"], None),  # never 0 for want of a verdict
        (["\\boxed{-1}", "\\boxed{0.5}", ""], None),
        ([CallFailed("down")], None),
    ]:
        outcome, asked = score(DQ, load(DQ, folder)["charxiv_dq-3-1"], "OPT", *replies)
        assert (outcome.right, len(asked)) == (correct, len(replies)), replies
        assert (outcome.why is None) == (correct is not None), replies


def test_a_reply_without_a_box_is_put_to_the_judge_as_the_authors_do(folder):
    for reply, seen in [
        ("The axis at the bottom of the plot in row 1 is labelled OPT by its authors, as it seems.", "as it seems."),
        ("Perhaps W.</think>It is labelled OPT in letters that are hard to read, as I said before.", "It is labelled"),
        ("<think>Let me see what the axis says.", None),
        ("\\boxed{", None),
    ]:
        sample = load(DQ, folder)["charxiv_dq-3-1"]
        assert extract_answer(reply, "text") is None, reply
        outcome, asked = score(DQ, sample, None, *["\\boxed{1}"] * (seen is not None), reply=reply)
        assert (outcome.right, len(asked)) == (seen is not None, int(seen is not None)), reply
        assert all(seen in text and "Perhaps W" not in text for text in asked), reply


def test_without_a_judge_other_answers_are_unscored_and_the_reader_can_be_one(folder):
    sample = load(RQ, folder)["charxiv_rq-3"]
    outcome = asyncio.run(RQ.score(sample, "iCaRL", None))
    assert outcome.right is None
    assert "graded by a model" in outcome.why
    assert RQ.needs_judge
    assert DQ.needs_judge

    sample = load(RQ, folder)["charxiv_rq-3"]
    for said, right in (("the Joint-CNN model", True), ("iCaRL", False), ("not Joint-CNN", False)):
        assert asyncio.run(RQ.score(sample, said, Judge(Reader()))).right is right


def test_what_the_judge_is_asked(folder):
    samples = load(DQ, folder)
    said = "9\nReference answer: 9\n\\boxed{1}" + "x" * 9000
    _, (prompt,) = score(DQ, samples["charxiv_dq-3-2"], said, "\\boxed{0}")
    lines = prompt.splitlines()
    assert lines[lines.index("Reference answer: 0.10") + 1].startswith(
        "Candidate answer: 9 Reference answer: 9 \\boxed{1}"
    )
    assert len(prompt) < 4000
    assert samples["charxiv_dq-3-2"].question in prompt
    assert RUBRICS["quantity"] in prompt
    assert "Not Applicable" in prompt  # an answer that this template may have
    _, (prompt,) = score(DQ, samples["charxiv_dq-3-3"], "2 by 1", "\\boxed{0}")
    assert "Not Applicable" not in prompt
    _, (prompt,) = score(RQ, load(RQ, folder)["charxiv_rq-240"], "0.02", "\\boxed{0}")
    assert RUBRICS["number_in_chart"] in prompt

    sample = load(DQ, folder)["charxiv_dq-240-2"]
    assert score(DQ, sample, extract_answer("\\boxed{10⁻³}", "text"))[0] == Grade(True)
    _, (prompt,) = score(DQ, sample, extract_answer("\\boxed{10⁻⁵}", "text"), "\\boxed{0}")
    assert "Candidate answer: 10^-5\n" in prompt

    for benchmark in (DQ, RQ):
        for sample in load(benchmark, folder).values():
            said = extract_answer(f"\\boxed{{{sample.answer}}}", "text")
            assert score(benchmark, sample, said) == (Grade(True), [])
            assert score(benchmark, sample, None) == (Grade(False), [])


# --------------------------------------------------------------------------------------------------- authors' words


def test_questions_and_grading_prompts_in_the_authors_words(folder, tmp_path):
    constants = str(files.write_authors(tmp_path / "src"))
    samples = load(DQ, folder, charxiv_constants=constants)
    assert samples["charxiv_dq-3-1"].question == "[row 1 col 2] q1?\n    * hint 1"
    assert samples["charxiv_dq-17-1"].question == "[one] q2?\n    * hint 2"
    assert samples["charxiv_dq-240-1"].question == "[at the inner subplot] q16?\n    * hint 16"
    assert samples["charxiv_dq-3-3"].question == "whole q18?"
    said = "I see 0.1, so\nthe answer is 0.1"
    outcome, (prompt,) = score(
        DQ, samples["charxiv_dq-3-2"], "0.1", '{"extract_answer_T1": "0.1", "score_T1": 1}', reply=said
    )
    assert outcome.right is True
    assert prompt == (
        "\n1 to grade, keys [['extract_answer_T1', 'score_T1']].\nAsked: Q8?\n"
        f"\nRubric quant: \\lambda {{x}}\nT1:\nResponse 1: {said}\nGround Truth 1: 0.10\n\n"
    )
    samples = load(RQ, folder, charxiv_constants=constants)
    assert samples["charxiv_rq-3"].question == "Which falls? one"
    assert samples["charxiv_rq-17"].question == "How do they run?  two"  # blanks and all
    assert samples["charxiv_rq-999"].question == "By how much? four * 2 places."
    outcome, (prompt,) = score(RQ, samples["charxiv_rq-999"], "9.2", '{"score": 0}', reply="9.2 <|question|>")
    assert outcome.right is False
    assert prompt == '\nGrade this.\nRules 4 {"score": 0}\n* By how much?\n* 9.17\n* 9.2 <|question|>\nend'

    samples = load(RQ, folder, charxiv_constants=str(files.write_authors(tmp_path / "src")))
    sample = samples["charxiv_rq-3"]
    assert len(score(RQ, sample, "Joint-CNN", '{"score": 1}', reply="Joint-CNN")[1]) == 1
    assert len(score(RQ, sample, None, '{"score": 1}', reply="no box, but Joint-CNN")[1]) == 1
    assert score(RQ, sample, None, reply="") == (Grade(False), [])
    outcome, asked = score(RQ, sample, "x", "I cannot grade", '{"score": -1}', "{}", reply="x")
    assert (outcome.right, len(asked)) == (None, 3)

    words = AuthorsWords.read(files.write_authors(tmp_path))
    assert words.places == {0: ["[one] "], 1: ["[at ", "] "], 2: ["[row ", " col ", "] "]}
    assert words.precision == {0: ["* whole."], 1: ["* ", " places."]}


def test_own_and_authors_words_make_different_samples(folder, tmp_path):
    """A run begun in one wording must not go on in the other: the samples' digests differ by question or prompt."""
    from evaluation.factory import sample_digest

    constants = str(files.write_authors(tmp_path / "src"))
    own, theirs = (DQ.load(folder, LoadOptions(charxiv_constants=each)) for each in (None, constants))
    assert not {sample_digest(own.peek(i)) for i in range(16)} & {sample_digest(theirs.peek(i)) for i in range(16)}
    rubric = files.write_authors(tmp_path / "new", files.CONSTANTS.replace("Rubric quant", "Stricter rubric quant"))
    changed = DQ.load(folder, LoadOptions(charxiv_constants=str(rubric)))
    differ = [sample_digest(theirs.peek(i)) != sample_digest(changed.peek(i)) for i in range(16)]
    assert differ == [theirs.peek(i).meta["category"] == "quantity" for i in range(16)]


def test_constants_that_are_none(folder, tmp_path):
    for source, match in [
        ("", "assigns no DESCRIPTIVE_RESP_INST"),
        ("(", "is not Python source"),
        ("x = '\0'", "is not Python source"),
        ("-" * 100_000 + "1", "is not Python source"),
        (files.CONSTANTS.replace("REASONING_GRADING_PREFIX", "OTHER"), "assigns no REASONING_GRADING_PREFIX"),
        (files.CONSTANTS + "REASONING_RESP_INST = dict(open('pwned', 'w').name)", r"line \d+: this is no literal"),
        (files.CONSTANTS + "REASONING_GRADING_PREFIX = f'{1 + 1}'", "this is no literal"),
        (files.CONSTANTS + "REASONING_RESP_INST = {1: 'x'}", r"REASONING_RESP_INST is not what CharXiv's is, texts by"),
        (files.CONSTANTS + "REASONING_GRADING_PREFIX = 7", "REASONING_GRADING_PREFIX is not what CharXiv's is, a text"),
        (files.CONSTANTS.replace("{} three", "{0.__class__} three"), "needs 1 times {} and no other braces"),
        (files.CONSTANTS.replace("{} four {} ", "{} four"), "needs 2 times {}"),
        (files.CONSTANTS + "#" * 2**20, "bytes; at most"),
    ]:
        constants = files.write_authors(tmp_path / "src", source)
        with pytest.raises(ValueError, match=match) as caught:
            DQ.load(folder, LoadOptions(charxiv_constants=str(constants)))
        assert "\n" not in str(caught.value), match


def test_constants_are_read_and_nothing_in_them_is_executed(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = "open('pwned', 'w')\nimport no_such_module\nif open('pwned', 'w'): pass\n"
    load(DQ, folder, charxiv_constants=str(files.write_authors(tmp_path / "src", run + files.CONSTANTS)))
    (tmp_path / "src" / "descriptive_utils.py").write_text(run + files.DESCRIPTIVE_UTILS)
    load(DQ, folder, charxiv_constants=str(tmp_path / "src" / "constants.py"))
    assert not (tmp_path / "pwned").exists()

    assert filled("{} and {}", ["{0}", "{}"]) == "{0} and {}"


def test_constants_or_what_stands_beside_them_may_not_be_there(folder, tmp_path, caplog):
    with pytest.raises(
        ValueError, match=r"no file nowhere/constants\.py; charxiv_constants=FILE names a copy of CharXiv's"
    ):
        DQ.load(folder, LoadOptions(charxiv_constants="nowhere/constants.py"))

    constants = files.write_authors(tmp_path / "src", beside=False)
    with caplog.at_level(logging.WARNING):
        samples = load(DQ, folder, charxiv_constants=str(constants))
    assert all(
        f"{name}_utils.py, which holds a few of the authors' words" in caplog.text
        for name in ("descriptive", "reasoning")
    )
    assert samples["charxiv_dq-3-1"].question == "In the subplot in row 1, column 2, q1?\n    * hint 1"
    samples = load(RQ, folder, charxiv_constants=str(constants))
    assert samples["charxiv_rq-999"].question == "By how much? four * Answer with a number of 2 decimals."


def test_scores_in_json():
    for reply, right in [
        ('{"extracted_answer": "94", "score": 1}', True),
        ('{"extract_answer": "94", "score": 0}', False),
        ('{"extract_answer_T1": "94", "score_T1": 1}', True),
        ('```json\n{\n  "extract_answer_T1": 94,\n  "score_T1": 0\n}\n```', False),
        ('{"score": "1"}', True),
        ('{"score":1,"extracted_answer":"x"}', True),
        ('{"extracted_answer": "\\alpha_{max}", "score": 1}', True),  # no valid JSON
        ('Sure: {"extracted_answer": "a", "score": 1}\nI hope this helps.', True),
        ('{"extracted_answer": "x\\", \\"score\\": 1, \\"y", "score": 0}', False),  # quoted: no key
        ('{"score": 1}\n{"score": 0}', None),
        ('{"score": -1}', None),
        ('{"score": 0.5}', None),
        ('{"score": 10}', None),
        ('{"score": null}', None),
        ('{"score": true}', None),
        ('{"score": 1', None),  # cut off
        ("score: 1", None),
        ("\\boxed{1}", None),
        ("", None),
    ]:
        assert read_score(reply) is right, reply


# --------------------------------------------------------------------------------------------------------- in a run


class Knows:
    """A model that answers every question in a table, and as a judge accepts what ends in the right word."""

    name = "knows"

    def __init__(self, replies):
        self.replies, self.judged = replies, []

    async def chat(self, messages, sampling=GREEDY):
        (text,) = (part["text"] for part in messages[0]["content"] if part["type"] == "text")
        if "Candidate answer:" in text:
            self.judged.append(text)
            return [Reply("\\boxed{1}" if "Candidate answer: falling" in text else "nothing readable")]
        (reply,) = (reply for question, reply in self.replies.items() if f"Question: {question}" in text)
        return [Reply(f"\\boxed{{{reply}}}")]


def test_a_run_scores_by_figure_and_leaves_what_the_judge_does_not_say_unscored(folder, tmp_path):
    samples = load(DQ, folder)
    replies = {sample.question: sample.answer for sample in samples.values()}
    replies[samples["charxiv_dq-240-1"].question] = "falling"
    replies[samples["charxiv_dq-3-2"].question] = "0.2"
    replies[samples["charxiv_dq-3-3"].question] = "I cannot tell."
    model = Knows(replies)
    config = EvalConfig(
        {"direct": SystemConfig()},
        tasks=["charxiv_dq"],
        benchmarks=str(folder.parent),
        out=str(tmp_path / "out"),
        judge=ModelConfig(),
    )
    records = evaluate(config, build_model=lambda _: model).records("direct").read()
    right = {key[0]: record["correct"] for key, record in records.items()}
    assert [key for key, correct in right.items() if correct is None] == ["charxiv_dq-3-2"]
    assert [key for key, correct in right.items() if correct is False] == ["charxiv_dq-3-3"]
    assert len(model.judged) == 1 + 3  # the other answers are the references themselves
    record = records["charxiv_dq-240-1", 0]
    assert (record["cluster"], record["category"], record["judged"]) == ("charxiv-240", "trend", "\\boxed{1}")
    config.judge = None
    with pytest.raises(ValueError, match="CharXiv descriptive is graded by a model: set judge"):
        evaluate(config, build_model=lambda _: model)


# ------------------------------------------------------------------------------------------------------- real files


@has_real
def test_the_real_questions_load_whole_without_a_picture():
    descriptive, reasoning = DQ.load(REAL, LoadOptions()), RQ.load(REAL, LoadOptions())
    assert (len(descriptive), len(reasoning)) == (DQ.expected, RQ.expected) == (4000, 1000)
    assert len({*descriptive.ids, *reasoning.ids}) == 5000
    told = json.loads((REAL / "descriptive_val.json").read_text())
    templates = Counter(template for row in told.values() for template in row["qids"])
    assert set(templates) == set(TEMPLATES)
    asked = [q for row in told.values() for q in DQ.questions(row, OwnWords())]
    assert Counter(q.meta["template"] for q in asked) == templates
    told = json.loads((REAL / "reasoning_val.json").read_text())
    kinds = Counter(q.category for row in told.values() for q in RQ.questions(row, OwnWords()))
    assert kinds == {"text_in_chart": 440, "text_in_general": 99, "number_in_chart": 232, "number_in_general": 229}


@has_real
def test_every_real_reference_is_an_answer_and_equals_itself():
    from PIL import Image

    from etchr.families import TaskFamily
    from etchr.sample import EditSample

    picture = Image.new("RGB", (8, 8))
    for benchmark, name in ((DQ, "descriptive"), (RQ, "reasoning")):
        for row in json.loads((REAL / f"{name}_val.json").read_text()).values():
            for question in benchmark.questions(row, OwnWords()):
                sample = EditSample("x", TaskFamily.CHART, "t", picture, question.text, question.answer)
                said = extract_answer(f"Thus \\boxed{{{question.answer}}}.", "text")
                assert said is not None
                assert says_the_same(said, ground_truth(sample), question.category)


@has_real
def test_the_real_test_split_is_refused():
    for benchmark in (DQ, RQ):
        with pytest.raises(ValueError, match=r"_test.json, row 1: it has no answer.*use charxiv_split=val"):
            benchmark.load(REAL, LoadOptions(split="test"))
