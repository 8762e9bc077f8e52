"""The options of the rewards: what they refuse, and that commands can set them."""

from dataclasses import dataclass, field

import pytest

from etchr.config import compose
from etchr.config_help import help_text
from etchr.mllm.settings import ModelConfig
from etchr.rewards.settings import CorrectnessConfig, GuidanceConfig, RewardConfig

HTTP = {"kind": "http", "model": "vl", "base_urls": ["http://127.0.0.1:1/v1"]}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"guidance_weight": 1.5}, "guidance_weight=1.5 must lie between 0 and 1"),
        ({"guidance_weight": float("nan")}, "guidance_weight=nan must lie"),
        ({"max_missing": -0.1}, "max_missing=-0.1 must lie between 0 and 1"),
        ({"num_decodings": 0}, "num_decodings=0 must be at least 1"),
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"retries": -1}, "retries=-1 must be at least 0"),
        ({"temperature": -1.0}, "temperature=-1.0 must lie between 0 and 2"),
        ({"temperature": 0.0}, "temperature=0 makes all 8 decodings alike"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        RewardConfig(**options)


def test_unknown_words_are_answered_by_the_known_ones():
    with pytest.raises(ValueError, match=r"guidance.view='truth' must be one of both, edit"):
        GuidanceConfig(view="truth")
    with pytest.raises(ValueError, match=r"guidance.grade='llm' must be one of auto, rules, text, model"):
        GuidanceConfig(grade="llm")
    with pytest.raises(ValueError, match=r"correctness.view='source' must be one of both, edit, truth"):
        CorrectnessConfig(view="source")


def test_one_decoding_may_be_greedy():
    assert RewardConfig(temperature=0.0, num_decodings=1).num_decodings == 1


def test_dense_rewards_want_a_server_that_gives_log_probabilities():
    http = ModelConfig(**HTTP)
    for reward, config in (("guidance", GuidanceConfig(dense=True)), ("correctness", CorrectnessConfig(dense=True))):
        with pytest.raises(
            ValueError, match=rf"{reward}.dense=true needs log-probabilities: set reasoner.top_logprobs"
        ):
            RewardConfig(reasoner=http, **{reward: config})
    with pytest.raises(ValueError, match=r"set judge.top_logprobs"):
        RewardConfig(judge=http, correctness=CorrectnessConfig(dense=True))
    RewardConfig(reasoner=ModelConfig(**HTTP, top_logprobs=5), correctness=CorrectnessConfig(dense=True))
    RewardConfig(reasoner=http, guidance_weight=1.0, correctness=CorrectnessConfig(dense=True))  # not asked for


def test_the_reader_cannot_judge_an_edit_without_its_source():
    with pytest.raises(ValueError, match=r"correctness.view=edit does not work with reasoner.kind=reader"):
        RewardConfig(correctness=CorrectnessConfig(view="edit"))
    RewardConfig(judge=ModelConfig(**HTTP), correctness=CorrectnessConfig(view="edit"))
    RewardConfig(guidance_weight=0.0, guidance=GuidanceConfig(view="edit"))


@dataclass
class Command:
    """A command that has rewards."""

    rewards: RewardConfig = field(default_factory=RewardConfig)  # how edits are rewarded


def test_a_command_sets_every_level_of_them():
    words = ["rewards.guidance_weight=0.25", "rewards.correctness.view=truth", "rewards.reasoner.error_rate=0.1"]
    rewards = compose(Command, None, [*words, "rewards.judge={kind: reader, seed: 3}"]).rewards
    assert (rewards.guidance_weight, rewards.correctness.view) == (0.25, "truth")
    assert (rewards.reasoner.error_rate, rewards.judge) == (0.1, ModelConfig(seed=3))
    assert compose(Command, None, []).rewards == RewardConfig()
    with pytest.raises(ValueError, match="guidance_weight=3"):
        compose(Command, None, ["rewards.guidance_weight=3"])


def test_every_option_is_explained_in_the_help():
    lines = [line for line in help_text(Command, {}, "x", "y").splitlines() if line.startswith("  rewards.")]
    assert len(lines) > 25
    assert [line for line in lines if len(line.split(maxsplit=1)) < 2] == []
