"""The GRPO loss and its gradient against an element-by-element computation in fp64."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from etchr.flow import SDES
from etchr.flow.steps import Transition, transition
from etchr.rl.algorithms.grpo import grpo_loss, log_ratio

SHAPES = [(6, 1, 2), (6, 3, 2), (4, 8, 4)]
CLIP, CLIP_HIGH = 0.01, 0.03


def make_step(seed, shape, sde="flow", dtype=torch.float64, distance=0.25):
    """Old and new mean `distance` standard deviations apart, x' drawn from the old; |dt|, advantages, a reference."""
    rng = np.random.default_rng(seed)
    std = rng.uniform(0.3, 0.9, (shape[0], 1, 1))
    old = rng.normal(size=shape)
    new = old + distance * std * rng.normal(size=shape)
    after = old + std * rng.normal(size=shape)
    numbers = {"std": std, "old": old, "new": new, "after": after, "reference": old + 0.2 * rng.normal(size=shape)}
    numbers |= {"advantage": rng.normal(size=shape[0]), "dt": -rng.uniform(0.02, 0.2, shape[0])}
    tensors = {name: torch.tensor(np.float32(value)).to(dtype) for name, value in numbers.items()}  # same in both
    return SimpleNamespace(**tensors, sde=sde)


def policy_of(step, mean=None):
    return Transition(step.new if mean is None else mean, step.std, is_normal=step.sde != "cps")


def average(function, *rows):
    """The mean over tokens and channels of one edit, one number at a time."""
    values = [function(*numbers) for numbers in zip(*(row.flatten().tolist() for row in rows), strict=True)]
    return math.fsum(values) / len(values)


def normal_log_prob(after, mean, std):
    return average(lambda x, mu: -((x - mu) ** 2) / (2 * std**2) - math.log(std * math.sqrt(2 * math.pi)), after, mean)


def plain_log_ratio(step, new, b, normalise):
    """From the log-probabilities of edit b, as published; GRPO-Guard's is defined for normal ones."""
    after, old, std = step.after[b].double().numpy(), step.old[b].double().numpy(), float(step.std[b])
    if not normalise and step.sde == "cps":
        return average(lambda x, mu, before: (x - before) ** 2 - (x - mu) ** 2, after, new, old)
    change = normal_log_prob(after, new, std) - normal_log_prob(after, old, std)
    if not normalise:
        return change
    bias = average(lambda mu, before: (mu - before) ** 2, new, old) / (2 * std**2)
    return (change + bias) * std


def plain_loss(step, new, b, normalise, low, high):
    """-min(A ratio, A clipped ratio), over |dt| with ratio normalisation."""
    ratio, advantage = math.exp(plain_log_ratio(step, new, b, normalise)), float(step.advantage[b])
    gain = min(advantage * ratio, advantage * min(max(ratio, 1 - low), 1 + high))
    return -gain / abs(float(step.dt[b])) if normalise else -gain


def slope(function, at):
    """Central differences of a function of an array."""
    gradient = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        up, down = at.copy(), at.copy()
        up[place] += 1e-5
        down[place] -= 1e-5
        gradient[place] = (function(up) - function(down)) / 2e-5
    return gradient


every_sde = pytest.mark.parametrize("sde", SDES)
both_ratios = pytest.mark.parametrize("normalise", [False, True])


@every_sde
@both_ratios
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_the_ratio_and_the_loss_are_those_of_the_log_probabilities(sde, normalise, dtype, shape, seed):
    step = make_step(seed, shape, sde, dtype)
    new = step.new.double().numpy()
    wanted = [plain_log_ratio(step, new[b], b, normalise) for b in range(shape[0])]
    got = log_ratio(policy_of(step), step.old, step.after, normalise)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6, atol=1e-6)
    options = {"clip": CLIP, "clip_high": CLIP_HIGH, "normalise": normalise, "dt": step.dt}
    loss = grpo_loss(policy_of(step), step.old, step.after, step.advantage, **options)
    np.testing.assert_allclose(loss.ratio.numpy(), np.exp(wanted), rtol=1e-6)
    wanted = [plain_loss(step, new[b], b, normalise, CLIP, CLIP_HIGH) for b in range(shape[0])]
    np.testing.assert_allclose(loss.policy.numpy(), wanted, rtol=1e-6, atol=1e-6)
    assert loss.kl.tolist() == [0.0] * shape[0]


@every_sde
@pytest.mark.parametrize("distance", [1e-4, 0.25])
def test_the_log_ratio_is_the_difference_of_two_log_probabilities(sde, distance):
    step = make_step(7, (5, 6, 4), sde, distance=distance)
    new, old = policy_of(step), policy_of(step, step.old)
    wanted = new.log_prob(step.after) - old.log_prob(step.after)
    torch.testing.assert_close(log_ratio(new, step.old, step.after, False), wanted, rtol=1e-9, atol=1e-12)
    single = make_step(7, (5, 6, 4), sde, torch.float32, distance)
    error = log_ratio(policy_of(single), single.old, single.after, False).double() - wanted
    assert error.abs().max() < 1e-6 * distance  # in fp32 too: nothing cancels


@every_sde
@both_ratios
@pytest.mark.parametrize("away", [0.0, 1.0, 1e4])
def test_an_unchanged_policy_has_a_ratio_of_exactly_one_wherever_x_went(sde, normalise, away):
    generator = torch.Generator().manual_seed(1)
    x, v, noise = torch.randn(3, 4, 9, 5, generator=generator)
    sigma, following = torch.tensor([1.0, 0.9, 0.5, 0.1]), torch.tensor([0.9, 0.6, 0.4, 0.07])
    old, new = (transition(sde, x, v, sigma, following, 0.9, 0.7) for _ in range(2))
    for after in (old.draw(noise) + away * noise, old.draw(noise).bfloat16()):
        for advantage in (1.0, -1.0):
            weights = torch.full((4,), advantage)
            loss = grpo_loss(new, old.mean, after, weights, clip=1e-6, normalise=normalise, dt=following - sigma)
            assert loss.ratio.tolist() == [1.0] * 4
            assert not loss.clipped.any()


@every_sde
@both_ratios
@pytest.mark.parametrize("clip_high", [None, CLIP_HIGH])
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_of_the_clipped_objective(sde, normalise, clip_high, seed):
    step = make_step(seed, (6, 3, 2), sde)
    high = CLIP if clip_high is None else clip_high
    mean = step.new.clone().requires_grad_()
    options = {"clip": CLIP, "clip_high": clip_high, "normalise": normalise, "dt": step.dt}
    loss = grpo_loss(policy_of(step, mean), step.old, step.after, step.advantage, **options)
    (got,) = torch.autograd.grad(loss.policy.sum(), mean)
    ratio, advantage = loss.ratio, step.advantage
    clipped = ((advantage > 0) & (ratio > 1 + high)) | ((advantage < 0) & (ratio < 1 - CLIP))
    assert 0 < clipped.sum() < len(clipped)
    assert torch.equal(loss.clipped, clipped)
    assert not loss.ratio.requires_grad
    assert (got[clipped] == 0).all()
    for b in range(len(got)):
        wanted = slope(lambda new, b=b: plain_loss(step, new, b, normalise, CLIP, high), step.new[b].numpy())
        np.testing.assert_allclose(got[b].numpy(), wanted, rtol=1e-6, atol=1e-6)
        assert clipped[b] == (not wanted.any())


@pytest.mark.parametrize(
    ("ratio", "advantage", "clipped", "policy"),
    [
        (1.3, 2.0, False, -2.6),  # between 1 + clip and 1 + clip_high
        (1.5, 2.0, True, -2.8),
        (1.5, -2.0, False, 3.0),  # the wrong way: never held back
        (0.7, 2.0, False, -1.4),
        (0.7, -2.0, True, 1.6),
        (0.9, -2.0, False, 1.8),
        (1.5, 0.0, False, 0.0),
    ],
)
@both_ratios
def test_the_clip_holds_back_only_what_the_advantage_asks_for(ratio, advantage, clipped, policy, normalise):
    # std 1 and x' - old mean = 1: the log-ratio of a shift d is d - d^2 / 2, or d with ratio normalisation
    shift = math.log(ratio) if normalise else 1 - math.sqrt(1 - 2 * math.log(ratio))
    mean = torch.full((1, 2, 3), shift, dtype=torch.float64, requires_grad=True)
    new = Transition(mean, torch.ones(1, 1, 1, dtype=torch.float64))
    options = {"clip": 0.2, "clip_high": 0.4, "normalise": normalise, "dt": torch.tensor([-1.0])}
    loss = grpo_loss(new, torch.zeros(1, 2, 3), torch.ones(1, 2, 3), torch.tensor([advantage]), **options)
    assert loss.policy.item() == pytest.approx(policy)
    assert loss.clipped.item() is clipped
    (gradient,) = torch.autograd.grad(loss.policy.sum(), mean)
    per_shift = -advantage * ratio * (1 if normalise else 1 - shift) / 6
    assert gradient.flatten().tolist() == pytest.approx([0.0 if clipped else per_shift] * 6)


@every_sde
@both_ratios
@pytest.mark.parametrize("seed", range(3))
def test_the_kl_to_the_reference_and_its_gradient(sde, normalise, seed):
    step = make_step(seed, (4, 3, 2), sde)
    mean, reference = step.new.clone().requires_grad_(), step.reference.numpy()
    options = {"clip": CLIP, "normalise": normalise, "dt": step.dt, "reference_mean": step.reference}
    loss = grpo_loss(policy_of(step, mean), step.old, step.after, step.advantage, **options)
    (got,) = torch.autograd.grad(loss.kl.sum(), mean)
    for b in range(4):
        std = float(step.std[b])

        def kl(new, b=b, std=std):
            return average(lambda mu, ref: (mu - ref) ** 2, new, reference[b]) / (2 * std**2)

        assert loss.kl[b].item() == pytest.approx(kl(step.new[b].numpy()), rel=1e-9)
        np.testing.assert_allclose(got[b].numpy(), slope(kl, step.new[b].numpy()), rtol=1e-6, atol=1e-6)
    normal = [torch.distributions.Normal(centre, step.std) for centre in (step.new, step.reference)]
    exact = torch.distributions.kl_divergence(*normal).flatten(1).mean(1)
    torch.testing.assert_close(loss.kl.detach(), exact)


@every_sde
@both_ratios
@pytest.mark.parametrize("seed", range(3))
def test_rounding_after_the_log_probability_shifts_the_ratio_as_it_does_in_the_released_code(sde, normalise, seed):
    step = make_step(seed, (6, 3, 2), sde)
    exact, old = step.after, policy_of(step, step.old)
    rounded = exact.bfloat16().double()
    error = old.log_prob(rounded) - old.log_prob(exact)
    options = {"clip": CLIP, "normalise": normalise, "dt": step.dt, "log_prob_error": error}
    for new in (step.new, step.old):  # also of a policy that has not changed
        got = grpo_loss(policy_of(step, new), step.old, rounded, step.advantage, **options).ratio
        for b in range(6):
            std, mean, before = float(step.std[b]), new[b].numpy(), step.old[b].numpy()
            if sde == "cps" and not normalise:
                change = average(lambda x, mu: -((x - mu) ** 2), rounded[b], mean)
                change += average(lambda x, mu: (x - mu) ** 2, exact[b], before)
            else:
                change = normal_log_prob(rounded[b], mean, std) - normal_log_prob(exact[b], before, std)
            if normalise:
                change = (change + average(lambda mu, ref: (mu - ref) ** 2, mean, before) / (2 * std**2)) * std
            assert got[b].item() == pytest.approx(math.exp(change), abs=1e-6)
            assert abs(math.exp(change) - 1) > 1e-6
