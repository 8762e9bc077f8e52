"""docs/tour.ipynb: kept without outputs, and its cells run in order with the plain interpreter."""

import ast
import asyncio
import inspect
import json
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tour.ipynb"
CELLS = [cell for cell in json.loads(PAGE.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_outputs():
    assert len(CELLS) > 5
    for cell in CELLS:
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.slow
def test_the_tour_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, cell in enumerate(CELLS):
        source = "".join(cell["source"])
        code = compile(source, f"cell {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    said = capsys.readouterr().out
    assert "told: accepted" in said
    assert "'grad_norm': " in said  # a step was made
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["tour"]
