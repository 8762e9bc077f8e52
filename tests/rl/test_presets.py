"""The presets of Stage II: they compose, and hold what they say."""

import pytest

from etchr.config import compose, experiments
from etchr.rl.settings import RlConfig

PRESETS = {
    "nano_rl",
    "nano_rl_paper",
    "rl_9b",
    "rl_paper_9b",
    "rl_released_9b",
    "rl_guidance_only",
    "rl_correctness_only",
}


@pytest.fixture(scope="module")
def configs():
    return {name: compose(RlConfig, "rl", [f"experiment={name}"]) for name in experiments("rl")}


def test_every_preset_composes_and_has_its_own_folder(configs):
    assert configs.keys() >= PRESETS
    assert len({config.out for config in configs.values()}) == len(configs)
    assert all(config.sft is not None for name, config in configs.items() if name in PRESETS)


def test_the_released_preset_holds_the_released_values(configs):
    config = configs["rl_released_9b"]
    assert (config.adapter.rank, config.adapter.alpha, config.save_every) == (64, 128, 60)
    optim = config.optim
    assert (optim.name, optim.lr, optim.schedule, optim.weight_decay) == ("adamw", 1e-5, "constant", 1e-4)
    assert (optim.clip, optim.warmup_steps, optim.ema) == (1.0, 0, None)
    # gradient accumulation over 4 of a GPU's 8 edits, one prompt a GPU
    assert (config.group_size, config.prompts_per_iteration, config.updates_per_iteration) == (8, 8, 2)
    assert (config.batch_size, config.seed, config.epochs, config.iterations) == (1, 42, 1, None)
    rollout = config.rollout
    assert (rollout.num_steps, rollout.shift, rollout.sde, rollout.eta) == (25, 3.0, "flow", 0.7)
    assert (rollout.trained, int(rollout.fraction * (rollout.num_steps - 1))) == ("fraction", 14)
    assert (rollout.guidance_scale, rollout.same_noise) == (1.0, True)
    assert rollout.released_rounding is True
    objective = config.objective
    assert (objective.kind, objective.advantage, objective.clip) == ("grpo", "gdpo", 1e-4)
    assert (objective.clip_high, objective.normalise_ratio) == (None, True)
    assert (objective.max_advantage, objective.kl) == (5.0, 0.0)
    assert config.model.max_pixels == 720 * 720
    reward = config.reward
    assert (reward.guidance_weight, reward.num_decodings, reward.temperature) == (0.5, 1, 0.7)
    assert (reward.max_tokens, reward.overlap, reward.judge) == (1024, False, None)
    assert (reward.guidance.view, reward.guidance.grade, reward.correctness.view) == ("both", "model", "edit")
    assert (reward.guidance.dense, reward.correctness.dense) == (False, False)
    assert reward.reasoner.model == "Qwen/Qwen3-VL-8B-Instruct"
    assert reward.reasoner.extra_body == {"top_p": 0.8, "top_k": 20}


def test_the_paper_s_preset_is_what_the_paper_says(configs):
    config = configs["rl_paper_9b"]
    assert (config.objective.advantage, config.objective.ties) == ("win_rate", 0.5)
    assert (config.reward.guidance_weight, config.reward.num_decodings) == (0.5, 8)
    assert (config.reward.guidance.view, config.reward.correctness.view) == ("edit", "edit")
    assert config.rollout.released_rounding is False


def test_the_ablations_differ_from_the_paper_in_one_weight(configs):
    for name, weight in (("rl_guidance_only", 1.0), ("rl_correctness_only", 0.0)):
        config = compose(RlConfig, "rl", ["experiment=rl_paper_9b", f"out={configs[name].out}"])
        config.reward.guidance_weight = weight
        assert configs[name] == config


def test_ours_sees_the_ground_truth_and_samples_as_inference_does(configs):
    config = configs["rl_9b"]
    assert (config.rollout.trained, config.rollout.shift, config.rollout.guidance_scale) == ("window", None, 3.5)
    assert (config.rollout.released_rounding, config.rollout.same_noise) == (False, False)
    assert config.reward.correctness.view == "truth"
