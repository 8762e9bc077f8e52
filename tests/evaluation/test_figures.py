"""`python -m evaluation figure`: shares, intervals and counts by hand, from the records of a run."""

import csv
import io
import json
import re
import shutil
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from PIL import Image

from evaluation.__main__ import main
from evaluation.settings import SystemConfig
from tests.evaluation.fakes import Case
from tests.evaluation.runs import Run

NO_MEMORY = RuntimeError("no memory")


@dataclass(frozen=True)
class Told(Case):
    """A case with an instruction and, if it has one, a path length."""

    moves: int | None = None
    truth: bool = True

    def sample(self):
        sample = super().sample()
        meta = sample.meta | {"instruction": f"Draw it. {self.question}", "path_length": self.moves}
        return replace(sample, meta=meta, edit_image=sample.edit_image if self.truth else None)


CASES = [
    Told("maze", "0", draws="right", moves=2),
    Told("maze", "1", draws="right", moves=2),
    Told("maze", "2", draws="wrong", moves=2),
    Told("maze", "3", draws="wrong", moves=3),
    Told("maze", "4", draws=NO_MEMORY, moves=3),
    Told("maze", "5", draws="right", moves=4),
    Told("chart", "0", draws="wrong"),
]


class Drawer:
    """An editor that does what the cases say when it is told, and nothing when it is asked."""

    name = "drawer"

    def __init__(self, editor) -> None:
        self.editor = editor

    def fitted_size(self, image):
        return image.size

    def edit(self, images, prompts, seeds):
        edits = []
        for image, prompt, seed in zip(images, prompts, seeds, strict=True):
            told = prompt.startswith("Draw it.")
            edits += self.editor.edit([image], [prompt], [seed]) if told else [image]
        return edits


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run, which nobody changes."""
    run = Run(tmp_path_factory.mktemp("finished"), CASES)
    run.editor = Drawer(run.editor)
    systems = {
        "direct": SystemConfig(),
        "told": run.edits(prompt="instruction"),
        "told_unverified": run.edits("always_edit", prompt="instruction"),
        "asked": run.edits(),
    }
    run(run.config(systems))
    return run.out


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run, to be changed."""
    folder = tmp_path / "run"
    return SimpleNamespace(folder=folder, out=shutil.copytree(finished, folder / "out"))


def draw(run, *words):
    """The command; its points, and the files that it wrote."""
    out = run.folder / "figures"
    main(["figure", words[0], f"run={run.out}", f"out={out}", *words[1:]])
    files = {path.suffix: path.read_bytes() for path in out.glob(f"figure_{words[0]}.*")}
    return json.loads(files[".json"]), files


def test_2a_puts_the_question_beside_the_instruction(run):
    points, _ = draw(run, "2a")
    shown = [(p["task"], p["system"], p["prompt"], p["correct"], p["num_right"], p["num_edits"]) for p in points]
    assert shown == [  # each edit once: that it was used unverified too makes it no other edit
        ("maze", "asked", "question", 0, 0, 6),
        ("maze", "told", "instruction", 60, 3, 5),
        ("chart", "asked", "question", 0, 0, 1),
        ("chart", "told", "instruction", 0, 0, 1),
    ]
    assert [point["num_left_out"] for point in points] == [0, 1, 0, 0]  # the edit that failed
    assert (points[1]["low"], points[1]["high"]) == (23.07, 88.24)  # Wilson for 3 of 5
    assert all(point["num_by_pixels"] == point["num_edits"] and not point["num_by_judge"] for point in points)


def test_2b_goes_over_the_length_of_the_path(run):
    points, _ = draw(run, "2b", "systems=[told]")
    shown = [(p["task"], p["path_length"], p["to"], p["correct"], p["num_edits"], p["num_left_out"]) for p in points]
    assert shown == [("maze", 2, 2, 66.67, 3, 0), ("maze", 3, 3, 0, 1, 1), ("maze", 4, 4, 100, 1, 0)]
    wide, _ = draw(run, "2b", "systems=[told]", "width=2")
    assert [(p["path_length"], p["to"], p["num_edits"]) for p in wide] == [(1, 2, 3), (3, 4, 2)]


def test_the_judge_decides_where_there_is_no_ground_truth(run):
    path = run.out / "records" / "told.jsonl"
    judged = iter([True, None, True, False, True, True, None])
    lines = []
    for line in map(json.loads, path.read_text().splitlines()):
        verdict = next(judged)
        if line["edit"] is not None:
            line["edit"] |= {"judged": verdict, "matches": None if line["task"] == "maze" else False}
        lines.append(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    known = [line["edit"]["judged"] for line in lines if line["task"] == "maze" and line["edit"] is not None]
    (maze, chart), _ = draw(run, "2a", "systems=[told]")
    assert maze["num_by_judge"] == maze["num_edits"] == sum(verdict is not None for verdict in known)
    assert maze["num_right"] == sum(map(bool, known))
    assert maze["num_left_out"] == 6 - maze["num_edits"]
    assert (chart["num_by_pixels"], chart["num_right"]) == (1, 0)  # pixels before the judge


def test_data_and_plot_are_written_and_the_same_again(run):
    for name in ["2a", "2b"]:
        points, files = draw(run, name)
        assert set(files) == {".csv", ".json", ".png", ".svg"}, name
        rows = list(csv.DictReader(io.StringIO(files[".csv"].decode())))
        assert rows == [{key: str(value) for key, value in point.items()} for point in points], name
        picture = Image.open(io.BytesIO(files[".png"]))
        assert picture.width > 600, name
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10, name
        assert re.search(rb"<svg .*<path", files[".svg"], re.DOTALL), name
        assert b"<script" not in files[".svg"], name
        assert draw(run, name)[1] == files, name


def test_names_are_no_formulas(run):
    for path in (run.out / "records").glob("*.jsonl"):
        path.write_text(path.read_text().replace('"task": "maze"', r'"task": "$\\frac{$ <b>"'))
    note = json.loads((run.out / "run.json").read_text())
    note["tasks"][r"$\frac{$ <b>"] = note["tasks"].pop("maze")
    (run.out / "run.json").write_text(json.dumps(note))
    for name in ("2a", "2b"):
        points, files = draw(run, name)
        assert r"$\frac{$ <b>" in {point["task"] for point in points}
        assert b"<b>" not in files[".svg"]


def test_what_cannot_be_drawn_is_one_sentence(run, new_run):
    for words, match in [
        (["3"], r"which figure\? python -m evaluation figure 2a\|2b; got '3'"),
        ([], r"which figure\? .*; got None"),
        (["2a", "systems=[nobody]"], "has no system nobody; there are: direct, told, told_unverified, asked"),
        (["2a", "tasks=[view3d]"], "has no records of view3d; there are: maze, chart"),
        (["2a", "systems=[direct]"], "no edit of direct in .* can be called right or wrong"),
        (["2b", "tasks=[chart]"], "the records of chart in .* have no path_length"),
        (["2a", "run=nowhere"], "no run at nowhere"),
    ]:
        out = run.folder / "figures"
        given = [*words[:1], f"run={run.out}", f"out={out}", *words[1:]]
        with pytest.raises(SystemExit, match=match) as caught:
            main(["figure", *given])
        assert "\n" not in caught.value.code, words
        assert not out.exists(), words

    run = new_run([Case("chart", "0")])  # whose records have no path
    run(run.config({"told": run.edits()}))
    with pytest.raises(SystemExit, match=r"the records of all tasks in .* have no path_length"):
        draw(run, "2b")

    run = new_run([Case("chart", "0")])  # without an editor
    run(run.config())
    with pytest.raises(SystemExit, match=r"no system of .* draws edits; there are: direct"):
        draw(run, "2a")


def test_help_explains_the_figures(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["figure", "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: python -m evaluation figure 2a|2b" in shown
    assert "edit correctness over the length of the path" in shown
