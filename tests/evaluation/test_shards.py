"""Several processes on one run: shares that do not overlap, one table, and more or fewer of them after a restart."""

import itertools
import json
from dataclasses import replace

import pytest

from etchr.sample import write_parquet
from evaluation.factory import read_tasks
from evaluation.records import RecordFile
from evaluation.report import write_reports
from evaluation.run import evaluate
from evaluation.settings import EditingConfig, SystemConfig
from evaluation.shards import Shard, this_shard
from tests.evaluation.fakes import Case, write_data
from tests.processes import launch

CASES = [
    Case(task, str(i), source="\\boxed{7}" if i % 2 else "\\boxed{5}") for task in ("maze", "jigsaw") for i in range(5)
]


class Alone(Shard):
    """One of several processes that run one after the other: nobody to wait for."""

    def barrier(self):
        pass


def run_shards(run, config, *shards):
    for shard in shards:
        folder = evaluate(config, build_model=lambda _: run.model, build_editor=lambda *_: run.editor, shard=shard)
    return write_reports(folder, config, read_tasks(config))


def without_seconds(report):
    for cost in report["cost"].values():
        cost.pop("seconds")
    return report


def test_shares_cover_everything_once_and_one_process_takes_all(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert this_shard() == Shard(0, 1)
    assert this_shard().is_main
    assert all(Shard().takes(number) for number in range(5))

    shards = [Shard(rank, 3) for rank in range(3)]
    assert all(sum(shard.takes(number) for shard in shards) == 1 for number in range(20))
    assert [shard.quiet for shard in shards] == [False, True, True]


def test_two_processes_make_the_table_of_one(new_run, tmp_path):
    run = new_run(CASES)
    systems = {"direct": SystemConfig(), "evr": run.edits()}
    alone = run(run.config(systems, out=str(tmp_path / "alone")))
    asked = sorted(run.model.asked)
    run.model.asked.clear()
    config = run.config(systems, out=str(tmp_path / "two"))
    report = run_shards(run, config, Alone(0, 2), Alone(1, 2))
    assert without_seconds(report) == without_seconds(alone)
    assert sorted(run.model.asked) == asked
    names = sorted(path.name for path in (tmp_path / "two" / "records").iterdir())
    assert names == ["direct.1.jsonl", "direct.jsonl", "evr.1.jsonl", "evr.jsonl"]
    sizes = [len((tmp_path / "two" / "records" / name).read_text().splitlines()) for name in names]
    assert sizes == [5, 5, 5, 5]


def test_other_processes_go_on_where_some_stopped(new_run):
    for before, after in [([Alone(0, 2)], [Alone()]), ([Alone()], [Alone(0, 3), Alone(1, 3), Alone(2, 3)])]:
        run = new_run(CASES)
        config = run.config()
        config.num_samples = 3
        run_shards(run, config, *before)
        config.num_samples = None
        report = run_shards(run, config, *after)
        assert [cell["num_samples"] for cell in report["systems"]["direct"]["tasks"].values()] == [5, 5]
        assert len(run.model.asked) == len(set(run.model.asked)) == 10


def test_the_turns_of_a_question_stay_in_one_process_and_share_its_edit(new_run, tmp_path):
    """Of processes at work at the same time none finds the edits of another: here each has a store of its own."""
    run = new_run([Case("maze", str(i)) for i in range(4)])
    turns = [
        replace(sample, id=f"{sample.id}-{turn}", meta={**sample.meta, "noise": sample.id})
        for sample in (case.sample() for case in run.cases)
        for turn in range(3)
    ]
    write_parquet(turns, run.data / "maze" / "test.parquet")
    systems = {"evr": run.edits(), "always": run.edits("always_edit")}

    def work(*shards, **options):
        for shard in shards:
            editing = EditingConfig(cache=str(tmp_path / f"edits {shard.rank} of {shard.num_shards}"))
            run_shards(run, run.config(systems, editing=editing, repeats=2, **options), shard)

    work(Alone(0, 2), Alone(1, 2), num_samples=7)  # two questions whole, and the first turn of the third
    assert len(run.editor.drawn) == 3 * 2  # once in each repeat, for all turns and both systems
    work(*(Alone(rank, 3) for rank in range(3)))
    assert len(run.editor.drawn) == (4 + 1) * 2  # the fourth, and the third for its other turns
    drawn, asked = len(run.editor.drawn), len(run.model.asked)
    work(Alone())
    assert (len(run.editor.drawn), len(run.model.asked)) == (drawn, asked)


def test_of_the_records_of_two_processes_the_whole_one_counts(tmp_path):
    """One could not be scored, or the edit judge failed; after a restart another process has mended that."""
    base = {"sample_id": "a", "repeat": 0, "unscored": None, "edit": {"judged": None, "judge_failed": "down"}}
    mended = base | {"edit": {"judged": True, "judge_failed": None}}
    worse = {"unscored": "down", "edit": None}, {}
    for number, ((first, second), change) in enumerate(itertools.product([(0, 1), (1, 0)], worse)):
        folder = tmp_path / str(number)
        for rank, record in ((first, base | change), (second, mended)):
            file = RecordFile(folder, "evr", rank)
            file.append(record)
            file.close()
        assert RecordFile(folder, "evr", 0).read() == {("a", 0): mended}, (first, second, change)


@pytest.mark.slow
def test_accelerate_launches_it(tmp_path):
    """The real command with two processes: a share each, and one report."""
    data = write_data(CASES, tmp_path / "data")
    words = ["systems.direct.kind=direct", f"data={data}", f"out={tmp_path / 'out'}", "tasks=[maze,jigsaw]"]
    done = launch("configs/accelerate/cpu.yaml", "evaluation", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report.html") == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [cell["num_samples"] for cell in report["systems"]["direct"]["tasks"].values()] == [5, 5]
    sizes = [len(path.read_text().splitlines()) for path in (tmp_path / "out" / "records").iterdir()]
    assert sizes == [5, 5]
