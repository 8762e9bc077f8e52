"""`python -m evaluation table`: numbers by hand, from several runs; the formats hold what they are given as text."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
import yaml

from etchr.config import CONFIG_DIR
from etchr.mllm.protocol import CallFailed
from evaluation.__main__ import main
from evaluation.published import TABLE
from evaluation.settings import SystemConfig
from evaluation.table.formats import latex_text
from tests.evaluation.fakes import Case, TableModel
from tests.evaluation.runs import Run

WRONG, DOWN = "\\boxed{5}", CallFailed("endpoint down")
HOSTILE = r"<script>alert(1)</script> | 100 % \input{x} $a_1^2$ & #~"


def cases(*replies, task="maze"):
    return [Case(task, str(number), source=reply) for number, reply in enumerate(replies)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs on the same samples: `weak` has 1 of 4 mazes right, `strong` 3 and one unscored; both have 2 jigsaws."""
    jigsaws = cases("\\boxed{7}", "\\boxed{7}", task="jigsaw")
    run = Run(tmp_path_factory.mktemp("made"), cases("\\boxed{7}", WRONG, WRONG, WRONG) + jigsaws)
    run(run.config({"direct": SystemConfig(), "oracle": SystemConfig("oracle_edit")}, out=str(run.folder / "weak")))
    run.model = TableModel(cases("\\boxed{7}", "\\boxed{7}", "\\boxed{7}", DOWN) + jigsaws)
    run(run.config(out=str(run.folder / "strong")))
    return run.folder


@pytest.fixture
def runs(made, tmp_path):
    """A copy of the runs, to be changed."""
    return shutil.copytree(made, tmp_path / "runs")


def sheet(runs, rows, **more):
    path = runs / "rows.yaml"
    path.write_text(yaml.safe_dump({"columns": ["maze", "jigsaw"], "rows": rows} | more))
    return path


def weak(runs, **more):
    return {"label": "weak", "run": str(runs / "weak"), "system": "direct"} | more


def strong(runs, **more):
    return {"label": "strong", "run": str(runs / "strong"), "system": "direct"} | more


def make(runs, rows, *words, **more):
    """The command; what table.json holds, its rows by label."""
    main(["table", f"rows={sheet(runs, rows, **more)}", f"out={runs / 'table'}", *words])
    found = json.loads((runs / "table" / "table.json").read_text())
    return found | {"rows": {row["label"]: row for row in found["rows"]}}


def test_cells_means_and_paired_differences_by_hand(runs):
    found = make(runs, [weak(runs), strong(runs, against="weak")])
    cells = {name: row["cells"]["maze"] for name, row in found["rows"].items()}
    assert {name: (cell["value"], cell["num_samples"], cell["num_unscored"]) for name, cell in cells.items()} == {
        "weak": (25, 4, 0),
        "strong": (100, 4, 1),
    }
    assert (cells["weak"]["low"], cells["weak"]["high"]) == (4.56, 69.94)  # Wilson for 1 of 4
    assert found["rows"]["weak"]["mean"]["value"] == 62.5
    against = found["rows"]["strong"]["against"]
    assert against["label"] == "weak"
    maze = against["cells"]["maze"]  # of the three that both have scored: one right in both, two gained
    assert (maze["value"], maze["gained"], maze["lost"], maze["p_value"], maze["num_units"]) == (66.67, 2, 0, 0.5, 3)
    assert against["cells"]["jigsaw"]["value"] == 0
    assert against["mean"]["value"] == 33.33
    assert found["chance"] == {"maze": 0, "jigsaw": 0}


def test_a_mean_needs_every_column(runs):
    row = make(runs, [weak(runs)], columns=["maze", "jigsaw", "view3d"])["rows"]["weak"]
    assert set(row["cells"]) == {"maze", "jigsaw"}
    assert row["mean"] == {"value": None, "low": None, "high": None}
    table = (runs / "table" / "table.md").read_text(encoding="utf-8")
    assert "|  | maze | jigsaw | view3d | mean |" in table
    assert re.search(r"^\| weak \| 25\.0 .* \| 100\.0 .* \| - \| - \|$", table, re.M)


def test_published_numbers_stand_beside_ours(runs):
    """The runs' mazes stand in for the benchmark called mazes, whose records carry that name."""
    for path in (runs / "weak" / "records").glob("direct*.jsonl"):
        path.write_text(path.read_text().replace('"task": "maze"', '"task": "mazes"'))
    rows = [weak(runs, published="Qwen3-VL-8B"), {"label": "tools", "published": "Thyme"}]
    found = make(runs, rows, columns=["mazes", "lakes"])
    row = found["rows"]["weak"]
    assert row["published"] == {"row": "Qwen3-VL-8B", "cells": {"mazes": 27.5, "lakes": 9.5}, "mean": 18.5}
    assert row["less_published"] == {"cells": {"mazes": -2.5}, "mean": None}
    assert found["rows"]["tools"]["published"]["cells"] == {"mazes": 0.0, "lakes": 2.0}
    table = (runs / "table" / "table.md").read_text(encoding="utf-8")
    assert "| ... minus published | -2.5 | - | - |" in table
    assert "| tools, published | 0.0 | 2.0 | 1.00 |" in table
    assert "Maze 4 of 200" in table  # whose number of samples is not the published set's


def test_the_papers_own_table_has_the_papers_means(tmp_path):
    main(["table", "skip_missing=true", f"out={tmp_path}"])
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["published"]["row"] for row in rows] == list(TABLE)
    assert all(abs(row["published"]["mean"] - TABLE[row["label"]].mean) < 0.0051 for row in rows)
    assert "Not run: Qwen3-VL-8B, Qwen3-VL-8B + ETCHR" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_kept_sheets_are_read_and_ask_for_their_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no run is
    with pytest.raises(SystemExit, match=r"no run at outputs/\w+; make it, take the row out, or set skip_missing=true"):
        main(["table", f"rows={CONFIG_DIR / 'table' / 'paper.yaml'}", f"out={tmp_path}"])
    assert not list(tmp_path.iterdir())


def test_several_systems_are_seeds_of_one_method(runs):
    both = {"label": "both", "run": str(runs / "weak"), "system": ["direct", "oracle"]}
    found = make(runs, [weak(runs), both | {"against": "weak"}, strong(runs, against="both")])
    row = found["rows"]["both"]
    assert row["cells"]["maze"]["value"] == 62.5  # 1 and 4 of 4
    assert row["cells"]["jigsaw"]["value"] == 100
    assert (row["cells"]["jigsaw"]["low"], row["cells"]["jigsaw"]["high"]) == (
        34.24,
        100,
    )  # Wilson for 2 of 2: no point
    assert row["against"]["cells"]["maze"]["value"] == 37.5
    assert "p_value" not in row["against"]["cells"]["maze"]
    # one seed against two: of the first three mazes strong has 3 right, the seeds 1 and 3
    assert found["rows"]["strong"]["against"]["cells"]["maze"]["value"] == 33.33


def test_rows_that_cannot_be_or_share_a_table_and_a_file_that_does_not_fit_are_one_sentence(runs, tmp_path):
    for change, match in [
        ({"run": "nowhere"}, "weak: no run at nowhere"),
        ({"system": "nobody"}, "has no records of 'nobody'; there are: direct, oracle"),
        ({"published": "GPT"}, "no published row 'GPT'; there are: DeepEyesV2"),
        ({"against": "itself"}, "against='itself' is no other row's label"),
        ({"against": "weak"}, "against='weak' is no other row's label"),
        ({"label": None}, "row 1 needs a label"),
        ({"system": None}, "row 1: system must be the name of a system"),
        ({"system": []}, "needs run and system, or published"),
        ({"model": "x"}, "row 1 holds 'model'; there are: label, run"),
    ]:
        with pytest.raises(SystemExit, match=match) as caught:
            make(runs, [weak(runs) | change])
        assert "\n" not in caught.value.code, change

    there = {"run": str(runs / "weak")}
    rows = [
        {"label": "two", "system": ["direct", "oracle"], **there},
        {"label": "three", "system": ["direct", "oracle", "direct"], "against": "two", **there},
    ]
    with pytest.raises(SystemExit, match="three has 3 seeds and two has 2; give equal numbers, or one"):
        make(runs, rows)

    path = runs / "strong" / "records" / "direct.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"sample": "0" * 16}) + "\n" for line in lines))
    with pytest.raises(SystemExit, match=r"sample 'maze-\d' of maze is not the same in the rows 'weak' and 'strong'"):
        make(runs, [weak(runs), strong(runs)])
    assert not (runs / "table").exists()

    for text, match in [
        ("rows: [", "is not YAML"),
        ("- a", "must map names to values"),
        ("rows: []", "needs rows"),
        ("rows: [{label: a, published: Thyme}, {label: a, published: Thyme}]", "several rows labelled 'a'"),
        ("{columns: maze, rows: [{label: a, published: Thyme}]}", "columns must be a list"),
        ("{rows: [{label: a, published: Thyme}], seed: 1}", "holds 'seed'"),
    ]:
        (tmp_path / "rows.yaml").write_text(text)
        with pytest.raises(SystemExit, match=match):
            main(["table", f"rows={tmp_path / 'rows.yaml'}", f"out={tmp_path / 'out'}"])
    with pytest.raises(SystemExit, match="no file of rows at"):
        main(["table", f"rows={tmp_path / 'none.yaml'}"])


class Cells(HTMLParser):
    """The text of every cell of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells = [""], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        if self.tags[-1] in ("td", "th", "small"):
            self.cells[-1] += data


def test_labels_stay_text_in_every_format(runs):
    make(runs, [weak(runs, label=HOSTILE)], title=HOSTILE)
    folder = runs / "table"
    page = Cells((folder / "table.html").read_text(encoding="utf-8"))
    assert HOSTILE in "".join(page.cells)
    assert "script" not in page.tags
    table = (folder / "table.md").read_text(encoding="utf-8")
    assert "<script>" not in table
    (line,) = [line for line in table.splitlines() if line.startswith("| &lt;script>")]
    assert line.count("|") == 5  # three cells beside the label
    latex = (folder / "table.tex").read_text(encoding="utf-8")
    assert latex.count(latex_text(HOSTILE)) == 2
    assert r"\input" not in latex

    assert latex_text("50 % of A&B_1 #2 {x}") == r"50 \% of A\&B\_1 \#2 \{x\}"
    assert latex_text("a\\b^~<>|") == (
        r"a\textbackslash{}b\textasciicircum{}\textasciitilde{}\textless{}\textgreater{}\textbar{}"
    )
    assert latex_text("-2.5 [-4, 1] of Qwen3-VL-8B") == "$-$2.5 {[}$-$4, 1] of Qwen3-VL-8B"


def test_only_the_formats_that_are_asked_for(runs):
    make(runs, [weak(runs)], "formats=[tex]")
    assert {path.name for path in (runs / "table").iterdir()} == {"table.tex", "table.json"}
    with pytest.raises(SystemExit):
        make(runs, [weak(runs)], "formats=[pdf]")
