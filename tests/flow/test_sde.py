"""The stochastic steps against the published formulas, element by element in fp64, and what they do to a Gaussian."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from etchr.flow import SDES
from etchr.flow.steps import euler_step, transition

SHAPES = [(1, 1, 1), (3, 5, 4), (4, 7, 2)]
FIRST = 0.93  # the level after the first step


def random_step(seed, shape):
    """(x, v, sigma, next_sigma), fp32; one row in three starts from pure noise."""
    rng = np.random.default_rng(seed)
    x, v = rng.normal(size=(2, *shape))
    sigma = rng.uniform(0.1, 0.95, shape[0])
    following = sigma * rng.uniform(0.6, 0.98, shape[0])
    sigma[seed % 3 :: 3], following[seed % 3 :: 3] = 1.0, FIRST
    return [torch.tensor(values, dtype=torch.float32) for values in (x, v, sigma, following)]


def expected(sde, x, v, sigma, following, first, eta):
    """Mean and standard deviation of one number after the step."""
    dt = following - sigma
    if sde == "flow":
        s_t = eta * math.sqrt(sigma / (1 - (first if sigma == 1 else sigma)))
        pull, push = s_t**2 / (2 * sigma), s_t**2 * (1 - sigma) / (2 * sigma)
        return x * (1 + pull * dt) + v * (1 + push) * dt, s_t * math.sqrt(-dt)
    x0, x1 = x - sigma * v, x + (1 - sigma) * v
    if sde == "dance":
        score = -(x - (1 - sigma) * x0) / sigma**2
        return x + dt * v - 0.5 * eta**2 * score * dt, eta * math.sqrt(-dt)
    std = following * math.sin(eta * math.pi / 2)
    return x0 * (1 - following) + x1 * math.sqrt(following**2 - std**2), std


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_a_step_has_the_mean_and_spread_of_its_formula(sde, shape, seed):
    eta = (0.3, 0.7, 0.8, 0.95)[seed]
    x, v, sigma, following = random_step(seed, shape)
    step = transition(sde, x, v, sigma, following, torch.tensor(FIRST), eta)
    first = float(np.float32(FIRST))
    mean, std = np.zeros(shape), np.zeros((shape[0], 1, 1))
    for b, n, c in np.ndindex(*shape):
        numbers = (float(x[b, n, c]), float(v[b, n, c]), float(sigma[b]), float(following[b]))
        mean[b, n, c], std[b, 0, 0] = expected(sde, *numbers, first, eta)
    np.testing.assert_allclose(step.mean.numpy(), mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(step.std.numpy(), std, rtol=1e-6, atol=1e-6)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    np.testing.assert_allclose(step.draw(noise).numpy(), mean + std * noise.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sde", SDES)
def test_the_first_level_may_be_a_number_a_scalar_or_one_per_row_and_latents_are_fp32(sde):
    x, v, sigma, following = random_step(0, (4, 3, 2))
    firsts = (FIRST, torch.tensor(FIRST), torch.full((4,), FIRST))
    steps = [transition(sde, x, v, sigma, following, first, 0.7) for first in firsts]
    assert all(torch.equal(step.mean, steps[0].mean) and torch.equal(step.std, steps[0].std) for step in steps)
    own = transition(sde, x, v, sigma, following, torch.tensor([FIRST, 0.5, 0.5, 0.8]), 0.7)
    expected_row = transition(sde, x[3:], v[3:], sigma[3:], following[3:], 0.8, 0.7)  # rows 0 and 3 are pure noise
    assert torch.equal(own.std[3:], expected_row.std)
    for dtype in (torch.bfloat16, torch.float64):
        other = transition(sde, x.to(dtype), v.to(dtype), sigma, following, FIRST, 0.7)
        same = transition(sde, x.to(dtype).float(), v.to(dtype).float(), sigma, following, FIRST, 0.7)
        assert other.mean.dtype is torch.float32
        assert torch.equal(other.mean, same.mean)


def test_an_unknown_sde_is_named():
    x, v, sigma, following = random_step(0, (1, 1, 1))
    with pytest.raises(ValueError, match=r"sde='ode' must be one of flow, dance, cps"):
        transition("ode", x, v, sigma, following, FIRST, 0.7)


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("seed", range(4))
def test_log_probabilities_are_means_over_tokens_and_channels(sde, seed):
    x, v, sigma, following = random_step(seed, (4, 6, 3))
    step = transition(sde, x, v, sigma, following, FIRST, 0.7)
    after = step.draw(torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)))
    got = step.log_prob(after).double().numpy()
    normal = Normal(step.mean.double(), step.std.double()).log_prob(after.double()).flatten(1).mean(1).numpy()
    if sde != "cps":
        np.testing.assert_allclose(got, normal, rtol=1e-6, atol=1e-6)
        return
    bare = [-np.mean((after[b].double().numpy() - step.mean[b].double().numpy()) ** 2) for b in range(4)]
    np.testing.assert_allclose(got, bare, rtol=1e-6, atol=1e-6)
    var = step.std.double().flatten().numpy() ** 2  # what the field drops: the factor and the constants
    np.testing.assert_allclose(got, 2 * var * (normal + 0.5 * np.log(2 * math.pi * var)), rtol=1e-6, atol=1e-6)


# Data x_0 ~ N(M, S^2) and noise N(0, 1) make x_sigma ~ N((1 - sigma) M, (1 - sigma)^2 S^2 + sigma^2). The grid is even
# in log(sigma / (1 - sigma)), because Flow-GRPO's noise per step grows as 1 / (1 - sigma): on it no step is long. The
# one exception is the first step from sigma = 1, whose std is eta on every grid; the nearer to 1 it happens, the better
# the walk forgets it, hence 1 - sigma = 1e-4 after it. With 400 steps all moments lie within 1.5 % of their limits.
M, S = 0.8, 0.6
LEVELS = (0.9, 0.7, 0.5, 0.3, 0.1)
SAMPLES = 10_000
ETAS = {"flow": 0.7, "dance": 0.3, "cps": 0.8}
EVERY_WALK = pytest.mark.parametrize("sde", [*SDES, "ode"])


def grid(steps):
    return torch.cat([torch.ones(1), torch.sigmoid(torch.linspace(9.2, -3, steps))])


def marginal(sigma):
    return (1 - sigma) * M, (1 - sigma) ** 2 * S**2 + sigma**2


def limit(sde, sigma):
    """Mean and variance at `sigma` on an endless grid: the marginal's, but for cps a smaller variance.

    With A = (1 - sigma)^2 S^2, B = sigma^2 and c = cos(eta pi / 2), a short cps step multiplies deviations from the
    mean by k = (A + c B) / (A + B) and adds noise of variance (1 - c^2) B, whatever its length; on a fine grid the
    variance settles where (1 - k^2) var = (1 - c^2) B.
    """
    mean, var = marginal(sigma)
    if sde != "cps":
        return mean, var
    a, b, c = (1 - sigma) ** 2 * S**2, sigma**2, math.cos(ETAS["cps"] * math.pi / 2)
    k = (a + c * b) / (a + b)
    return mean, (1 - c**2) * b / (1 - k**2)


def gaussian_velocity(x, sigma):
    """E[noise - x_0 | x] by the rule for two jointly normal numbers."""
    mean, var = marginal(sigma)
    return -M + (sigma - (1 - sigma) * S**2) / var * (x - mean)


def walk(sde, sigmas, x, velocity, seed=0):
    """(sigma, x) after every step; `sde` may be ode."""
    generator = torch.Generator().manual_seed(seed)
    for here, there in pairwise(sigmas):
        v = velocity(x, here)
        if sde == "ode":
            x = euler_step(x, v, float(here), float(there))
        else:
            step = transition(sde, x, v, here[None], there[None], sigmas[1], ETAS[sde])
            x = step.draw(torch.randn(x.shape, generator=generator))
        yield float(there), x


def moments(sde, steps):
    """(sigma, mean, variance) after every step without sampling: for a Gaussian a step's mean is affine in x."""
    sigmas, ends, mean, var = grid(steps), torch.tensor([0.0, 1.0]).view(1, 2, 1), 0.0, 1.0
    for here, there in pairwise(sigmas):
        v = gaussian_velocity(ends, here)
        if sde == "ode":
            after, std = euler_step(ends, v, float(here), float(there)), 0.0
        else:
            step = transition(sde, ends, v, here[None], there[None], sigmas[1], ETAS[sde])
            after, std = step.mean, float(step.std)
        zero, one = after.flatten().tolist()
        mean, var = zero + (one - zero) * mean, (one - zero) ** 2 * var + std**2
        yield float(there), mean, var


def nearest(sigmas):
    return {min(sigmas, key=lambda sigma: abs(sigma - level)) for level in LEVELS}


def assert_within_5_standard_errors(x, mean, var, slack=0.0):
    """`slack`: the share of the variance that the grid may cost; the mean is exact on every grid."""
    assert abs(float(x.double().mean()) - mean) < 5 * math.sqrt(var / SAMPLES)
    assert abs(float(x.double().var()) - var) < 5 * var * math.sqrt(2 / SAMPLES) + slack * var


@EVERY_WALK
def test_samples_of_a_gaussian_have_the_mean_and_variance_of_the_limit(sde):
    sigmas, noise = grid(400), torch.randn(1, SAMPLES, 1, generator=torch.Generator().manual_seed(1))
    checked = nearest(sigmas.tolist())
    assert len(checked) == len(LEVELS)
    for sigma, x in walk(sde, sigmas, noise, gaussian_velocity):
        if sigma in checked:
            mean, var = limit(sde, sigma)
            assert_within_5_standard_errors(x, mean, var, slack=0.015)


@EVERY_WALK
def test_the_exact_moments_converge_to_the_limit(sde):
    errors = []
    for steps in (200, 400):
        rows = [row for row in moments(sde, steps) if row[0] in nearest(grid(steps).tolist())]
        assert all(mean == pytest.approx(marginal(sigma)[0], abs=1e-5) for sigma, mean, _ in rows)  # on every grid
        errors.append([abs(var / limit(sde, sigma)[1] - 1) for sigma, _, var in rows])
    coarse, fine = errors
    assert max(fine) < 0.015
    assert 0.4 < fine[-1] / coarse[-1] < 0.6  # first order


def test_cps_keeps_the_coefficients_of_signal_and_noise():
    generator = torch.Generator().manual_seed(3)
    x0, noise = torch.randn(2, 3, 5, 4, generator=generator)
    sigma, following = torch.tensor([1.0, 0.7, 0.4]), torch.tensor([0.6, 0.65, 0.0])
    s, after = sigma.view(-1, 1, 1), following.view(-1, 1, 1)
    step = transition("cps", (1 - s) * x0 + s * noise, noise - x0, sigma, following, FIRST, 0.8)
    kept = torch.sqrt(after**2 - step.std**2)  # of the old noise; the new noise has the rest
    torch.testing.assert_close(step.mean, (1 - after) * x0 + kept * noise, rtol=0, atol=1e-6)
    assert step.std.flatten().tolist() == pytest.approx((following * math.sin(0.4 * math.pi)).tolist(), abs=1e-6)


def test_cps_keeps_the_marginals_when_every_sample_follows_its_own_straight_path():
    generator = torch.Generator().manual_seed(5)
    x0 = M + S * torch.randn(1, SAMPLES, 1, generator=generator)
    noise = torch.randn(1, SAMPLES, 1, generator=generator)
    for sigma, x in walk("cps", torch.tensor([1.0, 0.8, 0.5, 0.2, 0.1]), noise, lambda x, s: (x - x0) / s):
        assert_within_5_standard_errors(x, *marginal(sigma))  # four steps do: nothing is approximated
        residual = (x - (1 - sigma) * x0) / sigma
        assert_within_5_standard_errors(residual, 0.0, 1.0)


@pytest.mark.parametrize("eta", [0.3, 0.8, 0.95])
@pytest.mark.parametrize("sigma", [0.9, 0.5, 0.1])
def test_a_cps_step_of_no_length_takes_variance_from_a_spread_out_gaussian_and_others_change_nothing(sigma, eta):
    level, ends = torch.tensor([sigma]), torch.tensor([0.0, 1.0]).view(1, 2, 1)
    mean, var = marginal(sigma)
    a, b, c = (1 - sigma) ** 2 * S**2, sigma**2, math.cos(eta * math.pi / 2)
    for sde, loss in (("flow", 0.0), ("dance", 0.0), ("cps", a * b * (1 - c) ** 2 / (a + b))):
        step = transition(sde, ends, gaussian_velocity(ends, level), level, level, FIRST, eta)
        zero, one = step.mean.double().flatten().tolist()
        assert zero + (one - zero) * mean == pytest.approx(mean, abs=1e-6)
        assert (one - zero) ** 2 * var + float(step.std) ** 2 == pytest.approx(var - loss, abs=2e-6)
