"""The dry run: calls counted by hand, and by the systems themselves."""

import asyncio
import itertools
from dataclasses import replace

import pytest

from etchr.mllm.protocol import GREEDY
from etchr.mllm.settings import ModelConfig
from etchr.sample import write_parquet
from evaluation.plan import dry_run
from evaluation.settings import SystemConfig
from evaluation.systems import SYSTEMS
from tests.evaluation.dialogue import ACCEPT, REJECT, Painter, Scripted, make_sample, run, system
from tests.evaluation.fakes import Case


def calls_of(config):
    return SYSTEMS[config.kind].calls_of(config)


CASES = [Case("maze", str(i)) for i in range(3)]


class Always:
    """A model that says the same to everything, and counts."""

    name = "always"

    def __init__(self, text):
        self.text, self.calls = text, 0

    async def chat(self, messages, sampling=GREEDY):
        self.calls += 1
        return (await Scripted(self.text).chat(messages))[: sampling.n]


def test_the_bounds_hold_for_what_the_systems_do():
    for kind, prompt in itertools.product(sorted(set(SYSTEMS) - {"interleaved"}), ["question", "enhanced"]):
        config = system(kind, prompt=prompt)
        bounds, seen = calls_of(config), set()
        for text in (ACCEPT, REJECT, '<tool_call>{"name": "crop", "arguments": {"box": [0, 0, 9, 9]}}</tool_call>'):
            model, painter = Always(text), Painter()
            run(config, model, painter=painter)
            assert len(painter.drawn) <= bounds.edits, (kind, prompt)
            seen.add(model.calls)
        assert bounds.least == min(seen), (kind, prompt)
        assert bounds.most == max(seen), (kind, prompt)

    for turns in [1, 4]:
        bounds = calls_of(system("interleaved", turns=turns))
        assert (bounds.least, bounds.most) == (1, turns), turns
        model = Always("\\boxed{7}")
        run(system("interleaved", turns=turns), model)
        assert model.calls == bounds.least, turns


def test_a_routed_question_may_get_no_edit():
    for (route, least, most), prompt in itertools.product(
        [("label", 2, 2), ("rule", 1, 2), ("model", 2, 3)], ["question", "enhanced"]
    ):
        config = system("evr", route=route, prompt=prompt)
        most += prompt == "enhanced"
        least += prompt == "enhanced" and route == "label"
        assert (calls_of(config).least, calls_of(config).most) == (least, most), config
        certain, uncertain = Always(f"{ACCEPT} \\boxed{{1}}"), Always("\\boxed{0}")
        run(config, certain, make_sample(question="What is the value of the tallest bar in the chart?"))
        run(config, uncertain, make_sample(question="Zzz?"))
        assert {certain.calls, uncertain.calls} == {least, most}, config


def test_the_plan_names_calls_tokens_and_price_and_asks_nothing(new_run):
    run_ = new_run(CASES)
    systems = {"direct": SystemConfig(), "evr": run_.edits(), "best": run_.edits("best_of_n", attempts=4)}
    text = dry_run(run_.config(systems, repeats=2))
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text.splitlines() if line.startswith("|")}
    # 64x64 pixels are 2x2 tokens of 32x32; an edit has as many. Words: prompts and question, by letters
    assert rows["direct"][2:5] == ["6", "0", "6"]
    assert rows["evr"][2:5] == ["6", "6", "12"]
    assert rows["best"][2:5] == ["6", "24", "30"]
    direct, evr = (int(rows[name][5].replace(",", "")) for name in ("direct", "evr"))
    assert evr - 2 * direct == 12 * 4  # twice the calls, each with an edit's four tokens more
    assert int(rows["evr"][6].replace(",", "")) == 12 * 300
    assert rows["evr"][7].strip(" |") == "0.00"  # the reader costs nothing
    assert "Samples: maze 3, each 2 times." in text
    assert (run_.model.asked, run_.editor.drawn, run_.out.exists()) == ([], [], False)


def test_what_is_recorded_is_left_out_and_what_would_stop_the_run_stops_the_plan(new_run):
    run_ = new_run(CASES)
    with pytest.raises(ValueError, match=r"no editor folder at \./nowhere"):
        dry_run(run_.config({"x": SystemConfig("evr", "./nowhere")}))

    async def inside():  # a running loop, in which another one of its own would fail
        return dry_run(run_.config())

    assert "direct" in asyncio.run(inside())

    run_(run_.config(num_samples=2))
    assert "| direct | direct | 1 | 0 | 1 |" in dry_run(run_.config())
    run_(run_.config())
    assert "| direct | direct | 0 | 0 | 0 |" in dry_run(run_.config())


def test_every_call_has_the_price_of_the_model_that_is_asked(new_run, tmp_path):
    """The reader reasons for nothing; who verifies and who judges costs a dollar for every million tokens."""
    prices = tmp_path / "prices.yaml"
    prices.write_text("reader: {prompt: 0, completion: 0}\npaid: {prompt: 1000000, completion: 0}")
    run_ = new_run(CASES)
    paid = ModelConfig("http", "org/paid", ["http://127.0.0.1:9/v1"])

    def rows(systems, **options):
        lines = dry_run(run_.config(systems, prices=str(prices), **options)).splitlines()
        return {cells[0]: cells for cells in ([c.strip() for c in line.strip("| ").split(" | ")] for line in lines)}

    systems = {"evr": run_.edits(), "always": run_.edits("always_edit"), "direct": SystemConfig()}
    free, all_paid = rows(systems), rows(systems, reasoner=paid)
    verified = rows(systems, verifier=paid, edit_judge=paid, judge=paid)
    assert free["evr"][7] == verified["always"][7] == verified["direct"][7] == "0.00"
    tokens = int(free["evr"][5].replace(",", ""))
    assert float(all_paid["evr"][7]) == tokens
    assert 0.3 * tokens < float(verified["evr"][7]) < 0.7 * tokens  # one of its two calls
    own = {"evr": run_.edits(model=paid)}
    assert rows(own)["evr"][7] == all_paid["evr"][7]  # a model of its own verifies too
    assert verified["edit_judge"][1:5] == ["paid", "6", "0", "6"]  # three edits each of two systems
    assert float(verified["edit_judge"][7]) == int(verified["edit_judge"][5].replace(",", "")) > 0
    assert verified["judge"][1:8] == ["paid", "0", "0", "0", "0", "0", "0.00"]  # numbers need none

    unpriced = ModelConfig("http", "org/secret-model", ["http://127.0.0.1:9/v1"])
    assert "no price for secret-model" in dry_run(run_.config(reasoner=unpriced))


def test_free_text_may_go_to_the_judge(new_run):
    run_ = new_run(CASES)
    text = [replace(case.sample(), answer="a bus", meta={"answer_type": "text"}) for case in CASES]
    write_parquet(text, run_.data / "maze" / "test.parquet")
    plan = dry_run(run_.config({"one": SystemConfig(), "two": SystemConfig()}, judge=ModelConfig(), repeats=2))
    assert "| judge | reader | 12 | 0 | 0 to 12 |" in plan
