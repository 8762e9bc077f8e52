"""A system whose families come from the rule: what is drawn, what is not, and what a run remembers of the rule."""

import asyncio

import pytest
from PIL import Image

from etchr.evr import Sampling
from etchr.families import TASK_FAMILY, TaskFamily
from etchr.router import DEFAULT_WORDS, Router
from etchr.run_folder import content_digest
from etchr.sample import write_parquet
from evaluation.benchmarks.benchmark import LoadOptions
from evaluation.benchmarks.prepared import Procedural
from evaluation.factory import fingerprint
from evaluation.settings import EvalConfig, SystemConfig
from evaluation.store import EditStore
from evaluation.systems import run_system
from evaluation.systems.base import Models, Setup
from tests.evaluation.dialogue import ACCEPT, Painter, Scripted, make_sample, run, system

SEVEN = "\\boxed{7}"


def test_the_questions_words_decide_the_meta_prompt_or_that_the_model_answers_directly():
    for question, meta_prompt in [
        ("Find the shortest path through the maze.", "Draw the shortest path."),
        ("Which piece of the puzzle goes to the top left?", "Restore the jigsaw puzzle."),
        ("What is the value of the third bar?", "Draw a red box for the chart question."),
    ]:
        painter = Painter()
        sample = make_sample(question=question, family=TaskFamily.PERCEPTION)  # a label that does not count
        trace = run(system("evr", route="rule"), Scripted(ACCEPT, SEVEN), sample, painter=painter)
        assert painter.drawn[0][0] == f"{meta_prompt} {question}", question
        assert trace.routed.confidence >= 0.5, question

    for question in ["Describe the photo.", "Wie spät ist es?"]:
        painter, model = Painter(), Scripted(SEVEN)
        trace = run(system("evr", route="rule"), model, make_sample(question=question), painter=painter)
        assert (painter.drawn, trace.proposal, trace.routed.family, trace.answer) == ([], None, None, "7"), question
        assert len(model.asked) == 1, question


def test_a_route_counts_whatever_the_prompt():
    """Below the confidence nobody writes an instruction; above it the prompt is what it is without a route."""
    for prompt in ["enhanced", "instruction"]:
        chart = make_sample(question="What is the value of the third bar?")
        before = ["\\boxed{Red box round the bar.}"] if prompt == "enhanced" else []
        painter, model = Painter(), Scripted(*before, ACCEPT, SEVEN)
        trace = run(system("evr", prompt=prompt, route="rule"), model, chart, painter=painter)
        expected = "Red box round the bar." if before else "Red box round 7."
        assert ([drawn for drawn, _ in painter.drawn], trace.routed.family) == ([expected], TaskFamily.CHART), prompt
        silent, model = Painter(), Scripted(SEVEN)
        unsure = system("evr", prompt=prompt, route="rule", min_confidence=1.0)
        trace = run(unsure, model, chart, painter=silent)
        assert (silent.drawn, len(model.asked), trace.answer) == ([], 1, "7"), prompt

    painter = Painter()
    trace = run(system("evr", route="rule", min_confidence=1.0), Scripted(SEVEN), painter=painter)
    assert (painter.drawn, trace.answer) == ([], "7")


def test_who_asks_no_route_is_told_so():
    for kind in ["direct", "oracle_edit", "tool_loop", "interleaved"]:
        with pytest.raises(ValueError, match=f"kind {kind} asks no route: leave route=rule out"):
            system(kind, route="rule")


def test_a_family_that_the_editor_was_not_trained_for_asks_for_no_edit():
    """A router may know some families only; a question of another one must not stop the run."""
    model, painter = Scripted(SEVEN), Painter()
    router = Router({TaskFamily.CHART: "Box."})
    models = Models(model, model, router, Sampling(0.0, 100, 5), 126)
    sample = make_sample(question="Find the shortest path through the maze.")

    async def go():
        async with EditStore({"editor": "painter"}, lambda: painter, None, batch_size=1) as edits:
            return await run_system(Setup(system("evr", route="rule"), models, edits), sample)

    trace = asyncio.run(go())
    assert (trace.routed.family, painter.drawn, trace.answer) == (TaskFamily.LOGIC, [], "7")


def test_a_run_remembers_the_rule_that_it_routed_by():
    systems = {"rule": SystemConfig("evr", "nano", route="rule"), "label": SystemConfig("evr", "nano")}
    noted = fingerprint(EvalConfig(systems=systems), {})["systems"]
    assert noted["rule"]["rule"] == content_digest(DEFAULT_WORDS)
    assert "rule" not in noted["label"]


def test_the_sample_without_pictures_is_the_same_but_for_them(tmp_path):
    image = Image.new("RGB", (64, 64))
    for task in TASK_FAMILY:
        sample = make_sample(id=f"{task}-0", task=task, family=TASK_FAMILY[task], image=image, edit_image=image)
        write_parquet([sample], tmp_path / task / "test.parquet")
        samples = Procedural(task, tmp_path).load(tmp_path / task, LoadOptions())
        words, whole = samples.words(0), samples[0]
        for name in ("id", "family", "task", "question", "answer", "choices", "meta"):
            assert getattr(words, name) == getattr(whole, name), task
        assert words.image.size == (1, 1), task
