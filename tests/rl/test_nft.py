"""The DiffusionNFT loss and its gradient against a computation in NumPy and fp64 from the published formula."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from etchr.rl.algorithms.nft import nft_loss

SHAPES = [(6, 1, 2), (5, 7, 3), (4, 16, 8)]
MOST = 5.0  # advantages are cut to this


def make_case(seed, shape):
    """Clean latents, noise, level, advantages and three velocities near the one between them, in fp64."""
    rng = np.random.default_rng(seed)
    x0, noise = rng.normal(size=(2, *shape))
    near = noise - x0
    case = {"x0": x0, "noise": noise, "sigma": rng.uniform(0.05, 1.0, shape[0])}
    case |= {name: near + 0.4 * rng.normal(size=shape) for name in ("new", "old", "reference")}
    case["advantage"] = rng.normal(size=shape[0]) * 3
    case["advantage"][:2] = 9.0, -9.0  # beyond what counts
    return SimpleNamespace(**case)


def loss_of(case, velocity=None, **changes):
    """`nft_loss` of the case; tensors in fp64."""
    tensors = {name: torch.tensor(value) for name, value in vars(case).items()}
    new = tensors["new"] if velocity is None else velocity
    target = tensors["noise"] - tensors["x0"]
    options: dict[str, Any] = {"beta": 1.0, "max_advantage": MOST, "reference_velocity": tensors["reference"]} | changes
    return nft_loss(new, tensors["old"], target, tensors["sigma"], tensors["advantage"], **options)


def gradient(velocity):
    """The gradient of a tensor as an array."""
    assert velocity.grad is not None
    return velocity.grad.numpy()


def distance(case, b, velocity):
    """x_0 as `velocity` sees it from x_sigma, minus x_0: of edit b."""
    s = case.sigma[b]
    x_sigma = (1 - s) * case.x0[b] + s * case.noise[b]
    return x_sigma - s * velocity - case.x0[b]


def published(case, b, beta, velocity=None, weights=None):
    """The loss of edit b; `weights` (w+, w-) replace those of this velocity, as a constant for differences."""
    new, old = case.new[b] if velocity is None else velocity, case.old[b]
    share = np.clip(case.advantage[b] / MOST, -1, 1) / 2 + 0.5
    plus, minus = distance(case, b, beta * new + (1 - beta) * old), distance(case, b, (1 + beta) * old - beta * new)
    heavy, light = weights or (np.abs(plus).mean(), np.abs(minus).mean())
    return (share * (plus**2).mean() / heavy + (1 - share) * (minus**2).mean() / light) / beta * MOST


@pytest.mark.parametrize("beta", [1.0, 0.1, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_loss_is_the_published_one(shape, beta):
    case = make_case(len(shape) + shape[1], shape)
    loss = loss_of(case, beta=beta)
    expected = [published(case, b, beta) for b in range(shape[0])]
    np.testing.assert_allclose(loss.policy.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(loss.kl.numpy(), ((case.new - case.reference) ** 2).mean((1, 2)), rtol=1e-6)


def test_without_a_reference_there_is_no_kl():
    case = make_case(1, SHAPES[1])
    assert not loss_of(case, reference_velocity=None).kl.any()


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_at_the_old_velocity_the_gradient_is_the_advantage_times_that_of_the_error(shape, beta):
    case = make_case(3, shape)
    velocity = torch.tensor(case.old, requires_grad=True)
    loss_of(case, velocity, beta=beta).policy.sum().backward()
    for b in range(shape[0]):
        off = distance(case, b, case.old[b])
        of_error = -2 * case.sigma[b] * off / off.size / np.abs(off).mean()  # by v, with the weight held
        expected = np.clip(case.advantage[b], -MOST, MOST) * of_error
        np.testing.assert_allclose(gradient(velocity)[b], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_elsewhere_the_gradient_is_that_of_finite_differences(beta):
    case = make_case(4, (3, 2, 3))
    velocity = torch.tensor(case.new, requires_grad=True)
    loss_of(case, velocity, beta=beta).policy.sum().backward()
    step = 1e-5
    for b, *place in np.ndindex(case.new.shape):
        sides = (beta * case.new[b] + (1 - beta) * case.old[b], (1 + beta) * case.old[b] - beta * case.new[b])
        weights = tuple(np.abs(distance(case, b, side)).mean() for side in sides)
        values = []
        for sign in (1, -1):
            moved = case.new[b].copy()
            moved[tuple(place)] += sign * step
            values.append(published(case, b, beta, moved, weights))
        slope = (values[0] - values[1]) / (2 * step)
        assert gradient(velocity)[b][tuple(place)] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_a_step_against_the_gradient_goes_to_a_good_edit_and_away_from_a_bad_one():
    case = make_case(5, (2, 4, 2))
    case.advantage[:] = 1.0, -1.0
    velocity = torch.tensor(case.old, requires_grad=True)
    loss_of(case, velocity).policy.sum().backward()
    moved = (velocity - 1e-3 * torch.tensor(gradient(velocity))).detach().numpy()
    good, bad = (
        np.abs(distance(case, b, moved[b])).mean() - np.abs(distance(case, b, case.old[b])).mean() for b in (0, 1)
    )
    assert good < 0 < bad


def test_a_velocity_without_error_has_a_finite_gradient():
    case = make_case(6, (2, 4, 2))
    case.old = case.noise - case.x0
    velocity = torch.tensor(case.old, requires_grad=True)
    loss = loss_of(case, velocity)
    loss.policy.sum().backward()
    assert loss.policy.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    assert np.isfinite(gradient(velocity)).all()
