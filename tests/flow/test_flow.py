"""Noise levels, the straight path and the Euler step against independent computations."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from etchr.flow.matching import interpolate, target_velocity
from etchr.flow.schedule import inference_sigmas, stratified_sigmas
from etchr.flow.steps import euler_step


@pytest.mark.parametrize(("shift", "steps"), [(3.0, 8), (1.0, 5), (2.2, 40)])
def test_a_fixed_shift_gives_the_grid_of_its_formula(shift, steps):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=False)
    s = np.linspace(1, 1 / steps, steps)
    expected = np.append(shift * s / (1 + (shift - 1) * s), 0)
    np.testing.assert_allclose(inference_sigmas(scheduler, 64, steps).numpy(), expected, atol=1e-6)


def test_the_dynamic_shift_follows_klein_at_one_megapixel():
    # mu = 2.08 and shift 8.0 at 4,096 tokens and 40 steps; smallest level 0.17 (measured in the public code)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    sigmas = inference_sigmas(scheduler, 4096, 40)
    assert sigmas[0] == 1
    assert sigmas[-1] == 0
    assert sigmas[-2] == pytest.approx(0.17, abs=0.005)
    assert (sigmas[:-1] > 0.9).float().mean() == pytest.approx(0.475, abs=0.03)
    assert (sigmas.diff() < 0).all()


def test_stratified_draws_put_one_level_into_each_slice():
    for seed in range(5):
        sigmas = stratified_sigmas(16, torch.Generator().manual_seed(seed))
        assert sorted((sigmas * 16).long().tolist()) == list(range(16))


def test_the_path_runs_straight_from_data_to_noise():
    x0, noise = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    assert torch.equal(interpolate(x0, noise, torch.zeros(3)), x0)
    assert torch.allclose(interpolate(x0, noise, torch.ones(3)), noise)
    h, sigma = 1e-3, torch.tensor([0.2, 0.5, 0.7])
    slope = (interpolate(x0, noise, sigma + h).double() - interpolate(x0, noise, sigma - h).double()) / (2 * h)
    assert torch.allclose(slope, target_velocity(x0, noise).double(), atol=2e-3)


def test_euler_steps_with_the_exact_velocity_end_at_the_data():
    x0, noise = torch.randn(2, 6, 4), torch.randn(2, 6, 4)
    x = noise
    for sigma, after in ((1.0, 0.7), (0.7, 0.2), (0.2, 0.0)):
        x = euler_step(x, target_velocity(x0, noise), sigma, after)
    assert torch.allclose(x, x0, atol=1e-6)
    assert euler_step(x.bfloat16(), noise.bfloat16(), 0.5, 0.2).dtype is torch.bfloat16
