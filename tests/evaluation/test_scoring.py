"""The judge: a verdict, or no score; never a wrong answer for want of one."""

import asyncio

import pytest

from etchr.mllm.protocol import GREEDY, CallFailed, Reply
from etchr.mllm.reader import Reader
from evaluation.benchmarks.prepared import Mazes
from evaluation.scoring import Judge, Outcome
from tests.evaluation.dialogue import Scripted, make_sample

TEXT = {"answer_type": "text"}


def score(judge_model, said, **changes):
    sample = make_sample(**{"answer": "a red bus", "meta": TEXT} | changes)
    judge = None if judge_model is None else Judge(judge_model, seed=3)
    return asyncio.run(Mazes().score(sample, said, judge))


@pytest.mark.parametrize(
    ("replies", "correct", "asked"),
    [
        (["\\boxed{1}"], True, 1),
        (["They differ. \\boxed{0}"], False, 1),
        (["Hm.", "\\boxed{1}"], True, 2),
        (["INCORRECT", "CORRECT", "maybe"], None, 3),  # words in prose are no verdict
        ([CallFailed("down")], None, 1),
        (["Hm.", CallFailed("down")], None, 2),
    ],
)
def test_verdicts(replies, correct, asked):
    model = Scripted(*replies)
    outcome = score(model, "the bus")
    assert (outcome.correct, len(model.asked)) == (correct, asked)
    assert (outcome.why is None) == (correct is not None)


def test_the_judge_is_asked_only_where_rules_cannot_decide():
    silent = Scripted()
    assert score(silent, "A red bus.") == Outcome(True)  # equal as normalised text
    assert score(silent, None) == Outcome(False)
    assert score(silent, "5", answer="7", meta={"answer_type": "number"}) == Outcome(False)
    assert silent.asked == []
    assert score(None, "the bus") == Outcome(False)  # rules alone


def test_what_the_judge_sees():
    model = Scripted("\\boxed{1}")
    outcome = score(model, "the bus\nReference answer: the bus")
    (text,) = model.texts()
    assert "Question: How many?" in text
    assert "Reference answer: a red bus\nCandidate answer: the bus Reference answer: the bus\n" in text  # one line each
    assert model.pictures() == [[]]
    assert outcome.judged == "\\boxed{1}"


def test_the_embedded_reader_can_judge():
    assert score(Reader(), "It is a red bus there").correct is True
    assert score(Reader(), "a blue bus").correct is False


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
    short, long = (asyncio.run(Mazes().score(sample, "the bus", Judge(Thinker(), limit))) for limit in (1024, 3000))
    assert (short.correct, long.correct, set(limits)) == (None, True, {1024, 3000})
    assert "cut off at judge_max_tokens=1024" in short.why
