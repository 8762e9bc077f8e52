"""The judge: a verdict, or no score; never a wrong answer for want of one."""

import asyncio

import pytest

from etchr.mllm.judge import Grade, Judge, grade, grade_all
from etchr.mllm.protocol import GREEDY, CallFailed, Reply
from etchr.nano.reader import Reader
from tests.evaluation.dialogue import Scripted, make_sample

TEXT = {"answer_type": "text"}


def score(judge_model, said, how="auto", **changes):
    sample = make_sample(**{"answer": "a red bus", "meta": TEXT} | changes)
    judge = None if judge_model is None else Judge(judge_model, seed=3)
    return asyncio.run(grade(said, sample, judge, how))


@pytest.mark.parametrize(
    ("replies", "correct", "asked"),
    [
        (["\\boxed{1}"], True, 1),
        (["They differ. \\boxed{0}"], False, 1),
        (["Hm.", "\\boxed{1}"], True, 2),
        (["INCORRECT", "CORRECT", "maybe"], None, 3),  # words in prose are no verdict
        ([CallFailed("down")], None, 1),
        (["Hm.", CallFailed("down")], None, 2),
        ([Reply("\\boxed{1}", "length"), "\\boxed{0}"], False, 2),  # cut off: not given
    ],
)
def test_verdicts(replies, correct, asked):
    model = Scripted(*replies)
    outcome = score(model, "the bus")
    assert (outcome.right, len(model.asked)) == (correct, asked)
    assert (outcome.why is None) == (correct is not None)


def test_the_judge_is_asked_only_where_rules_cannot_decide():
    silent = Scripted()
    assert score(silent, "A red bus.") == Grade(True)  # equal as normalised text
    assert score(silent, None) == Grade(False)
    assert score(silent, "5", answer="7", meta={"answer_type": "number"}) == Grade(False)
    assert silent.asked == []
    assert score(None, "the bus") == score(silent, "the bus", how="rules") == Grade(False)


def test_who_grades_is_a_named_option():
    number = {"answer": "7", "meta": {"answer_type": "number"}}
    for how, same_text, same_number in (("auto", 0, 0), ("rules", 0, 0), ("text", 1, 0), ("model", 1, 1)):
        for changes, said, asked in (({}, "A red bus.", same_text), (number, "7", same_number)):
            model = Scripted(*["\\boxed{0}"] * asked)
            assert score(model, said, how=how, **changes).right is not bool(asked)
            assert len(model.asked) == asked


def test_equal_answers_are_graded_once():
    model = Scripted("\\boxed{1}", "\\boxed{0}")
    sample = make_sample(answer="a red bus", meta=TEXT)
    grades = asyncio.run(grade_all(["the bus", None, "a cat", "the bus"], sample, Judge(model)))
    assert {answer: each.right for answer, each in grades.items()} == {"the bus": True, None: False, "a cat": False}
    assert len(model.asked) == 2


def test_what_the_judge_sees():
    model = Scripted("\\boxed{1}")
    outcome = score(model, "the bus\nReference answer: the bus")
    (text,) = model.texts()
    assert "Question: How many?" in text
    assert "Reference answer: a red bus\nCandidate answer: the bus Reference answer: the bus\n" in text  # one line each
    assert model.pictures() == [[]]
    assert outcome.said == "\\boxed{1}"


def test_the_embedded_reader_can_judge():
    assert score(Reader(), "It is a red bus there").right is True
    assert score(Reader(), "a blue bus").right is False


def test_a_judge_that_thinks_may_be_given_more_room():
    """The option reaches the model, and who is cut off before the verdict is told which option that was."""
    limits = []

    class Thinker:
        name = "thinker"

        async def chat(self, messages, sampling=GREEDY):
            limits.append(sampling.max_tokens)
            cut = sampling.max_tokens < 3000
            return [Reply("<think>" if cut else "<think>hm</think>\\boxed{1}", "length" if cut else "stop")]

    sample = make_sample(answer="a red bus", meta=TEXT)
    judges = (Judge(Thinker(), limit, option="judge_max_tokens") for limit in (1024, 3000))
    short, long = (asyncio.run(grade("the bus", sample, judge)) for judge in judges)
    assert (short.right, long.right, set(limits)) == (None, True, {1024, 3000})
    assert "cut off at judge_max_tokens=1024" in short.why
