"""The meta-prompt router: what goes in front of a question, and what it refuses."""

import pytest

from etchr.families import TASK_FAMILY, TaskFamily
from etchr.router import Router


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must map each task family"),
        ("sudoku: Solve.\n", "unknown task family 'sudoku'; known: perception, chart, logic, jigsaw, view3d"),
        ("jigsaw: 3\n", "must be a sentence"),
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
