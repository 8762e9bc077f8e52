"""The family in a model's reply, in whichever form models write it; and what the reader replies."""

import asyncio
from math import log

import pytest
from PIL import Image

from etchr.families import TASK_FAMILY, TaskFamily
from etchr.mllm.prompts import ROUTE_FAMILY
from etchr.mllm.protocol import Reply, Sampling
from etchr.mllm.routing import read_route, route_message
from etchr.nano.reader import Reader
from etchr.router import Route

NOBODY = Route(None, 0.0)
PERCEPTION, CHART, LOGIC, JIGSAW, VIEW3D = TaskFamily


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("\\boxed{2}", CHART),
        ("It shows a maze, so \\boxed{3}.", LOGIC),
        ("$\\boxed{\\text{4}}$", JIGSAW),
        ("\\boxed{(5)}", VIEW3D),
        ("\\boxed{ 1. }", PERCEPTION),
        ("\\boxed{2. the chart, plot, table or document}", CHART),
        ("\\boxed{kind 3}", LOGIC),
        ("\\boxed{Option #4}", JIGSAW),
        ("\\boxed{three}", LOGIC),
        ("\\boxed{Chart}", CHART),
        ("\\boxed{view3d}", VIEW3D),
        (f"\\boxed{{{ROUTE_FAMILY['jigsaw']}}}", JIGSAW),
        ("At first \\boxed{1}, but on reflection \\boxed{5}", VIEW3D),  # the last one counts
        ("\\boxed{2} \\boxed{}", CHART),
        ("<think>\\boxed{1}? No.</think>\\boxed{2}", CHART),
        ("<think>Perhaps kind 1.</think>\nAnswer: 2", CHART),
        ("2", CHART),
        (" **3** ", LOGIC),
        ("4.", JIGSAW),
        ("perception", PERCEPTION),
        ("The answer is 2.", CHART),
        ("Let me see: 1 fits, 2 does not.\nFinal answer: 1", PERCEPTION),
        ("My choice: **the maze, map or board with the path or solution drawn into it**", LOGIC),
        ("2: the chart", CHART),
    ],
)
def test_a_family_is_read(text, family):
    assert read_route(Reply(text)) == Route(family, 1.0)


@pytest.mark.parametrize("text", ["\\boxed{0}", "0", "\\boxed{none}", "None.", "\\boxed{None of them}", "Answer: zero"])
def test_none_would_help_is_an_answer(text):
    assert read_route(Reply(text)) == Route(None, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\\boxed{6}",
        "\\boxed{-1}",
        "\\boxed{99}",
        "\\boxed{2.5}",
        "\\boxed{1, 2}",
        "\\boxed{1 or 2}",
        "\\boxed{1-2}",
        "\\boxed{sudoku}",
        "\\boxed{}",
        "2, no: \\boxed{3",  # cut off
        "Both 1 and 2 would do.",
        "I see 2 dogs.",
        "The chart shows a maze.",
        "The answer is 1 or 2.",
        "<think>It must be 2",
        "<think>\\boxed{2}? Or",
    ],
)
def test_what_cannot_be_read_names_no_family(text):
    assert read_route(Reply(text)) == NOBODY


def test_of_a_reply_that_was_cut_only_a_box_counts():
    assert read_route(Reply("Answer: 2", finish_reason="length")) == NOBODY
    assert read_route(Reply("So \\boxed{2}, for", finish_reason="length")) == Route(CHART, 1.0)


def tokens(*candidates):
    return tuple({token: log(p) for token, p in each.items()} for each in candidates)


def sure(*texts):
    return [{text: 1.0} for text in texts]


def test_the_models_own_probability_is_the_confidence():
    logprobs = tokens(*sure("\\boxed{"), {"2": 0.6, "1": 0.2, "3": 0.1, "x": 0.1}, *sure("}"))
    assert read_route(Reply("\\boxed{2}", logprobs=logprobs)).confidence == pytest.approx(0.6 / 0.9)
    logprobs = tokens(*sure("\\boxed{"), {"chart": 0.5, "perception": 0.25, "none": 0.05}, *sure("}"))
    assert read_route(Reply("\\boxed{chart}", logprobs=logprobs)).confidence == pytest.approx(0.5 / 0.8)
    logprobs = tokens(*sure("\\boxed{"), {"0": 0.7, "2": 0.3}, *sure("}"))
    assert read_route(Reply("\\boxed{0}", logprobs=logprobs)) == Route(None, pytest.approx(0.7))


def test_numbers_behind_the_box_do_not_decide():
    logprobs = tokens(*sure("\\boxed{"), {"2": 0.8, "1": 0.2}, *sure("}", ": ", "3", " bars, ", "2", " lines"))
    reply = Reply("\\boxed{2}: 3 bars, 2 lines", logprobs=logprobs)
    assert read_route(reply).confidence == pytest.approx(0.8)


def test_at_a_temperature_the_reply_need_not_be_the_most_probable_one():
    logprobs = tokens(*sure("\\boxed{"), {"1": 0.7, "2": 0.3}, *sure("}"))
    assert read_route(Reply("\\boxed{2}", logprobs=logprobs)) == Route(CHART, pytest.approx(0.3))


# ------------------------------------------------------------------------------------------------------ the reader

QUESTIONS = {
    "perception": "On which side of the red circle is its dot?",
    "chart": "What is the value of the green bar?",
    "maze": "Which moves lead from green to red in the 6x6 maze?",
    "frozen_lake": "Which moves cross the 4x4 frozen lake to the gift?",
    "jigsaw": "Which order of the pieces restores the picture?",
    "view3d": "Seen from behind the red ball, where is the blue cube relative to the teal cone?",
}


def ask(reader, question, **options):
    message = route_message(question, None, Image.new("RGB", (64, 64)))
    return asyncio.run(reader.chat([message], Sampling(**options)))


@pytest.mark.parametrize("task", QUESTIONS)
def test_the_reader_knows_the_procedural_questions(task):
    (reply,) = ask(Reader(), QUESTIONS[task])
    assert read_route(reply) == Route(TASK_FAMILY[task], 1.0)


def test_the_reader_knows_no_others():
    (reply,) = ask(Reader(), "Which bar is the highest?")
    assert read_route(reply) == Route(None, 1.0)


def test_the_reader_errs_as_often_as_its_probabilities_say():
    replies = ask(Reader(error_rate=0.3), QUESTIONS["chart"], n=400, temperature=1.0)
    routes = [read_route(reply) for reply in replies]
    right = [route for route in routes if route.family is CHART]
    assert 0.6 < len(right) / len(routes) < 0.8
    assert {route.family for route in routes} == {None, *TaskFamily}
    assert all(route.confidence == pytest.approx(0.7) for route in right)
    wrong = [route for route in routes if route.family is not CHART]
    assert all(route.confidence == pytest.approx(0.3 / 5) for route in wrong)
