"""`etchr ask` and `etchr edit` without a family: the rule's guess, said in the output and kept in the record."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from etchr.cli import app

CHART = Path(__file__).parent.parent / "docs" / "chart.png"
GREEN_BAR = "What is the value of the green bar?"


def etchr(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.stdout, done.stderr


def record(out):
    (path,) = out.rglob("record.json")
    return json.loads(path.read_text())


def test_a_question_is_routed_by_its_words(tmp_path):
    code, said, _ = etchr("ask", "--image", CHART, "--question", GREEN_BAR, "--out", tmp_path)
    assert code == 0, said
    kept = record(tmp_path)
    assert said.splitlines()[0] == f"family   chart ({kept['confidence']:.2f}, by rule)"
    assert f"prompt   Draw a red box for the chart question. {GREEN_BAR}" in said
    assert (kept["family"], kept["question"]) == ("chart", GREEN_BAR)
    assert kept["verdict"] is not None


def test_a_named_family_counts_whatever_the_words_say(tmp_path):
    code, said, _ = etchr("ask", "--image", CHART, "--question", GREEN_BAR, "--family", "logic", "--out", tmp_path)
    assert code == 0, said
    assert said.splitlines()[0] == "family   logic"
    assert f"prompt   Draw the shortest path. {GREEN_BAR}" in said


@pytest.mark.parametrize(
    ("question", "options", "family", "why"),
    [
        ("Describe the photo.", [], "none", "no family's edit would help"),
        ("Wie spät ist es?", [], "none (0.00, by rule)", "no word of the question is known"),
        (GREEN_BAR, ["--min-confidence", "1"], "chart", "the family is too uncertain (chart, "),
    ],
)
def test_without_a_sure_family_the_model_answers_directly(question, options, family, why, tmp_path):
    code, said, _ = etchr("ask", "--image", CHART, "--question", question, "--out", tmp_path, *options)
    assert code == 0, said
    first, second, *rest = said.splitlines()
    assert first.startswith(f"family   {family}")
    assert second.startswith(f"edit     none asked for: {why}")
    assert not any(line.startswith(("verdict", "prompt", "source")) for line in rest)
    kept = record(tmp_path)
    assert "edit" not in kept
    assert (kept["used_edit"], kept["verdict"]) == (False, None)
    assert kept["answer_text"]
    assert not list(tmp_path.rglob("edit.png"))


def test_two_questions_about_one_picture_have_two_records(tmp_path):
    for question in ("Describe the photo.", "Why is it so?"):
        etchr("ask", "--image", CHART, "--question", question, "--out", tmp_path)
    assert len(list(tmp_path.rglob("record.json"))) == 2


def test_an_instruction_needs_no_family(tmp_path):
    words = ["--question", "Why is it so?", "--instruction", "Red box round the value of bar 3."]
    code, said, _ = etchr("ask", "--image", CHART, *words, "--out", tmp_path)
    assert code == 0, said
    assert "family" not in said
    assert "prompt   Red box round the value of bar 3." in said


def test_edit_routes_a_question_and_refuses_what_has_no_family(tmp_path):
    out = tmp_path / "edit.png"
    code, said, _ = etchr("edit", "--image", CHART, "--prompt", GREEN_BAR, "--family", "auto", "--out", out)
    assert (code, out.is_file()) == (0, True), said
    code, _, error = etchr("edit", "--image", CHART, "--prompt", "Describe it.", "--family", "auto", "--out", out)
    assert code == 1
    assert error.strip().splitlines()[-1].startswith("etchr: no edit is asked for: no family's edit would help")
    assert "name one with --family" in error
