"""`python -m evaluation route`: shares, matrix and risk by hand, words without pictures, and a model that is asked."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from etchr.families import TASK_FAMILY, TaskFamily
from etchr.mllm.protocol import GREEDY, CallFailed, Reply
from etchr.sample import EditSample, write_parquet
from evaluation.__main__ import main
from evaluation.routes import RouteConfig, Routed, calibration_error, measure, risks

SHARED = Path(__file__).parents[3] / "shared" / "data"
QUESTIONS = {  # task -> questions, of which the rule below knows the words bar, maybe and way
    "chart": ["How tall is the bar?", "Which bar is it, maybe?", "Where?", "Is a way shown?"],
    "maze": ["Which way?", "Which way now?"],
}


@pytest.fixture
def data(tmp_path):
    """`<task>/test.parquet` of `QUESTIONS`."""
    for task, questions in QUESTIONS.items():
        samples = [
            EditSample(f"{task}-{n}", TASK_FAMILY[task], task, Image.new("RGB", (64, 64)), question, "7")
            for n, question in enumerate(questions)
        ]
        write_parquet(samples, tmp_path / "data" / task / "test.parquet")
    return tmp_path / "data"


@pytest.fixture
def words(tmp_path):
    """A rule that is sure of bars and ways, and less so where it reads maybe."""
    known = {"chart": {"bar": 20.0, "maybe": -19.0}, "logic": {"way": 20.0}}
    path = tmp_path / "words.yaml"
    entries = {name: {"bias": 0.0, "words": known.get(name, {})} for name in (*map(str, TaskFamily), "none")}
    path.write_text(yaml.safe_dump(entries))
    return path


def route(*options):
    main(["route", *map(str, options)])


def test_shares_matrix_and_risk_by_hand(data, words, tmp_path, capsys):
    out = tmp_path / "out"
    route("tasks=[chart,maze]", f"data={data}", f"words={words}", f"out={out}")
    report = json.loads((out / "route.json").read_text())
    chart, maze = report["sets"]["chart"], report["sets"]["maze"]
    # e / (e + 5) = 0.35 for the bar that is there maybe: right, but no edit is asked for
    assert (chart["questions"], chart["units"], chart["unscored"]) == (4, 4, 0)
    assert chart["right"] == pytest.approx([50.0, 15.0, 85.0], abs=0.05)  # 2 of 4, Wilson
    assert chart["edited"] == pytest.approx([50.0, 15.0, 85.0], abs=0.05)  # the sure bar, and the way
    assert chart["right_of_edited"] == pytest.approx([50.0, 9.45, 90.55], abs=0.05)  # 1 of 2
    assert maze["right"] == pytest.approx([100.0, 34.24, 100.0], abs=0.05)  # 2 of 2
    assert report["mean"]["right"][0] == 75.0
    assert report["confusion"]["chart"] == {
        "perception": 0, "chart": 2, "logic": 1, "jigsaw": 0, "view3d": 0, "none": 1
    }  # fmt: skip
    assert report["confusion"]["logic"]["logic"] == 2
    assert set(report["confusion"]) == {"chart", "logic"}
    # Both sets count alike: 1/8 for each chart question, 1/4 for each maze. Confidence 1 have a right and a wrong chart
    # question and both mazes, 3/4 in all of which 1/6 are wrong; then 0.35, right; at last 0, wrong.
    assert report["risk"] == {
        "0.1": 16.67, "0.25": 16.67, "0.5": 16.67, "0.75": 16.67, "0.9": pytest.approx(100 * 0.15 / 0.9, abs=0.01),
        "1": 25.0,
    }  # fmt: skip
    # bins: 1: |0.75 - 0.625| = 0.125; 0.35: |0.125 * 0.352 - 0.125| = 0.081; 0: 0
    assert report["calibration_error"] == pytest.approx(100 * (0.125 + 0.125 * (1 - 0.3522)), abs=0.01)
    page = capsys.readouterr().out
    assert "| chart | chart | 4 | 4 | 50.0 [15.0, 85.0] | 50.0 [15.0, 85.0] | 50.0 [9.5, 90.5] |" in page
    assert page.strip() == (out / "route.md").read_text().strip()
    lines = [json.loads(line) for line in (out / "routes.jsonl").read_text().splitlines()]
    assert [(line["id"], line["family"]) for line in lines[:4]] == [
        ("chart-0", "chart"), ("chart-1", "chart"), ("chart-2", None), ("chart-3", "logic")
    ]  # fmt: skip


def test_a_lower_threshold_asks_for_more_edits(data, words, tmp_path, capsys):
    options = "tasks=[chart]", f"data={data}", f"words={words}", f"out={tmp_path / 'out'}"
    route(*options, "min_confidence=0.3")
    report = json.loads((tmp_path / "out" / "route.json").read_text())
    assert report["sets"]["chart"]["edited"][0] == 75.0
    route(*options, "num_samples=1")
    assert "| chart | chart | 1 | 1 | 100.0 [" in capsys.readouterr().out


def test_the_shipped_rule_and_the_reader_route_over_the_command_line(data, tmp_path, capsys):
    asked = {
        "perception": "On which side of the teal circle is its dot?",
        "jigsaw": "Which order of the pieces restores the picture?",
    }
    for task, question in asked.items():
        sample = EditSample(task, TASK_FAMILY[task], task, Image.new("RGB", (64, 64)), question, "7")
        write_parquet([sample], tmp_path / task / "test.parquet")
    route("tasks=[perception,jigsaw]", f"data={tmp_path}", f"out={tmp_path / 'out'}")
    report = json.loads((tmp_path / "out" / "route.json").read_text())
    assert report["mean"]["right"][0] == report["mean"]["edited"][0] == 100.0

    route("tasks=[maze]", f"data={data}", f"out={tmp_path / 'out'}", "route=model")
    assert "| maze | logic | 2 | 2 | 0.0 [" in capsys.readouterr().out  # it knows the procedural wordings only
    assert len((tmp_path / "out" / "calls" / "calls.jsonl").read_text().splitlines()) == 2


# ---------------------------------------------------------------------------------------------- parts of the summary


def routed(confidence, right, unit="u"):
    family = TaskFamily.CHART if right else None
    return Routed("set", "id", unit, TaskFamily.CHART, family, confidence)


def test_risk_and_calibration_error_by_hand():
    rows = [routed(0.9, False), routed(0.9, True), routed(0.9, True), routed(0.5, False)]
    forward, backward = risks(rows, [1.0] * 4), risks(rows[::-1], [1.0] * 4)
    assert forward == pytest.approx(backward)
    assert forward[0.25] == pytest.approx(1 / 3)  # any one of the three
    assert forward[1.0] == 0.5

    assert calibration_error([routed(0.75, n < 3) for n in range(4)], [1.0] * 4) == pytest.approx(0.0)
    assert calibration_error([routed(1.0, n < 3) for n in range(4)], [1.0] * 4) == pytest.approx(0.25)
    assert calibration_error([], []) == 0.0
    assert risks([], []) == {}


# ------------------------------------------------------------------------------------------ words without pictures


def test_questions_are_routed_without_their_pictures(tmp_path, capsys):
    entry = {
        "question_type": "Person perspective - Relative Direction",
        "image_path": ["ViewSpatial-Bench/val2017/1.jpg"],
    }
    entry |= {
        "question": "From the man's perspective, where is the dog?",
        "choices": "A. left\nB. right",
        "answer": "B. right",
    }
    (tmp_path / "viewspatial").mkdir()
    (tmp_path / "viewspatial" / "ViewSpatial-Bench.json").write_text(json.dumps([entry]))
    (tmp_path / "charxiv").mkdir()
    asked = {
        "figure_id": 1,
        "query": "Which curve has the highest value?",
        "answer": "A",
        "inst_category": 1,
        "qa_source": 1,
    }
    (tmp_path / "charxiv" / "reasoning_val.json").write_text(json.dumps({"1": asked}))
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump(
            {"family": "logic", "samples": [{"image": "no.png", "question": "Which way out?", "answer": "x"}]}
        )
    )
    tasks = f"tasks=[viewspatial,charxiv_rq,{tmp_path / 'mine.yaml'}]"
    route(tasks, f"benchmarks={tmp_path}", f"out={tmp_path / 'out'}")
    lines = [json.loads(line) for line in (tmp_path / "out" / "routes.jsonl").read_text().splitlines()]
    assert [(line["task"], line["label"]) for line in lines] == [
        ("viewspatial", "view3d"), ("charxiv_rq", "chart"), ("mine", "logic")
    ]  # fmt: skip
    assert [line["family"] for line in lines[:2]] == ["view3d", "chart"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public question files are not here")
def test_the_published_question_files_are_routed_whole(tmp_path, capsys):
    route("tasks=[viewspatial,charxiv_dq,charxiv_rq]", f"benchmarks={SHARED}", f"out={tmp_path / 'out'}")
    report = json.loads((tmp_path / "out" / "route.json").read_text())
    assert [cell["questions"] for cell in report["sets"].values()] == [842, 4000, 1000]
    assert report["sets"]["charxiv_rq"]["right"][0] > 90  # 96 measured
    assert report["sets"]["viewspatial"]["right"][0] > 60  # 67 measured


# ---------------------------------------------------------------------------------------------------------- a model


class Clerk:
    """A model that replies from a table of questions and remembers what it was asked."""

    name = "clerk"

    def __init__(self, replies):
        self.replies, self.asked = replies, []

    async def chat(self, messages, sampling=GREEDY):
        parts = messages[0]["content"]
        assert [part["type"] for part in parts] == ["image", "text"]  # it sees the picture
        question = next(each for each in self.replies if each in parts[1]["text"])
        self.asked.append(question)
        await asyncio.sleep(0)
        if isinstance(self.replies[question], Exception):
            raise self.replies[question]
        return [Reply(self.replies[question])]


def test_a_model_is_asked_once_and_a_failed_call_is_no_wrong_answer(data, tmp_path):
    bar, maybe, where, way = QUESTIONS["chart"]
    down = CallFailed("the server is down")
    config = RouteConfig(tasks=["chart"], data=str(data), route="model", out=str(tmp_path / "out"), concurrency=2)
    clerk = Clerk({bar: "\\boxed{2}", maybe: down, where: "Hm.", way: "\\boxed{0}"})
    page = measure(config, tmp_path / "out", build=lambda _: clerk)
    assert "# Routing by reader" in page
    report = json.loads((tmp_path / "out" / "route.json").read_text())
    cell = report["sets"]["chart"]
    assert (cell["questions"], cell["unscored"]) == (3, 1)
    assert cell["right"][0] == pytest.approx(100 / 3, abs=0.01)
    assert cell["edited"][0] == pytest.approx(100 / 3, abs=0.01)  # neither for 0 nor for what cannot be read
    assert report["reasoner"]["kind"] == "reader"
    lines = [json.loads(line) for line in (tmp_path / "out" / "routes.jsonl").read_text().splitlines()]
    assert [line["unscored"] for line in lines] == [None, "the server is down", None, None]

    clerk = Clerk({bar: "\\boxed{1}", maybe: "\\boxed{2}", where: "\\boxed{2}", way: "\\boxed{2}"})
    measure(config, tmp_path / "out", build=lambda _: clerk)
    assert clerk.asked == [maybe]  # all others had replied, whatever they would say now
    report = json.loads((tmp_path / "out" / "route.json").read_text())
    assert (report["sets"]["chart"]["questions"], report["sets"]["chart"]["right"][0]) == (4, 50.0)


def test_a_set_without_a_single_reply_has_no_share(data, tmp_path):
    clerk = Clerk(dict.fromkeys(QUESTIONS["maze"], CallFailed("gone")))
    config = RouteConfig(tasks=["maze"], data=str(data), route="model", out=str(tmp_path / "out"))
    page = measure(config, tmp_path / "out", build=lambda _: clerk)
    assert "| maze |  | 0 | 0 | - | - | - | - | 2 |" in page
    assert json.loads((tmp_path / "out" / "route.json").read_text())["risk"] == {}


# -------------------------------------------------------------------------------------------------------- bad input


def test_bad_options_are_one_sentence(data, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({"samples": [{"image": "x.png", "question": "What?", "answer": "x"}]}))
    here = f"data={data}", f"out={tmp_path / 'out'}"
    for options, message in [
        (["tasks=[sudoku]", *here], "no task 'sudoku'; there are: perception"),
        (["tasks=[view3d]", *here], "no view3d data at"),
        (["tasks=[chart,chart]", *here], "tasks has chart twice"),
        ([f"tasks=[{mine}]", *here], "mine: .* has no family to compare with"),
        (["tasks=[chart]", *here, f"words={tmp_path / 'no.yaml'}"], "no word rule at"),
    ]:
        with pytest.raises(SystemExit, match=message):
            route(*options)
    for option in ("route=label", "min_confidence=2", "num_samples=0", "concurrency=0"):
        with pytest.raises(SystemExit):
            route("tasks=[chart]", *here, option)
