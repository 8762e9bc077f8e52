"""`python -m evaluation claims`: verdicts by hand, over seeds in several runs, in both measures."""

import json
import shutil
from dataclasses import dataclass, replace

import pytest
import yaml

from etchr.config import CONFIG_DIR, compose
from evaluation.__main__ import main
from evaluation.claims.spec import read_claims
from evaluation.settings import EvalConfig
from tests.evaluation.fakes import Case
from tests.evaluation.runs import Run

RIGHT, WRONG = "\\boxed{7}", "\\boxed{5}"
SEEDS = ["s0", "s1", "s2"]


@dataclass(frozen=True)
class Deep(Case):
    """A case whose sample says how deep its reasoning is."""

    depth: int = 1

    def sample(self):
        sample = super().sample()
        return replace(sample, meta=sample.meta | {"depth": self.depth})


def cases(mazes: int, charts: int) -> list[Case]:
    """Twenty samples of each task, of which the first so many are drawn right and answered right."""
    counts = {"maze": mazes, "chart": charts}
    return [
        Deep(task, f"{i:02}", edited=RIGHT, draws="right", depth=1 + i // 10)
        if i < count
        else Deep(task, f"{i:02}", edited=WRONG, draws="wrong", depth=1 + i // 10)
        for task, count in counts.items()
        for i in range(20)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`base` has 2 of 20 mazes right, three seeds 18, 17 and 19; all have 10 of 20 charts, the ten shallow ones."""
    folder = tmp_path_factory.mktemp("made")
    for name, mazes in {"base": 2, "s0": 18, "s1": 17, "s2": 19}.items():
        run = Run(folder / name, cases(mazes, 10))
        run(run.config({name: run.edits()}))
    return folder


@pytest.fixture
def runs(made, tmp_path):
    """A copy of the runs, to be changed."""
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def spec(folder, *comparisons, path=None, **more):
    """A file of one claim, in the folder of the runs or at `path`."""
    claim = {"claim": "It helps", "paper": "Fig. 1", "compare": list(comparisons)} | more
    runs = [str(folder / name / "out") for name in ("base", *SEEDS)]
    path = path or folder / "claims.yaml"
    path.write_text(yaml.safe_dump({"runs": runs, "tasks": ["maze", "chart"], "claims": [claim]}))
    return path


def make(folder, *comparisons, words=(), **more):
    """The command; its one claim, and the Markdown."""
    out = folder / "table"
    main(["claims", f"claims={spec(folder, *comparisons, **more)}", f"out={out}", *words])
    (claim,) = json.loads((out / "claims.json").read_text())["claims"]
    return claim, (out / "claims.md").read_text(encoding="utf-8")


GAIN = {"label": "seeds minus base", "more": SEEDS, "less": "base"}


def test_a_claim_holds_where_its_interval_excludes_0_on_its_side_in_both_measures(runs):
    claim, text = make(runs, GAIN)
    (row,) = claim["comparisons"]
    for measure in ("pass_at_1", "edits"):
        found = row[measure]
        assert found["seeds"] == [40, 37.5, 42.5]  # 80, 75 and 85 points in mazes, none in charts
        assert found["value"] == 40
        assert 0 < found["low"] < 37.5  # wider than the seeds: the samples count too
        assert found["tasks"]["maze"]["seeds"] == [80, 75, 85]
        assert found["verdict"] == claim[f"verdict_{measure}"] == "holds"
    (line,) = [
        line for line in text.splitlines() if line.startswith("| It helps | Fig. 1 | seeds minus base | +40.0 [")
    ]
    assert "| +40.0, +37.5, +42.5 | holds | +40.0 [" in line

    for more, less, verdict in [
        (SEEDS, ["base"], "holds"),
        (["base"], SEEDS, "does not hold"),
        (["s0"], ["s1"], "not shown"),
    ]:
        claim, _ = make(runs, {"label": "x", "more": more, "less": less})
        assert claim["comparisons"][0]["pass_at_1"]["verdict"] == claim["verdict_pass_at_1"] == verdict, (
            more,
            less,
            verdict,
        )

    run = Run(runs / "plain", cases(20, 20))
    run(run.config(out=str(runs / "base" / "out")))
    claim, text = make(runs, {"label": "x", "more": "s0", "less": "direct"})
    (row,) = claim["comparisons"]
    assert row["edits"] is None
    assert (row["pass_at_1"]["value"], row["pass_at_1"]["verdict"]) == (-30, "does not hold")  # all right unaided
    assert "| does not hold | - |  | no data |" in text


def test_a_claim_of_several_comparisons_or_tasks_must_hold_in_all(runs):
    other = {"label": "a seed minus another", "more": "s0", "less": "s1"}
    claim, text = make(runs, GAIN, other)
    assert claim["verdict_pass_at_1"] == "not shown"
    assert "|  |  | all of it |  |  | not shown |  |  | not shown |" in text

    claim, text = make(runs, GAIN, each_task=True)
    found = claim["comparisons"][0]["pass_at_1"]
    assert {task: cell["verdict"] for task, cell in found["tasks"].items()} == {"maze": "holds", "chart": "not shown"}
    assert claim["verdict_pass_at_1"] == "not shown"
    assert "holds; in 1 of 2 tasks" in text


def test_shallow_samples_are_compared_with_deep_ones_or_short_paths_with_long_ones(runs):
    claim, text = make(runs, {"label": "depth", "by_depth": "base"})
    (row,) = claim["comparisons"]
    assert row["shallow_up_to"] == {"maze": 1, "chart": 1}
    tasks = {task: cell["value"] for task, cell in row["pass_at_1"]["tasks"].items()}
    assert tasks == {"maze": 20, "chart": 100}  # 2 of 10 against 0, 10 against 0
    assert (row["pass_at_1"]["value"], row["edits"]["verdict"]) == (60, "holds")
    assert ", shallow up to 1 |" in text
    claim, _ = make(runs, {"label": "mazes", "by_depth": SEEDS, "tasks": ["maze"]})
    (row,) = claim["comparisons"]
    assert row["pass_at_1"]["seeds"] == [20, 30, 10]  # of the deep ones 8, 7 and 9 are right
    assert list(row["pass_at_1"]["tasks"]) == ["maze"]

    path = runs / "base" / "out" / "records" / "base.jsonl"
    path.write_text(path.read_text().replace('"path_length": null, "depth"', '"depth": null, "path_length"'))
    claim, _ = make(runs, {"label": "depth", "by_depth": "base"})
    assert claim["comparisons"][0]["pass_at_1"]["value"] == 60
    path.write_text(path.read_text().replace('"path_length": 2', '"path_length": 1'))
    claim, text = make(runs, {"label": "depth", "by_depth": "base"})
    assert claim["verdict_pass_at_1"] == "no data"  # all of one depth
    assert "| depth | - |  | no data | - |  | no data |" in text


def test_what_was_not_run_or_on_other_samples_stops_the_table_or_is_shown_as_such(runs):
    absent = {"label": "absent", "more": "s3", "less": "base"}
    with pytest.raises(SystemExit, match=r"no records of 's3' in .*; there are: base, s0, s1, s2"):
        make(runs, GAIN, absent)
    claim, text = make(runs, GAIN, absent, words=["skip_missing=true"])
    assert [row["pass_at_1"] is None for row in claim["comparisons"]] == [False, True]
    assert claim["verdict_pass_at_1"] == "no data"
    assert "|  |  | absent | - |  | no data | - |  | no data |" in text

    path = runs / "s1" / "out" / "records" / "s1.jsonl"
    lines = [json.loads(line) | {"sample": "0" * 16} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SystemExit, match=r"sample '\w+-\d+' of \w+ is not the same in 's0' and 's1'"):
        make(runs, GAIN)


def test_a_comparison_or_a_file_that_does_not_fit_is_one_sentence(made, tmp_path):
    path, out = tmp_path / "claims.yaml", f"out={tmp_path / 'out'}"
    for change, match in [
        ({"more": ["s0", "s1"], "less": ["base", "s2", "s0"]}, "more has 2 seeds and less has 3; give equal numbers"),
        ({"less": []}, "claim 1, 1 needs a label, and either more and less, or by_depth"),
        ({"by_depth": "base"}, "needs a label, and either more and less, or by_depth"),
        ({"more": ["s0", "s0"]}, "more has a name twice: s0, s0"),
        ({"more": 3}, "more must be a name or a list of names, got 3"),
        ({"against": "x"}, "claim 1, 1 holds 'against'; there are: label, more, less, by_depth, tasks"),
    ]:
        spec(made, GAIN | change, path=path)
        with pytest.raises(SystemExit, match=match) as caught:
            main(["claims", f"claims={path}", out])
        assert "\n" not in caught.value.code, change

    for text, match in [
        ("claims: [", "is not YAML"),
        ("{runs: [x], claims: []}", "needs runs: a list of run folders, and claims"),
        ("{runs: [x], claims: [{claim: It helps}]}", "claim 1 needs claim: a sentence, and compare: a list"),
        ("{runs: [x], claims: [{claim: y, compare: [{label: z, by_depth: s}]}]}", "no run at x; make it, or set skip"),
    ]:
        path.write_text(text)
        with pytest.raises(SystemExit, match=match):
            main(["claims", f"claims={path}", out])
    with pytest.raises(SystemExit, match="no file of claims at"):
        main(["claims", f"claims={tmp_path / 'none.yaml'}"])


def test_the_kept_claims_ask_for_systems_that_the_kept_experiment_has():
    claims = read_claims(CONFIG_DIR / "claims" / "nano.yaml")
    systems = compose(EvalConfig, "eval", ["experiment=claims"]).systems
    wanted = {name for claim in claims.claims for each in claim.comparisons for name in (*each.more, *each.less)}
    assert wanted <= set(systems)
