"""All benchmarks as a run meets them: named, told apart, scored from replies to records."""

import csv
import json

import pytest

from etchr.mllm.prompts import options_block
from etchr.mllm.protocol import GREEDY, Reply
from evaluation.benchmarks import BENCHMARKS, find_benchmark
from evaluation.benchmarks.benchmark import Benchmark
from evaluation.factory import fingerprint, read_tasks
from evaluation.run import evaluate
from evaluation.settings import EditingConfig, EvalConfig, SystemConfig
from tests.evaluation.benchmarks import test_chartqa, test_dl3dv, test_hrbench, test_viewspatial, test_vstar
from tests.evaluation.benchmarks.published import png, write_parquet

PUBLISHED = ("vstar", "hrbench_4k", "hrbench_8k", "chartqa", "viewspatial", "viewspatial_all", "dl3dv_2k")


def test_a_published_benchmark_says_where_it_is_had_and_how_it_is_scored(tmp_path):
    for name in PUBLISHED:
        benchmark, folder = find_benchmark(name, tmp_path / "data", tmp_path)
        assert isinstance(benchmark, Benchmark), name
        assert benchmark.name == name, name
        assert folder == tmp_path / (benchmark.place or name), name
        assert benchmark.expected or name == "dl3dv_2k", name  # whose exact number is stated nowhere
        assert benchmark.hub, name
        assert benchmark.hub.patterns, name
        assert all(len(text) > 2 for text in (benchmark.title, benchmark.licence, benchmark.rule)), name
        with pytest.raises(ValueError, match=f"python -m evaluation download {name}"):
            benchmark.load(folder, None)

    with pytest.raises(
        ValueError, match=r"no task 'v_star'; there are: perception, .*, vstar, .*YAML file of your own"
    ):
        find_benchmark("v_star", tmp_path, tmp_path)


def test_the_rule_goes_with_the_code_of_a_benchmarks_modules():
    """Two of one class have one rule; a class that stands in another module adds to it."""
    identities = {name: BENCHMARKS[name].identity()["rule"] for name in PUBLISHED}
    assert identities["hrbench_4k"] == identities["hrbench_8k"]
    assert identities["viewspatial"] == identities["viewspatial_all"]
    assert len(set(identities.values())) == 5

    class Mine(type(BENCHMARKS["vstar"])):
        pass

    assert Mine().identity()["rule"] not in identities.values()


# ------------------------------------------------------------------------------------------------- a run over them all


class Parrot:
    """A model that says for each question what a table says, in front of any picture."""

    name = "parrot"

    def __init__(self, replies):
        self.replies = replies

    async def chat(self, messages, sampling=GREEDY):
        prompt = next(part["text"] for part in messages[0]["content"] if part["type"] == "text")
        if "Reply \\boxed{1}" in prompt:
            return [Reply("\\boxed{1}")]
        return [Reply(next(reply for question, reply in self.replies.items() if question in prompt))]


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "benchmarks"
    test_vstar.write(home / "vstar")
    write_parquet(test_hrbench.rows(), home / "hrbench" / "hr_bench_4k.parquet")
    test_chartqa.as_the_authors_do(home / "chartqa")
    test_viewspatial.write(home / "viewspatial", test_viewspatial.ROW)
    write_parquet([test_dl3dv.ROW], home / "dl3dv_2k" / "test.parquet")
    (home / "mine.png").write_bytes(png())
    with (home / "mine.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "question", "answer"], ["mine.png", "Mine?", "yes"]])
    (home / "mine.yaml").write_text("data: mine.csv\n")
    return tmp_path


def config(folder, tasks, **systems):
    return EvalConfig(
        systems=systems or {"direct": SystemConfig()},
        tasks=tasks,
        benchmarks=str(folder / "benchmarks"),
        out=str(folder / "out"),
        editing=EditingConfig(cache=None),
    )


TASKS = ["vstar", "hrbench_4k", "chartqa", "viewspatial", "dl3dv_2k"]


def test_a_run_scores_every_benchmark_by_its_own_rules(folder):
    mine = config(folder, [*TASKS, str(folder / "benchmarks" / "mine.yaml")])
    replies = {
        test_chartqa.VALUE: "6.8",
        test_chartqa.YEAR: "\\boxed{2005}",
        "How much?": "\\boxed{1234}",
        test_viewspatial.ROW["question"]: "It is a left turn: B",
        test_dl3dv.ROW["question"]: "\\boxed{a bin}",
        test_vstar.ROW["question"]: f"The answer is: {test_vstar.OPTIONS[0]}",
        "colour?": "\\boxed{A}",
        "Where is it?": "I do not see it.",
        "Mine?": "Yes.",
    }
    evaluate(mine, build_model=lambda _: Parrot(replies))
    lines = [json.loads(line) for line in (folder / "out" / "records" / "direct.jsonl").read_text().splitlines()]
    seen = {}
    for record in lines:
        seen.setdefault(record["task"], []).append(record)
    right = {task: sum(record["correct"] for record in records) for task, records in seen.items()}
    assert right == {"vstar": 1, "hrbench_4k": 2, "chartqa": 2, "viewspatial": 1, "dl3dv_2k": 1, "mine": 1}
    assert {len(records) for records in seen.values()} == {1, 4, 12}
    assert seen["viewspatial"][0]["parts"] == {"official": False}
    parts = [tuple(record["parts"].values()) for record in seen["chartqa"]]
    assert sorted(parts) == [(False, True), (False, True), (True, False), (True, True)]
    assert len({record["cluster"] for record in seen["hrbench_4k"]}) == 3
    assert {record["category"] for record in seen["hrbench_4k"]} == {"FSP", "FCP"}


def test_the_drawn_boxes_are_a_ground_truth_that_a_system_can_use(folder):
    replies = {test_vstar.ROW["question"]: "\\boxed{A}"}
    evaluate(config(folder, ["vstar"], oracle=SystemConfig("oracle_edit")), build_model=lambda _: Parrot(replies))
    record = json.loads((folder / "out" / "records" / "oracle.jsonl").read_text())
    assert (record["used_edit"], record["edit"]["matches"]) == (True, True)
    no_edits = config(folder, ["dl3dv_2k"], oracle=SystemConfig("oracle_edit"))
    with pytest.raises(ValueError, match="system oracle needs ground-truth edits, sample 'dl3dv_2k-"):
        evaluate(no_edits, build_model=lambda _: Parrot(replies))


def test_the_seed_of_the_options_is_part_of_the_run(folder):
    one = config(folder, ["vstar"])
    other = config(folder, ["vstar"])
    other.editing = EditingConfig(cache=None, seed=7)
    tasks = read_tasks(one)
    assert options_block(tasks["vstar"].samples.peek(0).choices)
    assert fingerprint(one, tasks) != fingerprint(other, read_tasks(other))


def test_two_sets_of_one_name_are_refused(folder):
    (folder / "benchmarks" / "again.yml").write_text("data: mine.csv\nname: mine\n")
    names = [str(folder / "benchmarks" / name) for name in ("mine.yaml", "again.yml")]
    with pytest.raises(ValueError, match="tasks has mine twice; a set of your own may set another name"):
        read_tasks(config(folder, names))
