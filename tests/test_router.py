"""The meta-prompt router, what goes in front of a question; and the rule that guesses a question's family."""

import numpy as np
import pytest
import yaml

from etchr.families import TASK_FAMILY, TaskFamily
from etchr.router import DEFAULT_ROUTER, Route, Router, WordRule, question_words, route_by_rule


def test_the_default_router_knows_every_family():
    router = Router.load()
    prompts = {router.prompt("Where?", family) for family in TaskFamily}
    assert len(prompts) == len(TaskFamily)
    assert all(prompt.endswith(" Where?") for prompt in prompts)
    assert set(TASK_FAMILY.values()) == set(TaskFamily)


def test_a_user_can_replace_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("jigsaw: Solve it.\nchart: ''\n")
    router = Router.load(path)
    assert router.prompt("How?", "jigsaw") == "Solve it. How?"
    assert router.prompt("How?", "chart") == "How?"
    with pytest.raises(ValueError, match="no meta-prompt for view3d; it has: jigsaw, chart"):
        router.prompt("How?", "view3d")


def test_the_candidates_stand_behind_the_question_where_a_router_says_so():
    router = Router.load(DEFAULT_ROUTER.with_name("paper.yaml"))
    asked = router.prompt("Which is nearer?", "view3d", ("the chair", "the table"))
    assert asked.endswith(" helps answer the question. Which is nearer?Candidates: A. the chair B. the table")
    assert router.prompt("Which is nearer?", "view3d").endswith(" question. Which is nearer?")
    assert "chair" not in router.prompt("Which?", "chart", ("the chair", "the table"))
    assert "chair" not in Router.load().prompt("Which?", "view3d", ("the chair", "the table"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must map each task family"),
        ("sudoku: Solve.\n", "unknown task family 'sudoku'; known: perception, chart, logic, jigsaw, view3d"),
        ("jigsaw: 3\n", "must be a sentence"),
        ("jigsaw: {candidates: true}\n", "must be a sentence"),
        ("jigsaw: {sentence: a, candidates: 1}\n", "must be a sentence"),
        ("jigsaw: {sentence: a, options: true}\n", "must be a sentence"),
        ("jigsaw: [\n", "is not YAML"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Router.load(path)


def test_an_unknown_family_or_file_is_an_error():
    with pytest.raises(ValueError, match="unknown task family 'sudoku'"):
        Router.load().prompt("?", "sudoku")
    with pytest.raises(ValueError, match="no router file at nowhere"):
        Router.load("nowhere.yaml")


# ------------------------------------------------------------------------------------------------- the local rule


def write_rule(path, **words):
    """A rule whose biases are 0 but for `none`, which starts at 1."""
    entries = {name: {"bias": float(name == "none"), "words": words.get(name, {})} for name in (*TaskFamily, "none")}
    path.write_text(yaml.safe_dump({str(name): entry for name, entry in entries.items()}))
    return path


def test_the_rule_is_a_softmax_over_the_words_it_knows(tmp_path):
    path = write_rule(tmp_path / "words.yaml", chart={"bar": 2.0, "the bar": 0.5}, logic={"bar": -1.0, "way": 3.0})
    rule = WordRule.load(path)
    scores = np.array([0, 2.0 + 0.5, -1.0, 0, 0, 1])  # in the order of the families, then none
    expected = np.exp(scores) / np.exp(scores).sum()
    found = rule.probabilities("How tall is the bar, the BAR?")  # a word counts once, in either case
    assert [found[family] for family in (*TaskFamily, None)] == pytest.approx(expected)
    route = route_by_rule("How tall is the bar?", rule)
    assert (route.family, route.confidence) == (TaskFamily.CHART, pytest.approx(expected[1]))


def test_without_a_known_word_nobody_can_say(tmp_path):
    rule = WordRule.load(write_rule(tmp_path / "words.yaml", chart={"bar": 2.0}))
    for question in ("¿Qué hora es?", "\ud800", "?!", "棒グラフ", ""):
        assert route_by_rule(question, rule) == Route(None, 0.0)
    assert route_by_rule("Zzyzx qwertz").family is None


def test_an_edit_needs_a_family_that_is_sure_enough():
    assert Route(TaskFamily.CHART, 0.5).asks_for_edit(0.5)
    assert not Route(TaskFamily.CHART, 0.49).asks_for_edit(0.5)
    assert not Route(None, 1.0).asks_for_edit(0.0)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("Whose dogs’ boxes?", ["whose", "dog", "box", "whose dog", "dog box"]),
        ("the man's cities", ["the", "man", "city", "the man", "man city"]),
        ("In 1999 or 2100?", ["in", "<year>", "or", "<number>", "in <year>", "<year> or", "or <number>"]),
        ("7x7, 0.5 and 1,000", ["<number>", "x", "and", "<number> x", "x <number>", "<number> <number>"]),
        ("red grey bus", ["<colour>", "bus", "<colour> <colour>", "<colour> bus"]),
        ("his gas axis glass", ["his", "gas", "axis", "glass", "his gas", "gas axis", "axis glass"]),
    ],
)
def test_the_words_of_a_question(question, words):
    assert set(words) <= set(question_words(question))
    assert len(question_words(question)) == len(set(question_words(question)))


def test_only_the_beginning_of_a_huge_question_is_read():
    assert question_words("maze " * 10**6) == ["maze", "maze maze"]


@pytest.mark.parametrize(  # everyday questions, none of which stands in the list that the rule was fitted on
    ("question", "family"),
    [
        ("What colour are the shoes of the woman in the red coat?", "perception"),
        ("Is the bicycle to the left of the mailbox?", "perception"),
        ("Which country had the highest rate in 2014?", "chart"),
        ("What does the y-axis of this plot show?", "chart"),
        ("What is the value of the third bar?", "chart"),
        ("How do I get from the entrance of the maze to the exit?", "logic"),
        ("Find the shortest path through the grid.", "logic"),
        ("In which order do the shuffled tiles give the picture?", "jigsaw"),
        ("Which piece of the puzzle goes to the top left?", "jigsaw"),
        ("From the point of view of the girl, where is the ball?", "view3d"),
        ("Imagine you are standing at the door and facing the window. Where is the lamp?", "view3d"),
        ("Describe the photo.", None),
        ("Why do cats purr?", None),
    ],
)
def test_everyday_questions_find_their_family(question, family):
    route = route_by_rule(question)
    assert route.family == (family and TaskFamily.parse(family))
    assert route.confidence > 0.5


def test_a_rule_that_is_none_is_refused_in_one_sentence(tmp_path):
    path = write_rule(tmp_path / "words.yaml")
    whole = yaml.safe_load(path.read_text())
    for change, message in [
        ({"sudoku": {"bias": 0.0, "words": {}}}, "unknown task family 'sudoku'"),
        ({"chart": {"bias": "high", "words": {}}}, "chart must hold a bias and words"),
        ({"chart": {"bias": 0.0}}, "chart must hold a bias and words"),
        ({"chart": {"bias": 0.0, "words": {"bar": float("inf")}}}, "chart must hold a bias and words"),
        ({"chart": {"bias": 0.0, "words": {"bar": True}}}, "chart must hold a bias and words"),
        ({"chart": 3}, "chart must hold a bias and words"),
    ]:
        path.write_text(yaml.safe_dump(whole | change))
        with pytest.raises(ValueError, match=message):
            WordRule.load(path)
    path.write_text(yaml.safe_dump({"chart": {"bias": 0.0, "words": {}}}))
    with pytest.raises(ValueError, match="must hold perception, chart, logic, jigsaw, view3d and none"):
        WordRule.load(path)
    with pytest.raises(ValueError, match="no word rule at nowhere"):
        WordRule.load("nowhere.yaml")
