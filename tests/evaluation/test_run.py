"""The whole run against numbers worked out by hand; overlap, bounds, and what may not stop it."""

import asyncio
import json
import math
import threading
from dataclasses import replace

import pytest

from etchr.editor.batching import EditBatcher
from etchr.evr import Proposal, Sampling, edit_verify_reason
from etchr.mllm.answers import is_correct
from etchr.mllm.protocol import GREEDY, CallFailed, Reply
from etchr.mllm.settings import ModelConfig
from etchr.router import Router
from etchr.sample import write_parquet
from evaluation.factory import read_tasks
from evaluation.records import EvalFolder
from evaluation.report import write_reports
from evaluation.run import HOPELESS, evaluate
from evaluation.settings import EditingConfig, SystemConfig
from evaluation.statistics import tango
from tests.evaluation.fakes import MUMBLE, REJECT, Case, TableEditor, TableModel
from tests.evaluation.runs import Run

WRONG = "\\boxed{5}"
DOWN, NO_MEMORY = CallFailed("endpoint down"), RuntimeError("no memory")
CASES = [
    Case("perception", "0", source=WRONG),
    Case("perception", "1"),
    Case("perception", "2", source=WRONG, edited=WRONG, draws="wrong"),
    Case("perception", "3", edited=WRONG, verdict=REJECT, draws="wrong"),
    Case("chart", "0", source=WRONG, verdict=REJECT),
    Case("chart", "1", source=DOWN),
    Case("chart", "2", source="I cannot tell.", verdict=MUMBLE),
    Case("chart", "3", draws=NO_MEMORY),
]
CELL = {"pass_at_1", "low", "high", "num_samples", "num_units", "num_unscored", "if_wrong", "if_right", "chance"}
CELL |= {"detectable"}


@pytest.fixture
def run(new_run):
    return new_run(CASES)


def systems_of(run):
    return {
        "direct": SystemConfig(),
        "base_evr": run.edits(),
        "always": run.edits("always_edit"),
        "oracle": SystemConfig("oracle_edit"),
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of all systems, which nobody changes."""
    run = Run(tmp_path_factory.mktemp("finished"), CASES)
    run(run.config(systems_of(run)))
    return run


@pytest.fixture
def report(finished):
    """What it reports."""
    return json.loads((finished.out / "report.json").read_text())


def test_the_report_holds_the_promised_keys_and_figures_by_hand(finished, report):
    systems = systems_of(finished)
    assert set(report) == {"reference", "systems", "paired", "groups", "verification", "worth", "cost"}
    assert list(report["systems"]) == list(systems)
    for name, system in report["systems"].items():
        assert set(system) == {"kind", "mean", "low", "high", "tasks"}
        assert list(system["tasks"]) == ["perception", "chart"]
        for cell in system["tasks"].values():
            assert set(cell) == (CELL if name == "direct" else CELL | {"edit_correct", "edit_used"})
    assert set(report["paired"]) == set(systems) - {"direct"}
    assert all(set(pair) == {"difference", "low", "high", "tasks"} for pair in report["paired"].values())

    report = report["systems"]
    shares = {n: {t: (c["pass_at_1"], c["num_unscored"]) for t, c in s["tasks"].items()} for n, s in report.items()}
    assert shares == {
        "direct": {"perception": (50, 0), "chart": (33.33, 1)},  # chart 1: the call failed
        "base_evr": {"perception": (75, 0), "chart": (33.33, 1)},  # chart 3: the edit failed
        "always": {"perception": (50, 0), "chart": (100, 1)},
        "oracle": {"perception": (50, 0), "chart": (100, 0)},
    }
    assert {name: system["mean"] for name, system in report.items()} == {
        "direct": 41.67,
        "base_evr": 54.17,
        "always": 75,
        "oracle": 75,
    }
    assert all(cell["num_samples"] == 4 for system in report.values() for cell in system["tasks"].values())
    cells = report["direct"]["tasks"]
    assert (cells["perception"]["low"], cells["perception"]["high"]) == (15.0, 85.0)  # Wilson for 2 of 4
    assert (cells["chart"]["low"], cells["chart"]["high"]) == (6.15, 79.23)  # and for 1 of 3
    assert report["direct"]["low"] <= report["direct"]["mean"] <= report["direct"]["high"]
    edits = {task: (c["edit_correct"], c["edit_used"]) for task, c in report["base_evr"]["tasks"].items()}
    assert edits == {"perception": (50, 75), "chart": (100, 25)}


def test_a_number_of_the_table_is_edit_verify_reason(finished, report):
    async def propose(sample):
        async with EditBatcher(finished.editor, 1) as batcher:
            return Proposal(
                (await batcher.edit(sample.image, router.prompt(sample.question, sample.family), 0)).image, ""
            )

    model, router = finished.model, Router.load()
    for name, verifier, makes in [("direct", None, None), ("base_evr", model, propose), ("always", None, propose)]:
        for task, cell in report["systems"][name]["tasks"].items():
            samples = [case.sample() for case in CASES if case.task == task]
            traces = [asyncio.run(edit_verify_reason(sample, makes, verifier, model, Sampling())) for sample in samples]
            right = [
                is_correct(trace.answer, sample)
                for trace, sample in zip(traces, samples, strict=True)
                if trace.unscored is None
            ]
            assert cell["pass_at_1"] == round(100 * sum(right) / len(right), 2)
            assert cell["num_unscored"] == len(samples) - len(right)


def test_any_row_may_be_the_one_that_others_are_compared_with(run):
    systems = systems_of(run)
    to_direct = run(run.config(systems))["paired"]["oracle"]
    report = run(run.config(systems, reference="oracle"))
    assert report["reference"] == "oracle"
    assert set(report["paired"]) == set(systems) - {"oracle"}
    assert report["paired"]["direct"]["difference"] == -to_direct["difference"]
    assert "against oracle" in (run.out / "report.md").read_text()
    with pytest.raises(ValueError, match="reference='orakel' is no system; there are: direct"):
        run.config(systems, reference="orakel")


def test_a_paired_difference_and_verification_by_hand(report):
    """Perception gains one of four, chart none of the two that both have scored."""
    paired = report["paired"]["base_evr"]
    tests = {task: (part["gained"], part["lost"], part["p_value"]) for task, part in paired.pop("tasks").items()}
    assert tests == {"perception": (1, 0, 1.0), "chart": (0, 0, 1.0)}
    perception, chart = tango(1, 0, 4), tango(0, 0, 2)  # whose distances from 25 and from 0 join in quadrature
    below = math.hypot(25 - perception.low, 0 - chart.low) / 2
    above = math.hypot(perception.high - 25, chart.high - 0) / 2
    assert paired == {"difference": 12.5, "low": round(12.5 - below, 2), "high": round(12.5 + above, 2)}

    seen = report["verification"]
    assert list(seen) == ["base_evr", "oracle", "all"]
    assert seen["base_evr"]["all"] == {
        "accept_rate": 57.14,  # 4 of 7; there is no verdict on an edit that failed
        "precision": 75,  # 3 of the 4 accepted
        "recall": 60,  # 3 of the 5 right
        "specificity": 50,  # 1 of the 2 wrong ones was not accepted
        "num_verdicts": 7,
        "num_accepted": 4,
        "num_unparsable": 1,
        "num_right": 5,
        "num_right_accepted": 3,
    }
    assert (seen["base_evr"]["perception"]["precision"], seen["base_evr"]["perception"]["recall"]) == (66.67, 100)
    assert (seen["oracle"]["all"]["precision"], seen["oracle"]["all"]["recall"]) == (100, 62.5)
    assert (seen["all"]["all"]["precision"], seen["all"]["all"]["recall"]) == (88.89, 61.54)  # 8 of 9, 8 of 13


def test_every_intermediate_is_in_the_record(finished):
    run = finished
    record = run.records("base_evr")["perception-3"]
    assert (record["task"], record["verdict"], record["used_edit"]) == ("perception", "rejected", False)
    assert (record["verdict_text"], record["answer_text"], record["answer"]) == (REJECT, "\\boxed{7}", "7")
    assert (record["reasoner"], record["verifier"], record["correct"]) == ("table", "table", True)
    assert set(record["seconds"]) == {"edit", "verify", "reason"}
    edit = record["edit"]
    assert (edit["editor"], edit["size"], edit["matches"]) == ("table-editor", [64, 64], False)
    assert edit["prompt"].endswith(CASES[3].question)
    assert len(edit["prompt"]) > len(CASES[3].question)  # the meta-prompt stands in front
    assert (run.out / edit["file"]).is_file()
    seeds = [record["edit"]["seed"] for record in run.records("base_evr").values() if record["edit"]]
    assert len(set(seeds)) == len(seeds) == 7
    failed = run.records("base_evr")["chart-3"]
    assert (failed["correct"], failed["edit"]) == (None, None)
    assert failed["unscored"] == "the editor failed: RuntimeError: no memory"


def test_a_run_builds_each_editor_and_each_place_of_a_model_once(run, new_run):
    loaded = []

    def build_editor(system, editing):
        loaded.append(system.editor)
        return run.editor

    evaluate(run.config(systems_of(run)), build_model=lambda _: run.model, build_editor=build_editor)
    assert loaded == [run.klein]

    run = new_run([Case("maze", "0")])
    plain, dense = (ModelConfig("http", "m", ["http://127.0.0.1:9/v1"], top_logprobs=top) for top in (None, 5))
    built = []

    def build(config):
        built.append(config.top_logprobs)
        return run.model

    evaluate(run.config(reasoner=plain, verifier=dense), build, lambda *_: run.editor)
    assert built == [None, 5]

    run = new_run([Case("maze", "0")])
    here, there = (ModelConfig("http", "m", [f"http://127.0.0.1:{port}/v1"]) for port in (8, 9))
    built = []

    def build(config):
        built.append(config.base_urls)
        return run.model

    evaluate(run.config(reasoner=here, verifier=there), build)
    assert built == [here.base_urls, there.base_urls]


def test_always_edit_beside_evr_costs_an_answer_where_an_edit_was_not_used_and_nothing_else(new_run):
    """The edit is drawn once, and the answer from an accepted one is asked for once."""
    for kinds in [("evr", "always_edit"), ("always_edit", "evr")]:
        run = new_run([Case("maze", "0"), Case("maze", "1", verdict=REJECT)])
        systems = {kind: run.edits(kind) for kind in kinds}
        run(run.config(systems, editing=EditingConfig(cache=str(run.folder / "edits"))))
        assert sorted(run.editor.drawn) == ["maze-0", "maze-1"], kinds
        assert sorted(run.model.asked) == [
            ("edited", "maze-0"),  # of both
            ("edited", "maze-1"),  # of always_edit alone
            ("source", "maze-1"),
            ("verify", "maze-0"),
            ("verify", "maze-1"),
        ], kinds


class Named(TableModel):
    """A `TableModel` by another name."""

    def __init__(self, cases, name):
        super().__init__(cases)
        self.name = name


def test_a_system_may_be_called_as_a_role(new_run):
    """Whatever it is called, a system without a model of its own asks the reasoner, and takes no role from another."""
    run = new_run([Case("maze", "0")])
    models = {"usual": ModelConfig(), "grader": ModelConfig(seed=1), "own": ModelConfig(seed=2)}
    names = {config.seed: name for name, config in models.items()}
    systems = {"judge": SystemConfig(), "reasoner": SystemConfig(model=models["own"]), "verifier": run.edits()}
    config = run.config(systems, reasoner=models["usual"], judge=models["grader"])
    evaluate(config, lambda each: Named(run.cases, names[each.seed]), lambda *_: run.editor)
    asked = {name: run.records(name)["maze-0"] for name in systems}
    assert {name: record["reasoner"] for name, record in asked.items()} == {
        "judge": "usual",
        "reasoner": "own",
        "verifier": "usual",
    }
    assert asked["verifier"]["verifier"] == "usual"


def test_every_repeat_of_the_stand_in_for_a_unified_model_draws_with_other_noise(new_run):
    run = new_run([Case("maze", "0")])
    seeds = []

    class Editor(TableEditor):
        def edit(self, images, prompts, noise):
            seeds.extend(noise)
            return super().edit(images, prompts, noise)

    class Model:
        name = "any"

        async def chat(self, messages, sampling=GREEDY):
            return [Reply("\\boxed{7}")]

    config = run.config({"both": run.edits("interleaved")}, repeats=3)
    evaluate(config, lambda _: Model(), lambda *_: Editor(run.cases))
    assert len(set(seeds)) == len(seeds) == 3


def test_the_judges_calls_are_in_the_report_and_in_no_systems_cost(new_run):
    """Three models, each by its own name: who answers, who grades the answers, who grades the edits."""
    run = new_run([Case("maze", "0"), Case("maze", "1")])
    text = [replace(case.sample(), answer="a bus", meta={"answer_type": "text"}) for case in run.cases]
    write_parquet(text, run.data / "maze" / "test.parquet")
    limits = {}

    class Says:
        def __init__(self, config):
            self.name, self.text = [("m", "\\boxed{1}"), ("grader", "\\boxed{1}"), ("critic", "\\boxed{0}")][
                config.seed
            ]

        async def chat(self, messages, sampling=GREEDY):
            limits[self.name] = sampling.max_tokens
            return [Reply(self.text, prompt_tokens=10, completion_tokens=2)]

    roles = {"reasoner": ModelConfig(), "judge": ModelConfig(seed=1), "edit_judge": ModelConfig(seed=2)}
    config = run.config({"evr": run.edits()}, judge_max_tokens=9000, max_tokens=5000, **roles)
    evaluate(config, Says, lambda *_: run.editor)
    report = write_reports(EvalFolder(run.out), config, read_tasks(config))
    counts = {"calls": 2, "prompt_tokens": 20, "completion_tokens": 4}
    assert report["cost"]["evr"]["judging"]["usage"] == {"grader": counts, "critic": counts}
    assert report["cost"]["evr"]["usage"] == {"m": {"calls": 4, "prompt_tokens": 40, "completion_tokens": 8}}
    assert limits == {"m": 5000, "grader": 9000, "critic": 5000}
    cell = report["systems"]["evr"]["tasks"]["maze"]
    assert (cell["pass_at_1"], cell["edit_judged"]) == (100, 0)
    assert "judges: prompt tokens" in (run.out / "report.md").read_text()
    with pytest.raises(ValueError, match=r"judge\.max_tokens: 9000 there, null here"):
        evaluate(run.config({"evr": run.edits()}, max_tokens=5000, **roles), Says)


# --------------------------------------------------------------------------------------------- overlap and bounds


def test_edits_and_model_calls_overlap(new_run):
    """A call waits for the second edit to begin, and the second edit for that call: both go on at once, or neither."""
    run = new_run([Case("maze", str(i)) for i in range(2)])
    second_edit, called = threading.Event(), threading.Event()
    met = []

    class Editor(TableEditor):
        def edit(self, images, prompts, seeds):
            if self.drawn:
                second_edit.set()
                met.append(called.wait(10))
            return super().edit(images, prompts, seeds)

    class Model(TableModel):
        async def think(self, key):
            met.append(await asyncio.to_thread(second_edit.wait, 10))
            called.set()

    run.model, run.editor = Model(run.cases), Editor(run.cases)
    config = run.config({"base_evr": run.edits()})
    config.editing.batch_size = 1
    run(config)
    assert met
    assert all(met)


def test_samples_in_flight_are_bounded_by_number_and_by_pixels(new_run):
    # Every call waits until three are there; a fourth would be counted.
    run = new_run([Case("maze", str(i)) for i in range(12)])
    most = 0

    class Model(TableModel):
        waiting = 0
        barrier = None

        async def think(self, key):
            nonlocal most
            self.barrier = self.barrier or asyncio.Barrier(3)
            self.waiting += 1
            most = max(most, self.waiting)
            await asyncio.wait_for(self.barrier.wait(), 10)
            await asyncio.sleep(0.01)
            self.waiting -= 1

    run.model = Model(run.cases)
    run(run.config(concurrency=3))
    assert most == 3

    # Room for the pixels of two samples (source and ground truth each): two at a time, whatever the concurrency.
    run = new_run([Case("maze", str(i)) for i in range(6)])
    now, seen = set(), []

    class Model(TableModel):
        async def think(self, key):
            now.add(key)
            await asyncio.sleep(0.01)
            seen.append(len(now))
            now.remove(key)

    run.model = Model(run.cases)
    run(run.config(concurrency=6, pixels_in_flight=2 * 2 * 64 * 64))
    assert max(seen) == 2
    one = run.config({"oracle": SystemConfig("oracle_edit")}, concurrency=6, pixels_in_flight=1)
    seen.clear()
    assert run(one)["systems"]["oracle"]["mean"] == 100  # too large for the room: one after the other
    assert max(seen) == 1


def test_an_editor_that_loses_edits_leaves_its_samples_unscored(new_run):
    run = new_run([Case("maze", "0"), Case("maze", "1")])

    class Editor(TableEditor):
        def edit(self, images, prompts, seeds):
            return super().edit(images, prompts, seeds)[:1] if len(images) > 1 or "maze 1" in prompts[0] else []

    run.editor = Editor(run.cases)
    report = run(run.config({"base_evr": run.edits()}))
    assert report["systems"]["base_evr"]["tasks"]["maze"]["num_unscored"] == 1
    assert run.records("base_evr")["maze-1"]["correct"]


def test_a_run_in_which_nothing_can_be_scored_is_given_up_with_the_reason_and_goes_on_later(new_run):
    in_flight = 30  # at most, with one call at a time; what had failed with the last of HOPELESS may be recorded too
    broken = [Case("maze", str(i), draws=RuntimeError("out of memory")) for i in range(HOPELESS + in_flight + 10)]
    run = new_run(broken)
    with pytest.raises(ValueError, match=r"base_evr: none of the first 20 samples could be scored.*out of memory"):
        run(run.config({"base_evr": run.edits()}, concurrency=1))
    assert HOPELESS <= len(run.records("base_evr")) <= HOPELESS + in_flight
    run.editor = TableEditor([Case("maze", str(i)) for i in range(len(broken))])
    cell = run(run.config({"base_evr": run.edits()}))["systems"]["base_evr"]["tasks"]["maze"]
    assert (cell["num_samples"], cell["num_unscored"]) == (len(broken), 0)


def test_a_stop_leaves_no_thread_behind(new_run):
    """A defect of the program is no result: it stops the run, and the editor's thread ends with it."""
    run = new_run([Case("maze", str(i)) for i in range(6)])

    class Model(TableModel):
        async def think(self, key):
            if key == "maze-3":
                raise KeyError("a defect")

    run.model = Model(run.cases)
    with pytest.raises(KeyError, match="a defect"):
        run(run.config({"base_evr": run.edits()}))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("editor")]
