"""A run folder may gain systems and samples; what is recorded there stays what it is, and is not made again."""

import json

import pytest

from etchr.families import TaskFamily
from evaluation.records import RecordFile
from evaluation.settings import SystemConfig
from tests.evaluation.fakes import Case

CASES = [Case(task, str(i)) for task in ("maze", "jigsaw") for i in range(4)]


def test_later_systems_join_the_table_without_repeating_a_call(new_run):
    run = new_run(CASES)
    run(run.config())
    asked = len(run.model.asked)
    report = run(run.config({"direct": SystemConfig(), "oracle": SystemConfig("oracle_edit")}))
    assert list(report["systems"]) == ["direct", "oracle"]
    assert len(run.model.asked) == asked + 2 * len(CASES)  # a verdict and an answer each
    run(run.config())  # and the smaller table again: nothing to do, and nothing forgotten
    assert len(run.model.asked) == asked + 2 * len(CASES)
    assert set(json.loads((run.out / "run.json").read_text())["systems"]) == {"direct", "oracle"}


def test_more_samples_and_tasks_go_on_where_fewer_stopped(new_run):
    run = new_run(CASES)
    few = run(run.config(tasks=["maze"], num_samples=2))
    assert few["systems"]["direct"]["tasks"]["maze"]["num_samples"] == 2
    assert len(run.model.asked) == 2
    many = run(run.config())
    assert [cell["num_samples"] for cell in many["systems"]["direct"]["tasks"].values()] == [4, 4]
    assert len(run.model.asked) == len(set(run.model.asked)) == 8


def test_what_is_there_may_not_change_its_meaning(new_run):
    run = new_run(CASES)
    run(run.config())
    router = run.folder / "router.yaml"
    router.write_text("".join(f"{family}: Draw.\n" for family in TaskFamily))
    for change, named in [
        (
            {"systems": {"direct": SystemConfig("oracle_edit")}},
            r"systems\.direct\.kind: \"direct\" there, \"oracle_edit\"",
        ),
        ({"temperature": 0.7}, r"temperature: 0\.0 there, 0\.7 here"),
        ({"router": str(router)}, r"holds a run with other settings \(router\.chart: "),
    ]:
        with pytest.raises(ValueError, match=named):
            run(run.config(**change))


def test_a_system_may_have_meta_prompts_of_its_own(new_run, tmp_path):
    """The others keep the run's; and with other ones it is another system."""
    run = new_run(CASES)
    bare = tmp_path / "bare.yaml"
    bare.write_text("".join(f"{family}: ''\n" for family in TaskFamily))
    run(run.config({"routed": run.edits()}))
    run(run.config({"routed": run.edits(), "bare": run.edits(router=str(bare))}))
    for case in CASES:
        prompts = {name: run.records(name)[case.id]["edit"]["prompt"] for name in ("routed", "bare")}
        assert prompts["bare"] == case.question
        assert prompts["routed"].endswith(f" {case.question}")
    bare.write_text("".join(f"{family}: Draw.\n" for family in TaskFamily))
    with pytest.raises(ValueError, match=r"holds a run with other settings \(systems\.bare\.router\.chart: "):
        run(run.config({"bare": run.edits(router=str(bare))}))


def test_a_damaged_line_is_named_and_a_torn_one_dropped(tmp_path):
    records, path = RecordFile(tmp_path, "direct", 0), tmp_path / "direct.jsonl"
    records.append({"sample_id": "a", "repeat": 0, "unscored": None, "text": "lone surrogate \ud800"})
    records.close()
    with path.open("ab") as stream:
        stream.write(b'{"sample_id": "b", "te')
    assert list(records.read()) == [("a", 0)]
    records.append({"sample_id": "c", "repeat": 1, "unscored": None})
    records.close()
    assert list(records.read()) == [("a", 0), ("c", 1)]
    path.write_bytes(b"\0\0\0\n" + path.read_bytes())
    with pytest.raises(ValueError, match=r"direct.jsonl holds a damaged line"):
        records.read()
