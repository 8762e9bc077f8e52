"""How the routing rule is made: the split, the list of questions, the fit and its confidence."""

import json
import re
from collections import Counter

import numpy as np
import pytest
import yaml

from data_prep.routing.__main__ import RoutingConfig, main, make
from data_prep.routing.fit import FAMILIES, Problem, fit, left_out, temperature
from data_prep.routing.questions import OWN, RoutedQuestion, development, framed, own, templates
from etchr.families import TaskFamily
from etchr.router import WordRule, question_words, route_by_rule

PERSON = "Person perspective - "


@pytest.fixture
def folder(tmp_path):
    """CharXiv and ViewSpatial-Bench in small, in their own form."""
    (tmp_path / "reasoning_test.json").write_text(
        json.dumps({str(n): {"query": f"Which curve is above {n} in panel {n}?", "answer": None} for n in range(5)})
    )
    kinds = [
        "Camera perspective - Relative Direction",
        "Camera perspective - Object View Orientation",
        PERSON + "Relative Direction",
        PERSON + "Object View Orientation",
        PERSON + "Scene Simulation Relative Direction",
    ]
    rows = [{"question_type": kind, "question": f"{kind}, question {n}?"} for kind in kinds for n in range(3)]
    (tmp_path / "ViewSpatial-Bench.json").write_text(json.dumps(rows))
    return tmp_path


def test_nothing_that_is_reported_is_fitted_on(folder):
    rows = development(folder, folder, folds=4, seed=0)
    assert not [row for row in rows if row.question.startswith(PERSON + "Relative")]
    sources = Counter(row.source for row in rows)
    assert sources["charxiv"] == 5
    assert sources["viewspatial"] == 12
    assert {"own", "procedural", "mazes", "lakes", "jigsaws", "dl3dv"} < set(sources)
    labels = {row.question.split(",")[0]: row.family for row in rows if row.source == "viewspatial"}
    assert labels["Camera perspective - Relative Direction"] is TaskFamily.PERCEPTION
    assert labels[PERSON + "Object View Orientation"] is TaskFamily.VIEW3D
    assert len({(row.family, row.source, row.question) for row in rows}) == len(rows)


def test_development_is_the_same_every_time(folder):
    assert development(folder, folder, 4, seed=0) == development(folder, folder, 4, seed=0)


def test_the_list_of_questions_is_whole():
    entries = yaml.safe_load(OWN.read_text(encoding="utf-8"))
    slots, frames = entries.pop("slots"), entries.pop("frames")
    assert set(entries) == {*map(str, TaskFamily), "none"}
    for lines in entries.values():
        assert len(set(lines)) == len(lines) >= 50
        for line in lines:
            assert set(re.findall(r"\{(\w+)\}", line)) <= set(slots)
            assert not re.search(r"\bhands?\b", line)  # what this list says of itself
    assert all(frame.count("{}") == 1 for frame in frames)
    plain = [line for lines in entries.values() for line in lines]
    assert len(set(plain)) == len(plain)  # no question has two families
    rows = list(own(OWN, folds=8))
    assert {row.group for row in rows} == {f"own {n}" for n in range(8)}
    assert not [row for row in rows if "{" in row.question]


def test_the_shipped_rule_knows_the_list_that_it_was_fitted_on():
    rows = list(own(OWN, folds=8)) + list(templates())
    right = [route_by_rule(row.question).family == row.family for row in rows]
    assert np.mean(right) > 0.93


def test_a_frame_says_nothing_of_the_family():
    assert framed("What is it?", "In the image, {}?") == "In the image, What is it?"
    assert framed("What is it?", "{} in the photo?") == "What is it in the photo?"
    for question in ("Describe it.", "What does the picture show?", "Which photograph is it?"):
        assert framed(question, "In the image, {}?") == question


# ---------------------------------------------------------------------------------------------------------- the fit

MADE_UP = [
    RoutedQuestion(family, "own", f"own {n % 4}", f"{word} {other} {n % 3}")
    for family, word in zip(FAMILIES, ("dot", "bar", "maze", "tile", "view", "hello"), strict=True)
    for n, other in enumerate(("the", "a", "this", "that", "the", "a", "this", "that"))
]


def test_the_fit_finds_the_words_that_tell_families_apart():
    problem = Problem.of(MADE_UP)
    model = fit(problem, l1=1e-3)
    found = model.probabilities(problem)
    assert found.sum(1) == pytest.approx(np.ones(len(MADE_UP)))
    assert (found.argmax(1) == problem.family).all()
    weights = dict(zip(problem.words, model.weights, strict=True))
    assert weights["bar"].argmax() == FAMILIES.index(TaskFamily.CHART)
    assert not weights["the"].any()  # it says nothing, and costs


def test_a_stronger_l1_keeps_fewer_words():
    problem = Problem.of(MADE_UP)
    counts = [np.count_nonzero(fit(problem, l1).weights) for l1 in (1e-4, 1e-2, 1.0)]
    assert counts[0] >= counts[1] > counts[2] == 0


def test_families_count_alike_whatever_their_sizes():
    rows = MADE_UP + [RoutedQuestion(TaskFamily.CHART, "charxiv", "charxiv", f"bar number {n}") for n in range(90)]
    counts = Problem.of(rows).counts
    for family in FAMILIES:
        share = sum(count for row, count in zip(rows, counts, strict=True) if row.family == family)
        assert share == pytest.approx(1 / 6)
    own_share = sum(c for row, c in zip(rows, counts, strict=True) if row.family == "chart" and row.source == "own")
    assert own_share == pytest.approx(3 / 4 / 6)


def test_what_is_left_out_is_not_seen():
    """A word that one group alone has cannot be known when that group is left out."""
    rows = [*MADE_UP, *(RoutedQuestion(TaskFamily.LOGIC, "own", "alone", f"labyrinth {n}") for n in "xyzuvw")]
    problem = Problem.of(rows)
    model = fit(problem, 1e-3)
    logs = left_out(problem, [row.group for row in rows], 1e-3, model)
    alone = np.array([row.group == "alone" for row in rows])
    assert (model.probabilities(problem)[alone].argmax(1) == FAMILIES.index(TaskFamily.LOGIC)).all()
    assert np.exp(logs[alone]).max() < 0.5
    assert (logs[~alone].argmax(1) == problem.family[~alone]).all()


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_factor_on_the_scores(factor):
    """Questions whose families are drawn with the probabilities that the logs say, but for a factor."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, len(FAMILIES))) * 2
    true = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    drawn = np.array([rng.choice(len(FAMILIES), p=row) for row in true])
    problem = Problem((), None, drawn, np.full(len(drawn), 1 / len(drawn)))
    assert temperature(factor * scores, problem) == pytest.approx(factor, rel=0.06)


def test_the_rule_is_written_as_the_router_reads_it(folder, tmp_path):
    rows = [row for row in development(folder, folder, folds=2, seed=0) if len(row.question) % 5 == 0]
    out = tmp_path / "words.yaml"
    said = make(rows, RoutingConfig(charxiv=str(folder), viewspatial=str(folder), out=str(out), l1=1e-3))
    assert re.search(r"^temperature \d\.\d+$", said, re.MULTILINE)
    rule = WordRule.load(out)
    known = [row for row in rows if set(question_words(row.question)) & set(rule.weights)]
    assert len(known) > 0.9 * len(rows)
    assert np.mean([route_by_rule(row.question, rule).family == row.family for row in known]) > 0.8
    assert "routed rightly" in out.read_text()


def test_bad_input_is_one_sentence(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "charxiv=FOLDER viewspatial=FOLDER" in capsys.readouterr().err
    for content, message in [(None, "no file"), ("[", "is not JSON"), ("[]", "must be a dict of objects")]:
        (folder / "reasoning_test.json").unlink(missing_ok=True)
        if content is not None:
            (folder / "reasoning_test.json").write_text(content)
        with pytest.raises(SystemExit, match=message):
            main([f"charxiv={folder}", f"viewspatial={folder}", f"out={tmp_path / 'w.yaml'}"])
    assert not (tmp_path / "w.yaml").exists()
