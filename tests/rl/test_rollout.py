"""Sampling: which steps are trained, what chance depends on, and that sampling and training agree to the last bit."""

import pytest
import torch

from etchr.editor.klein import KleinEditor
from etchr.editor.tokens import to_images
from etchr.flow.steps import transition
from etchr.rl import algorithms
from etchr.rl.algorithms.grpo import log_ratio, plan_steps
from etchr.rl.rollout import Sampler
from etchr.rl.settings import RolloutConfig
from etchr.rl.trainer import train
from etchr.sample import read_parquet
from etchr.seeds import hash_seed
from tests.rl.runs import lines, options

# ------------------------------------------------------------------------------------------------------ step plans


@pytest.mark.parametrize("num_steps", [2, 3, 8, 25])
@pytest.mark.parametrize("trained", ["all", "fraction", "window"])
def test_the_last_step_is_never_trained_and_trained_steps_are_stochastic(trained, num_steps):
    for seed in range(20):
        plan = plan_steps(RolloutConfig(trained=trained), num_steps, 4, seed)
        assert len(plan.stochastic) == num_steps
        assert plan.trained.shape[0] == 4
        assert plan.trained.shape[1] > 0
        for row in plan.trained.tolist():
            assert len(set(row)) == len(row)
            assert all(0 <= step < num_steps - 1 and plan.stochastic[step] for step in row)


def test_all_steps_but_the_last_are_trained_with_all():
    plan = plan_steps(RolloutConfig(trained="all"), 7, 3, 0)
    assert plan.trained.tolist() == [[0, 1, 2, 3, 4, 5]] * 3
    assert plan.stochastic == [True] * 6 + [False]


def test_the_released_plan_trains_14_of_24_steps_drawn_for_every_edit():
    config = RolloutConfig(trained="fraction", fraction=0.6)
    plan = plan_steps(config, 25, 8, 3)
    assert plan.trained.shape == (8, 14)
    assert plan.stochastic == [True] * 24 + [False]
    assert len({tuple(sorted(row)) for row in plan.trained.tolist()}) == 8
    seen = {step for seed in range(10) for row in plan_steps(config, 25, 8, seed).trained.tolist() for step in row}
    assert seen == set(range(24))


@pytest.mark.parametrize(("bounds", "starts"), [([0.0, 0.6], range(13)), ([0.5, 1.0], range(12, 23))])
def test_a_window_is_the_same_for_a_group_and_lies_where_it_may(bounds, starts):
    config = RolloutConfig(trained="window", window=2, window_range=bounds)
    found = set()
    for seed in range(300):
        plan = plan_steps(config, 25, 4, seed)
        start = int(plan.trained[0, 0])
        assert plan.trained.tolist() == [[start, start + 1]] * 4
        assert [step for step in range(25) if plan.stochastic[step]] == [start, start + 1]
        found.add(start)
    assert found == set(starts)


@pytest.mark.parametrize("window", [2, 3, 9])
def test_a_window_longer_than_its_range_is_cut_at_the_last_step_only(window):
    for seed in range(20):
        plan = plan_steps(RolloutConfig(window=window, window_range=[0.9, 1.0]), 5, 2, seed)
        assert plan.trained[0].tolist() == [3]
        plan = plan_steps(RolloutConfig(window=window, window_range=[0.0, 0.1]), 5, 2, seed)
        assert plan.trained[0].tolist() == list(range(min(window, 4)))


@pytest.mark.parametrize("trained", ["fraction", "window"])
def test_a_plan_depends_on_its_seed_alone(trained):
    config = RolloutConfig(trained=trained)
    plans = [plan_steps(config, 25, 4, seed) for seed in (1, 1, *range(2, 8))]
    assert torch.equal(plans[0].trained, plans[1].trained)
    assert plans[0].stochastic == plans[1].stochastic
    assert not all(torch.equal(plans[0].trained, other.trained) for other in plans[2:])


# ---------------------------------------------------------------------------------------------------------- chance


@pytest.fixture(scope="module")
def editor(tiny):
    return KleinEditor.load(tiny, device="cpu", num_inference_steps=4)


@pytest.fixture(scope="module")
def samples(pairs):
    return list(read_parquet(pairs / "chart" / "train.parquet"))[:3]


def make_algorithm(config, editor):
    return algorithms.find(config.objective.kind)(config, Sampler(editor, editor.transformer, config), [])


@pytest.fixture
def algorithm_of(tiny, pairs, tmp_path, editor):
    def make(*more):
        return make_algorithm(options(tiny, pairs, tmp_path, "rollout.num_steps=null", *more), editor)

    return make


def sample_all(algorithm, samples, iteration=0):
    sampler, groups = algorithm.sampler, []
    for place, sample in enumerate(samples):
        plan = algorithm.plan(sampler.num_steps, hash_seed(algorithm.config.seed, iteration, sample.id))
        groups.append(sampler.group(place, sampler.prompt(sample, f"Edit. {sample.question}"), iteration, plan))
    return groups


def clean(group):
    return torch.cat([batch.clean for batch in group.batches])


def start(group):
    """The initial noise, where the first step is trained."""
    return torch.cat([batch.steps[0].x for batch in group.batches])


@pytest.mark.parametrize("more", [(), ("rollout.trained=fraction",), ("objective.kind=nft",)])
def test_an_edit_does_not_depend_on_what_else_is_sampled(algorithm_of, samples, more):
    together = sample_all(algorithm_of(*more), samples)
    [alone] = sample_all(algorithm_of(*more), samples[2:])
    assert torch.equal(clean(together[2]), clean(alone))
    assert [edit.tobytes() for edit in together[2].edits] == [edit.tobytes() for edit in alone.edits]
    edits = {edit.tobytes() for group in together for edit in group.edits}
    assert len(edits) == 12, "members or prompts share their noise"


@pytest.mark.parametrize("more", [(), ("rollout.trained=all",), ("objective.kind=nft",)])
def test_other_iterations_and_seeds_give_other_edits(algorithm_of, samples, more):
    def edits(*words, iteration=0):
        return clean(sample_all(algorithm_of(*more, *words), samples[:1], iteration)[0])

    plain = edits()
    assert torch.equal(plain, edits())
    for other in (edits(iteration=1), edits("seed=1")):
        assert not any(torch.equal(mine, theirs) for mine in plain for theirs in other)
    assert torch.allclose(plain, edits("batch_size=4"), atol=1e-4)
    assert torch.allclose(plain, edits("batch_size=1"), atol=1e-4)


def test_the_same_noise_starts_all_edits_of_a_prompt_and_they_part_at_the_stochastic_steps(algorithm_of, samples):
    more = ("rollout.trained=all", "rollout.same_noise=true")
    one, other = sample_all(algorithm_of(*more), samples[:2])
    assert all(torch.equal(start(one)[0], row) for row in start(one))
    assert not torch.equal(start(one), start(other))
    assert len({edit.tobytes() for edit in one.edits}) == 4
    [apart] = sample_all(algorithm_of("rollout.trained=all"), samples[:1])
    assert len({row.numpy().tobytes() for row in start(apart)}) == 4


@pytest.mark.parametrize("sde", ["flow", "dance", "cps"])
def test_what_is_decoded_is_the_x_0_that_the_last_step_predicts(algorithm_of, samples, sde):
    """As the released trainer does: the noise of its last step never reaches the picture that is scored."""
    algorithm = algorithm_of("rollout.trained=all", f"rollout.sde={sde}")
    [group] = sample_all(algorithm, samples[:1])
    for batch in group.batches:
        last = batch.steps[max(batch.steps)]
        with torch.no_grad():
            v = algorithm.sampler.velocity(last.x_next, last.next_sigma, group.prompt)
        predicted = last.x_next - last.next_sigma[:, None, None] * v  # v = noise - x_0, x = (1 - s) x_0 + s noise
        assert torch.allclose(batch.clean, predicted, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_without_stochastic_steps_it_is_the_algorithm_of_inference(tiny, pairs, tmp_path, samples, scale):
    editor = KleinEditor.load(tiny, device="cpu", num_inference_steps=4, guidance_scale=scale)
    config = options(tiny, pairs, tmp_path, "rollout.num_steps=null", "objective.kind=nft")
    [group] = sample_all(make_algorithm(config, editor), samples[:1], iteration=5)
    prompt = group.prompt
    assert (prompt.negative is None) == (scale == 1)
    noise = editor.noise([hash_seed(config.seed, 5, samples[0].id, member) for member in range(4)], prompt.grid)
    text, condition = (part.expand(4, -1, -1) for part in (prompt.text, prompt.condition))
    with torch.no_grad():
        expected = editor.sample(noise, text, condition, prompt.grid)
    assert torch.allclose(clean(group), expected, atol=1e-5)
    assert [edit.size for edit in group.edits] == [prompt.source.size] * 4
    pictures = to_images(editor.decode(expected, prompt.grid))
    assert max(abs(a - b) for a, b in zip(group.edits[0].tobytes(), pictures[0].tobytes(), strict=True)) <= 1


def test_a_fixed_shift_replaces_the_levels_of_inference(algorithm_of, samples):
    own = algorithm_of().sampler.prompt(samples[0], "x").sigmas
    fixed = algorithm_of("rollout.shift=3").sampler.prompt(samples[0], "x").sigmas
    even = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    assert torch.allclose(fixed, 3 * even / (1 + 2 * even), atol=1e-6)
    assert own.shape == fixed.shape
    assert (own[0], own[-1]) == (1, 0)
    assert not torch.allclose(own, fixed, atol=1e-3)


def test_noise_levels_of_nft_are_spread_over_the_turns_and_its_noise_is_its_own(algorithm_of, samples):
    algorithm = algorithm_of("objective.kind=nft", "objective.num_levels=3")
    [group] = sample_all(algorithm, samples[:1])
    batch = group.batches[0]
    levels = torch.stack([algorithm.noised(batch, turn, 0)[0] for turn in range(3)])
    assert (levels[0] < levels[1]).all()
    assert (levels[1] < levels[2]).all()
    sigma, x, target = algorithm.noised(batch, 1, 0)
    assert torch.allclose(x - sigma.view(-1, 1, 1) * target, batch.clean, atol=1e-5)
    assert torch.equal(x, algorithm.noised(batch, 1, 0)[1])
    others = [algorithm.noised(batch, 0, 0)[2], algorithm.noised(batch, 1, 1)[2]]
    assert not any(torch.equal(target[0], other[0]) for other in others)
    assert not torch.equal(target[0], target[1])
    assert abs(float((target + batch.clean).std()) - 1) < 0.1  # the noise


# ----------------------------------------------------------------------------------- sampling and training agree


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("sde", ["flow", "dance", "cps"])
@pytest.mark.parametrize("trained", ["all", "fraction", "window"])
def test_a_trained_step_gives_the_ratio_1_exactly(algorithm_of, samples, sde, trained, scale):
    more = (f"rollout.sde={sde}", f"rollout.trained={trained}", f"rollout.guidance_scale={scale}")
    algorithm = algorithm_of(*more)
    sampler = algorithm.sampler
    [group] = sample_all(algorithm, samples[:1])
    for batch in group.batches:
        for turn in range(batch.trained.shape[1]):
            step = batch.step(turn)
            assert [float(prompt_sigma) for prompt_sigma in step.sigma] == [
                float(batch.prompt.sigmas[number]) for number in batch.trained[:, turn]
            ]
            velocity = sampler.velocity(step.x, step.sigma, batch.prompt)
            eta, first = sampler.config.eta, batch.prompt.sigmas[1]
            new = transition(sde, step.x, velocity, step.sigma, step.next_sigma, first, eta)
            assert torch.equal(new.mean, step.old_mean)
            for normalise in (True, False):
                assert torch.exp(log_ratio(new, step.old_mean, step.x_next, normalise)).eq(1).all()
            assert not torch.equal(step.x_next, step.old_mean)  # noise was added


@pytest.mark.parametrize(
    "more",
    [
        ("rollout.sde=flow", "rollout.trained=window", "rollout.guidance_scale=2"),
        ("rollout.sde=dance", "rollout.trained=all", "batch_size=1"),
        ("rollout.sde=cps", "rollout.trained=fraction", "batch_size=4", "updates_per_iteration=1"),
        ("rollout.sde=flow", "rollout.trained=fraction", "objective.normalise_ratio=false", "group_size=6"),
    ],
)
def test_before_the_first_update_every_ratio_of_a_run_is_1(tiny, pairs, tmp_path, more):
    train(options(tiny, pairs, tmp_path / "run", "iterations=2", "optim.lr=0.1", *more))
    for line in lines(tmp_path / "run"):
        assert line["ratio_error_first"] == 0
        assert line["edit_steps_trained"] > 0
        if "updates_per_iteration=1" in more:
            assert line["ratio_min"] == line["ratio_max"] == 1
        else:  # and the second update is under another policy
            assert line["ratio_min"] < line["ratio_max"]


def test_released_rounding_makes_ratios_other_than_1(tiny, pairs, tmp_path):
    more = ("rollout.trained=fraction", "rollout.released_rounding=true")
    train(options(tiny, pairs, tmp_path / "run", "iterations=1", *more))
    [line] = lines(tmp_path / "run")
    assert 0 < line["ratio_error_first"] < 1e-2
