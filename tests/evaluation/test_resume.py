"""Killed, out of space, unscored, started with other settings: what is recorded stays, and is not computed again."""

import json
import re
import resource
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from etchr.mllm.protocol import GREEDY, CallFailed, Reply
from etchr.mllm.settings import ModelConfig
from etchr.sample import write_parquet
from evaluation.__main__ import main
from evaluation.factory import read_tasks
from evaluation.records import EvalFolder
from evaluation.run import HOPELESS, evaluate
from evaluation.settings import EditingConfig, SystemConfig
from tests.evaluation import stoppable
from tests.evaluation.fakes import Case, TableEditor, TableModel, write_data
from tests.processes import kill_when

CASES = [Case("maze", "0"), Case("maze", "1", source="\\boxed{1}")]


@pytest.fixture
def run(new_run):
    return new_run(CASES)


def lines(path):
    return path.read_text().splitlines() if path.is_file() else []


# ---------------------------------------------------------------------------------------------------------- kill


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(tmp_path):
    """30 of its 48 calls are answered; then it waits until it is killed, in the middle of the second system."""
    data, out, log = write_data(stoppable.CASES, tmp_path / "data"), tmp_path / "out", tmp_path / "log"
    records = out / "records" / "oracle.jsonl"

    def is_amid():
        return len(lines(log)) >= 30 and len(lines(records)) >= 5

    kill_when(is_amid, stoppable.run, data, out, log, 30, is_light=True)
    assert not (out / "report.json").exists()
    finished = {json.loads(line)["sample_id"] for line in lines(records)}
    assert 5 <= len(finished) < 16
    torn = lines(records)[-1][:50]
    with records.open("a") as stream:
        stream.write(torn)  # and half of the line that was being written

    stoppable.run(data, out, log, 1000)
    assert len(lines(log)) == 48  # an answer without the edit, a verdict and an answer each: no call was repeated
    rows = [json.loads(line) for line in lines(records)]
    assert sorted(row["sample_id"] for row in rows) == sorted(case.id for case in stoppable.CASES)

    stoppable.run(data, tmp_path / "calm", tmp_path / "calm_log", 1000)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (out, tmp_path / "calm")]
    for report in reports:
        for cost in report["cost"].values():
            cost.pop("seconds")  # which differ from run to run
    assert reports[0] == reports[1]


# ------------------------------------------------------------------------------------------------------ unscored


def test_what_was_unscored_is_tried_again_at_the_next_start(run):
    broken = [
        Case("maze", "0", source=CallFailed("endpoint down"), draws=RuntimeError("no memory")),
        Case("maze", "1", source="\\boxed{1}"),
    ]
    run.model, run.editor = TableModel(broken), TableEditor(broken)
    config = run.config({"direct": SystemConfig(), "base_evr": run.edits()})
    for system in run(config)["systems"].values():
        assert (system["tasks"]["maze"]["num_unscored"], system["tasks"]["maze"]["num_samples"]) == (1, 2)
    assert run.records("direct")["maze-0"]["correct"] is None

    run.model, run.editor = TableModel(CASES), TableEditor(CASES)
    report = run(config)
    assert run.model.asked == [("source", "maze-0"), ("verify", "maze-0"), ("edited", "maze-0")]
    assert run.editor.drawn == ["maze-0"]
    shares = {n: (s["mean"], s["tasks"]["maze"]["num_unscored"]) for n, s in report["systems"].items()}
    assert shares == {"direct": (50, 0), "base_evr": (100, 0)}


def test_samples_that_fail_for_good_do_not_keep_a_run_from_going_on(new_run):
    """The first start scores what can be scored; a later one begins with all that failed, and that gives no one up."""
    too_long = CallFailed("the request is too long")
    cases = [Case("maze", str(i), source=too_long if i % 2 else "\\boxed{7}") for i in range(2 * HOPELESS + 4)]
    run = new_run(cases)
    run(run.config())
    report = run(run.config({"direct": SystemConfig(), "oracle": SystemConfig("oracle_edit")}))
    assert report["systems"]["direct"]["tasks"]["maze"]["num_unscored"] == HOPELESS + 2
    assert report["systems"]["oracle"]["tasks"]["maze"]["num_unscored"] == 0


def test_a_finished_run_asks_nothing_and_loads_no_editor_and_a_torn_last_line_is_written_again(run):
    config = run.config({"base_evr": run.edits()})
    report = run(config)
    run.model.asked.clear()
    run.editor = None
    assert run(config) == report
    assert not run.model.asked

    report = run(run.config())
    records = run.out / "records" / "direct.jsonl"
    whole = records.read_bytes()
    records.write_bytes(whole[:-20])
    run.model.asked.clear()
    assert run(run.config()) == report
    assert run.model.asked == []  # its reply lies in the run's journal
    assert records.read_bytes().startswith(whole[: whole.index(b"\n") + 1])
    assert len(lines(records)) == 2


def test_an_edit_judge_that_failed_is_asked_again_and_nobody_else(new_run):
    run = new_run([Case("maze", str(i)) for i in range(3)])
    down, asked = {"now": True}, []

    class Critic:
        name = "critic"

        async def chat(self, messages, sampling=GREEDY):
            (question,) = re.findall(r"maze \d", messages[0]["content"][-1]["text"])
            asked.append(question)
            if down["now"] and question != "maze 1":
                raise CallFailed("endpoint down")
            return [Reply("Hm." if question == "maze 2" else "\\boxed{1}", prompt_tokens=10, completion_tokens=1)]

    critic = Critic()
    config = run.config({"evr": run.edits()}, edit_judge=ModelConfig(seed=1))

    def start():
        evaluate(config, lambda each: critic if each.seed else run.model, lambda *_: run.editor)
        return {key: record["edit"]["judged"] for key, record in run.records("evr").items()}

    assert start() == {"maze-0": None, "maze-1": True, "maze-2": None}
    assert run.records("evr")["maze-0"]["edit"]["judge_failed"] == "endpoint down"
    first = run.records("evr")
    down["now"] = False
    asked.clear(), run.model.asked.clear(), run.editor.drawn.clear()
    assert start() == {"maze-0": True, "maze-1": True, "maze-2": None}
    assert (sorted(asked), run.model.asked, run.editor.drawn) == (["maze 0", "maze 2"], [], [])
    mended = run.records("evr")["maze-0"]
    assert mended["judge_usage"] == {"critic": {"calls": 1, "prompt_tokens": 10, "completion_tokens": 1}}
    ignored = {"edit": None, "judge_usage": None}
    assert mended | ignored == first["maze-0"] | ignored
    start()
    assert len(asked) == 2  # a reply without a verdict is a reply


# ------------------------------------------------------------------------------------------------ other settings


def test_other_settings_data_and_editors_are_refused(run):
    run(run.config())
    before = {path: path.read_bytes() for path in run.out.rglob("*") if path.is_file()}
    for change, difference in [
        ({"temperature": 0.5}, r"temperature: 0.0 there, 0.5 here"),
        ({"editing": EditingConfig(seed=7, cache=None)}, r"editing.seed: 126 there, 7 here"),
        (
            {"systems": {"direct": SystemConfig("oracle_edit")}},
            r"systems.direct.kind: .direct. there, .oracle_edit. here",
        ),
    ]:
        with pytest.raises(ValueError, match=f"other settings .*{difference}.*choose another out="):
            run(run.config(**change))
        assert before == {path: path.read_bytes() for path in run.out.rglob("*") if path.is_file()}, change

    run(run.config({"base_evr": run.edits()}))
    (Path(run.klein) / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"systems.base_evr.editor"):
        run(run.config({"base_evr": run.edits()}))

    changed = replace(Case("maze", "0").sample(), answer="8")
    write_parquet([changed, Case("maze", "1").sample()], run.data / "maze" / "test.parquet")
    with pytest.raises(ValueError, match=r"sample 'maze-0' of maze is not the one that .* has a record of"):
        run(run.config())


def test_what_decides_no_result_may_change(run):
    systems = {"base_evr": run.edits()}
    run(run.config(systems))
    moved = shutil.copytree(run.klein, run.folder / "moved")
    data = shutil.copytree(run.data, run.folder / "moved_data")
    run.model = TableModel([])  # knows nothing: it must not be asked
    systems = {"base_evr": SystemConfig("evr", str(moved))}
    run(run.config(systems, concurrency=1, data=str(data), editing=EditingConfig(batch_size=3, cache=None)))
    assert run.model.asked == []


# ----------------------------------------------------------------------------------------------------- disk full


@contextmanager
def limited(size):
    """No file of this process grows beyond `size` bytes; Python ignores SIGXFSZ, so EFBIG is raised."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_sentence_and_loses_nothing(new_run, capsys):
    run = new_run(Case("maze", str(i)) for i in range(40))
    out, data = run.out, run.data
    words = ["systems.direct.kind=direct", f"data={data}", f"out={out}", "tasks=[maze]", "concurrency=4"]
    read_tasks(run.config())  # fills the cache of `datasets`, which is no part of what is limited
    with limited(9000), pytest.raises(SystemExit) as caught:
        main(words)
    said = caught.value.code  # printed, exit status 1
    assert "Traceback" not in said + capsys.readouterr().err
    assert "\n" not in said
    assert said.startswith("cannot go on: [Errno 27] File too large")
    assert f"What is recorded in {out} is kept" in said
    assert "start the same command again" in said
    records = out / "records" / "direct.jsonl"
    kept, _, torn = records.read_bytes().rpartition(b"\n")
    assert len(kept.splitlines()) > 5
    assert torn

    main(words)
    assert capsys.readouterr().out.splitlines()[-1] == f"all samples: {out / 'report.html'}"
    assert records.read_bytes().startswith(kept + b"\n")
    assert sorted(run.records("direct")) == sorted(case.id for case in run.cases)
    assert len(lines(records)) == 40


def test_a_folder_in_use_and_a_damaged_note_are_refused(tmp_path):
    folder = EvalFolder(tmp_path / "run")
    with (
        folder.locked(),
        pytest.raises(ValueError, match="another process is writing"),
        EvalFolder(folder.path).locked(),
    ):
        pass
    with folder.locked():  # free again once the first is done
        pass

    for text in ["{", "[1]", ""]:
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ValueError, match=r"run\.json is damaged"):
            EvalFolder(tmp_path).claim({"systems": {}, "tasks": {}})
