"""The correctness reward: what the judge is shown and told, what its verdicts come to."""

import asyncio
import dataclasses

import pytest

from etchr.families import TASK_FAMILY, TASKS, TaskFamily
from etchr.mllm.logprobs import token_share
from etchr.mllm.prompts import JUDGE_CRITERION, judge_prompt
from etchr.mllm.protocol import GREEDY, CallFailed, Reply
from etchr.mllm.settings import ModelConfig
from etchr.rewards.correctness import correctness
from etchr.rewards.settings import CorrectnessConfig, RewardConfig
from tests.rewards.fakes import BAD, EDIT, GOOD, SOURCE, TRUTH, ScriptedModel, make_sample, tokens

RELEASED = RewardConfig(
    num_decodings=4,
    prompts="released",
    correctness=CorrectnessConfig(view="edit"),
    reasoner=ModelConfig("http", "m", ["http://127.0.0.1:1/v1"]),
)


class BareModel:
    """A model with one list of replies, which remembers the texts that it was asked."""

    name = "bare"

    def __init__(self, replies):
        self.replies, self.texts = replies, []

    async def chat(self, messages, sampling=GREEDY):
        self.texts += [part["text"] for part in messages[0]["content"] if part["type"] == "text"]
        return [Reply(reply) for reply in self.replies]


def ask(model, sample=None, judge=None, **options):
    options = {"num_decodings": 4, "correctness": CorrectnessConfig(**(judge or {}))} | options
    return asyncio.run(correctness(model, sample or make_sample(), EDIT, RewardConfig(**options), 1))


def test_the_share_of_positive_verdicts_in_one_request():
    model = ScriptedModel({"judge": [[GOOD, BAD, "\\boxed{Yes}", "Verdict: 0"]]})
    assert ask(model) == 0.5
    assert [call.n for call in model.calls] == [4]


def test_no_verdict_is_missing_and_not_a_rejection():
    model = ScriptedModel({"judge": [[GOOD, "Hm.", Reply(BAD, finish_reason="length"), GOOD], [GOOD, "Hm."], ["Hm."]]})
    assert ask(model) == 1.0
    assert [call.n for call in model.calls] == [4, 2, 1]
    with pytest.raises(CallFailed, match=r"0 of 4 decodings could be used; scripted: no verdict in 'Hm.'"):
        ask(ScriptedModel({"judge": ["Hm."]}))
    with pytest.raises(CallFailed, match="endpoint down"):
        ask(ScriptedModel({"judge": [CallFailed("endpoint down")]}))


@pytest.mark.parametrize(
    ("view", "images"), [("both", (SOURCE, EDIT)), ("edit", (EDIT,)), ("truth", (SOURCE, EDIT, TRUTH))]
)
def test_the_judge_sees_what_the_view_says(view, images):
    model = ScriptedModel({"judge": [GOOD]})
    config = RewardConfig(guidance_weight=1.0, correctness=CorrectnessConfig(view=view))
    asyncio.run(correctness(model, make_sample(), EDIT, config, 1))
    assert model.calls[0].images == images
    word = {1: "one image", 2: "two images", 3: "three images"}[len(images)]
    assert f"You see {word}." in model.calls[0].text


def test_released_prompts_are_short_and_only_a_bare_1_counts():
    """Whatever else a reply says is 0 there, not missing; of mazes and jigsaws the question is left out."""
    found = dict.fromkeys(TaskFamily, "")
    for family in TaskFamily:
        sample = dataclasses.replace(make_sample(), family=family, question="Why {x}?")
        asyncio.run(correctness(answering := BareModel(["1", " 1\n", "1.", "Yes"]), sample, EDIT, RELEASED, 1))
        found[family] = answering.texts[0]
        assert ("Why {x}?" in found[family]) == (family not in (TaskFamily.LOGIC, TaskFamily.JIGSAW))
    assert len(set(found.values())) == 4  # one for both kinds of red box
    assert asyncio.run(correctness(BareModel(["1", " 1\n", "1.", "Yes"]), make_sample(), EDIT, RELEASED, 1)) == 0.5


def test_the_truth_must_be_there_to_be_shown():
    model = ScriptedModel({"judge": [GOOD]})
    with pytest.raises(ValueError, match=r"sample 's' has no ground-truth edit to show; set correctness.view=both"):
        ask(model, dataclasses.replace(make_sample(), edit_image=None), judge={"view": "truth"})
    assert model.calls == []


@pytest.mark.parametrize("view", ["both", "edit", "truth"])
def test_each_task_has_a_prompt_of_its_own_and_other_tasks_take_their_familys(view):
    prompts = {task: judge_prompt(task, TASK_FAMILY[task], "Why {x}?", ("a", "b"), view) for task in TASKS}
    assert len(set(prompts.values())) == len(TASKS)
    for prompt in prompts.values():
        assert "Why {x}?\nA. a\nB. b\n" in prompt
        assert "\\boxed{1}" in prompt
        assert "\\boxed{0}" in prompt
        assert "do not answer the question" in prompt
    for family in TaskFamily:
        assert JUDGE_CRITERION[family] in judge_prompt("hr_bench", family, "Why?", None, view)
    many = judge_prompt("maze", TASK_FAMILY["maze"], "Why?", None, "both", num_sources=3)
    assert many.startswith("You see 4 images. The last is an edit of the first")


def test_dense_is_the_probability_of_the_positive_verdict_token():
    reply = tokens({"0": 0.6, "1": 0.4}, {"\\boxed{": 1.0}, {"1": 0.5, " 1": 0.1, "0": 0.2, "}": 0.2}, {"}": 1.0})
    model = ScriptedModel({"judge": [reply]})
    assert ask(model, judge={"dense": True}) == pytest.approx(0.6 / 0.8)
    assert [(call.n, call.temperature) for call in model.calls] == [(1, 0.0)]
    words = tokens({"Verdict": 1.0}, {" No": 0.7, " Yes": 0.25, "1": 0.05})
    assert ask(ScriptedModel({"judge": [words]}), judge={"dense": True}) == pytest.approx(0.3)


def test_dense_is_missing_without_a_verdict_token_and_a_mistake_without_log_probabilities():
    model = ScriptedModel({"judge": [tokens({"Hm": 0.9, "1": 0.1})]})
    with pytest.raises(CallFailed, match="0 of 1 decodings"):
        ask(model, judge={"dense": True})
    cut = dataclasses.replace(tokens({"1": 1.0}), finish_reason="length")
    with pytest.raises(CallFailed, match="cut off"):
        ask(ScriptedModel({"judge": [cut]}), judge={"dense": True})
    with pytest.raises(ValueError, match="needs log-probabilities and scripted gives none"):
        ask(ScriptedModel({"judge": [GOOD]}), judge={"dense": True})


def test_a_share_is_a_share_however_small_the_probabilities_are():
    reply = Reply("1", logprobs=({"1": -9999.0, "0": -9999.0},))
    assert token_share(reply, {"1"}, {"0"}) == 0.5
    assert token_share(Reply("1", logprobs=({"1": -0.1},)), {"1"}, {"0"}) == 1.0
    assert token_share(Reply("", logprobs=({},)), {"1"}, {"0"}) is None
    assert token_share(Reply("1"), {"1"}, {"0"}) is None
