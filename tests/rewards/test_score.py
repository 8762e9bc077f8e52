"""The score of an edit: both rewards at once, missing apart from wrong, and R."""

import asyncio
import json

import pytest

from etchr.mllm.journal import CallJournal, JournaledModel
from etchr.mllm.protocol import CallFailed
from etchr.mllm.settings import ModelConfig
from etchr.rewards.score import EditRewards, Score
from etchr.rewards.settings import CorrectnessConfig, RewardConfig
from tests.rewards.fakes import BAD, EDIT, GOOD, GatedModel, ScriptedModel, make_sample, tokens

RIGHT, WRONG = "\\boxed{7}", "\\boxed{8}"


def score(reasoner, judge=None, seed=1, sample=None, **options):
    config = RewardConfig(**({"num_decodings": 2} | options))
    return asyncio.run(EditRewards(reasoner, judge or reasoner, config).score(sample or make_sample(), EDIT, seed))


def test_both_rewards_of_one_edit():
    model = ScriptedModel({"answer": [[RIGHT, WRONG]], "judge": [GOOD]})
    assert score(model) == Score(0.5, 1.0, None)
    assert len({call.seed for call in model.calls}) == 2


def test_a_wrong_edit_scores_zero_and_a_failed_call_scores_nothing():
    assert score(ScriptedModel({"answer": [WRONG], "judge": [BAD]})) == Score(0.0, 0.0, None)
    down = ScriptedModel({"answer": [WRONG], "judge": [CallFailed("judge down")]})
    assert score(down).guidance == 0.0
    assert score(down).correctness is None
    assert score(down).missing == "correctness: 0 of 2 decodings could be used; judge down"
    both = score(ScriptedModel({"answer": ["Hm."], "judge": ["Hm."]}))
    assert (both.guidance, both.correctness) == (None, None)
    assert "guidance: 0 of 2" in both.missing
    assert "correctness: 0 of 2" in both.missing


def test_a_reward_that_was_answered_is_not_asked_again_with_its_sibling(tmp_path):
    """The judge is away; the guesses stay, also for a process that starts anew."""
    config = RewardConfig(num_decodings=2)
    replies = {"answer": [[RIGHT, WRONG]], "judge": [CallFailed("judge down"), GOOD]}
    model, kinds = ScriptedModel(replies), []
    for _ in range(3):
        journal = CallJournal(tmp_path)
        kept = JournaledModel(model, {}, journal)
        got = asyncio.run(EditRewards(kept, kept, config, journal).score(make_sample(), EDIT, 1))
        kinds.append(len(model.calls))
        journal.close()
    assert got == Score(0.5, 1.0)
    assert [call.kind for call in model.calls] == ["answer", "judge", "judge"]
    assert kinds == [2, 3, 3]


def test_a_dense_reward_without_log_probabilities_is_missing_unless_none_ever_came():
    dense = {"correctness": CorrectnessConfig(dense=True), "guidance_weight": 0.0}
    with_odds = tokens({"1": 0.75, "0": 0.25})
    rewards = EditRewards(model := ScriptedModel({"judge": [GOOD]}), model, RewardConfig(**dense))

    def correctness():
        return asyncio.run(rewards.score(make_sample(), EDIT, 1))

    with pytest.raises(ValueError, match="scripted gives none: set top_logprobs"):
        correctness()
    for reply in (with_odds, GOOD, with_odds):
        model.script["judge"] = [reply]
        got = correctness()
        if reply is GOOD:
            assert got.correctness is None
            assert got.missing.startswith("correctness: a dense reward needs log-probabilities")
        else:
            assert got.correctness == pytest.approx(0.75)


@pytest.mark.parametrize(("alpha", "kinds", "wanted"), [(1.0, ["answer"], (1.0, None)), (0.0, ["judge"], (None, 1.0))])
def test_a_reward_without_weight_is_not_asked_for(alpha, kinds, wanted):
    model = ScriptedModel({"answer": [RIGHT], "judge": [GOOD]})
    got = score(model, guidance_weight=alpha)
    assert [call.kind for call in model.calls] == kinds
    assert (got.guidance, got.correctness, got.missing) == (*wanted, None)


def test_reasoner_and_judge_may_be_two_models():
    reasoner, judge = ScriptedModel({"answer": [RIGHT]}), ScriptedModel({"judge": [GOOD]})
    assert score(reasoner, judge) == Score(1.0, 1.0)
    assert (len(reasoner.calls), len(judge.calls)) == (1, 1)


def test_the_two_rewards_are_asked_for_at_once():
    model = GatedModel(2, answer=[RIGHT], judge=[GOOD])
    assert score(model) == Score(1.0, 1.0)
    assert model.max_in_flight == 2


def test_a_mistake_is_raised_and_not_scored():
    model = ScriptedModel({"answer": [RIGHT], "judge": [GOOD]})
    with pytest.raises(ValueError, match="its answer 'many' is no number answer"):
        score(model, sample=make_sample("many"))


def test_models_come_from_the_options_and_the_judge_may_be_the_reasoner():
    shared = EditRewards.from_config(RewardConfig())
    assert shared.judge is shared.reasoner
    assert shared.models() == [shared.reasoner]
    apart = EditRewards.from_config(RewardConfig(judge=ModelConfig(error_rate=0.5)))
    assert [model.error_rate for model in apart.models()] == [0.0, 0.5]
    unasked = EditRewards.from_config(RewardConfig(judge=ModelConfig(error_rate=0.5), guidance_weight=1.0))
    assert unasked.models() == [unasked.reasoner]


@pytest.mark.parametrize("score", [Score(0.5, 1.0), Score(None, 0.25), Score(0.5, None, "down: \udcff 'x'")])
def test_a_score_survives_json(score):
    assert Score.from_json(json.loads(json.dumps(score.to_json()))) == score


@pytest.mark.parametrize(
    "record", [{"guidance": 2}, {"guidance": "1"}, {"correctness": True}, {"correctness": float("nan")}, {"missing": 1}]
)
def test_what_is_no_score_is_refused(record):
    with pytest.raises(ValueError, match="a score's"):
        Score.from_json(record)
