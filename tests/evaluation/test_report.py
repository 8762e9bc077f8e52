"""report.md: what its tables say, worked out by hand."""

import json
import re
from dataclasses import replace

import pytest

from etchr.mllm.protocol import CallFailed
from etchr.mllm.settings import ModelConfig
from evaluation.factory import read_tasks
from evaluation.records import EvalFolder
from evaluation.report import finish, write_reports
from evaluation.settings import StoryConfig, SystemConfig
from evaluation.statistics import tango
from evaluation.tabular import markdown_text
from tests.evaluation.fakes import REJECT, Case
from tests.evaluation.runs import Run

WRONG, DOWN = "\\boxed{5}", CallFailed("endpoint down")
CASES = [
    Case("perception", "0", source=WRONG),  # gained, accepted
    Case("perception", "1", source=WRONG),  # gained, accepted
    Case("perception", "2", edited=WRONG),  # lost, accepted
    Case("perception", "3", source=WRONG, verdict=REJECT),  # would have helped, rejected
    Case("perception", "4"),  # right either way
    Case("perception", "5", source=DOWN),  # no answer without the edit
    Case("chart", "0"),
    Case("chart", "1", edited=WRONG, verdict=REJECT),  # would have harmed, rejected
]


@pytest.fixture
def run(new_run):
    return new_run(CASES)


def systems_of(run):
    return {"direct": SystemConfig(), "evr": run.edits(), "always": run.edits("always_edit")}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A run and its report, which nobody changes."""
    run = Run(tmp_path_factory.mktemp("reported"), CASES)
    run(run.config(systems_of(run)))
    return run


def tables(run) -> dict[str, list[list[str]]]:
    """The tables of report.md by the heading above them, the last one of each heading, as cells."""
    found, title = {}, ""
    for line in (run.out / "report.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            title = line.lstrip("# ")
        elif line.startswith("|") and not line.startswith("| ---"):
            found.setdefault(title, []).append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def rewritten(run, change):
    """The report again, after every record went through `change`."""
    for path in (run.out / "records").iterdir():
        lines = [change(json.loads(line)) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = run.config(systems_of(run))
    write_reports(EvalFolder(run.out), config, read_tasks(config))
    return tables(run)


def test_the_report_opens_with_pictures_and_a_table_that_ends_with_a_blind_guess(reported):
    lines = (reported.out / "report.md").read_text(encoding="utf-8").splitlines()
    heads = [line for line in lines if line.startswith(("#", "!"))]
    assert heads[0] == "# Edit-Verify-Reason"
    assert re.fullmatch(r"!\[The first sample of each task, .*\]\(sheet\.png\)", heads[1])
    assert heads[2:4] == ["## Pass@1 in percent", "## Statistics"]
    assert all(head.startswith("### ") for head in heads[4:])

    rows = {row[0]: row[1:] for row in tables(reported)["Pass@1 in percent"]}
    assert rows["system"] == ["perception", "chart", "mean", "matching edits", "against direct"]
    assert rows["direct"][:2] == ["40.0", "100.0"]
    assert rows["direct"][3:] == ["-", ""]
    assert rows["evr"][3] == "100.0"  # the editor draws the ground truth
    assert rows["a blind guess"] == ["0.0", "0.0", "0.0", "", ""]
    rows = {row[0]: row[1:] for row in tables(reported)["Pass@1 in percent, with 95 % intervals"]}
    assert rows["direct"] == ["40.0 [11.8, 76.9]", "100.0 [34.2, 100.0]"]  # Wilson for 2 of 5 and 2 of 2
    assert "Samples per cell: 2 to 6. Unscored (a call or an edit failed; in no cell): 1." in (
        reported.out / "report.md"
    ).read_text(encoding="utf-8")


STORY = [
    StoryConfig("Editing", "always", "direct"),
    StoryConfig("verification", "evr", "always"),
    StoryConfig("the editor alone", "always"),
]


def told(new_run, cases, story):
    """The line under the table, of twenty samples or so."""
    run = new_run(cases)
    report = run(run.config(systems_of(run), story=story))
    text = (run.out / "report.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("Mean Pass@1: ")]
    return line.removesuffix("."), report


def test_a_line_says_what_the_table_shows_gain_or_loss(new_run):
    gained = [Case("maze", f"{i:02}", source=WRONG) for i in range(20)]
    line, report = told(
        new_run, [replace(case, edited=WRONG) if i > 16 else case for i, case in enumerate(gained)], STORY
    )
    low, high = tango(17, 0, 20).low, tango(17, 0, 20).high
    assert line == (
        f"Mean Pass@1: Editing adds 85.0 [{low:.1f}, {high:.1f}], from 0.0 to 85.0; verification makes no difference "
        f"that so many samples can show, +0.0 [{tango(0, 0, 20).low:+.1f}, {tango(0, 0, 20).high:+.1f}]; "
        "the editor alone reaches 85.0"
    )
    assert report["story"][0] == {
        "what": "Editing",
        "system": "always",
        "mean": 85.0,
        "against": "direct",
        "other": 0.0,
        "difference": 85.0,
        "low": round(low, 2),
        "high": round(high, 2),
    }

    line, _ = told(new_run, [Case("maze", f"{i:02}", edited=WRONG) for i in range(20)], STORY[:1])
    assert line == f"Mean Pass@1: Editing costs 100.0 [{-tango(0, 20, 20).high:.1f}, 100.0], from 100.0 to 0.0"


def test_the_command_prints_table_line_and_places(run, capsys):
    config = run.config(systems_of(run), story=STORY)
    run(config)
    capsys.readouterr()
    finish(EvalFolder(run.out), config)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["system", "perception", "chart", "mean", "matching", "edits"]
    assert len({len(line) for line in lines[2:6]}) == 1  # columns stand under each other
    assert lines[8].startswith("Mean Pass@1: Editing ")
    assert lines[-2:] == [f"pictures: {run.out / 'sheet.png'}", f"all samples: {run.out / 'report.html'}"]


def test_differences_are_tested_unscored_samples_bounded_and_what_the_samples_can_show_is_said(reported, new_run):
    rows = {row[0]: row[1:] for row in tables(reported)["Differences from direct, task by task"]}
    text, _, counts = rows["always"][0].partition("]")
    assert text.startswith("+40.0 [")  # gained 3, lost 1 of 5 scored by both
    assert counts == " +3 −1, p 0.62"  # 2 (1 + 4) / 2^4 = 0.625
    assert rows["always"][1].endswith("+0 −1, p 1")

    assert tables(reported)["Unscored samples"] == [
        ["system: task", "unscored", "Pass@1 without them", "if all were wrong", "if all were right"],
        ["direct: perception", "1 of 6", "40.0", "33.3", "50.0"],
    ]

    rows = {row[0]: row[1:] for row in tables(reported)["What these numbers of samples can show"]}
    assert rows["perception"][:2] == ["5", "> 100"]  # six samples must differ one way, for p = 2 / 2^6
    run = new_run([Case("maze", str(i)) for i in range(12)])
    run(run.config())
    rows = {row[0]: row[1:] for row in tables(run)["What these numbers of samples can show"]}
    assert rows["maze"] == ["12", "50.0", "25.3", "36.2"]  # 6 of 12; 1.960 and 2.802 times sqrt(0.2 / 12)


def test_what_verification_is_worth_by_answers_of_the_same_model(reported, run):
    rows = {row[0]: row[1:] for row in tables(reported)["What verification is worth"][1:]}
    assert rows == {
        "evr: accepted": ["direct", "always", "2", "1", "2", "0"],  # helps, harms, both right, both wrong
        "evr: not accepted": ["direct", "always", "1", "1", "0", "0"],
    }

    other = ModelConfig(seed=1)
    mine = {"direct": SystemConfig(), "always": run.edits("always_edit"), "evr": run.edits()}
    theirs = {
        "their_direct": SystemConfig(model=other),
        "their_always": run.edits("always_edit", model=other),
        "their_evr": run.edits(model=other),
    }
    worth = run(run.config(mine | theirs))["worth"]
    pairs = {name: (found["without"], found["unverified"]) for name, found in worth.items()}
    assert pairs == {"evr": ("direct", "always"), "their_evr": ("their_direct", "their_always")}
    assert run(run.config(mine | {"their_evr": theirs["their_evr"]}))["worth"].keys() == {"evr"}


def test_costs_categories_other_rules_and_several_tries_have_tables(run):
    run(run.config(systems_of(run)))

    def costly(record):
        steps = [step for step in ("edit", "verify", "reason") if step in record["seconds"]]
        usage = {"reader": {"calls": len(steps), "prompt_tokens": 1000, "completion_tokens": 10}}
        return record | {"seconds": dict.fromkeys(steps, 0.5), "usage": usage}

    rows = {row[0]: row[1:] for row in rewritten(run, costly)["Cost"]}
    named = dict(zip(rows["system"], rows["always"], strict=True))
    assert named == {
        "samples": "8",
        "edits": "8",
        "calls": "16",
        "prompt tokens": "8,000",
        "reply tokens": "80",
        "reason s": "0.500",
        "edit s": "0.500",
        "verify s": "-",
        "USD": "0.00",  # configs/prices.yaml: the reader is free
    }
    assert rows["direct"][1] == "0"

    usage = {"unpriced": {"calls": 1, "prompt_tokens": 5, "completion_tokens": 5}}
    rows = rewritten(run, lambda record: record | {"usage": usage})["Cost"]
    assert {row[-1] for row in rows[1:]} == {"not known"}  # a server that does not count

    def sorted_in(record):
        near = int(record["sample_id"][-1]) % 2 == 0
        return record | {"category": "near|far" if near else "far", "parts": {"strict": near}}

    found = rewritten(run, sorted_in)["Categories, and other rules of scoring"]
    # direct: 0, 2, 4 of perception are wrong, right, right; 1 and 3 wrong, 5 unscored
    assert ["perception, by category", "far", "near&#124;far"] in found
    assert ["direct", "0.0", "66.7"] in found
    assert ["perception, by other rules", "strict"] in found
    assert ["direct", "50.0"] in found

    cases = [Case("maze", "0"), Case("maze", "1", source=WRONG)]
    run = type(run)(run.folder / "tries", cases)
    run(run.config(repeats=2))
    assert tables(run)["Several tries"] == [["system: task", "pass@1", "pass@2"], ["direct: maze", "50.0", "50.0"]]


def test_no_name_becomes_a_link_a_picture_or_an_element():
    for words in (
        "![x](http://a/b.png)",
        "[x](http://a)",
        "<img src=http://a>",
        "http://a.b",
        "a | b",
        "x](javascript:1)",
    ):
        shown = markdown_text(words)
        assert not any(mark in shown for mark in ("](", "://", "<", "![", "|")), shown
