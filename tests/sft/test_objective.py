"""The loss against an independent computation in numpy, straight from the formulas."""

import itertools
import math

import numpy as np
import pytest
import torch

from etchr.editor.tokens import Grid
from etchr.flow.schedule import noise_levels, released_grid
from etchr.sft.objective import Pairs, draw, pair_noise, sft_loss
from etchr.sft.settings import FlowConfig

GRID = Grid(2, 3)


class Echo(torch.nn.Module):
    """Has the transformer's interface; what it predicts depends on everything it is given."""

    def forward(self, hidden_states, timestep, encoder_hidden_states, txt_ids, img_ids, guidance, return_dict):
        assert not return_dict
        assert guidance is None
        assert len(img_ids) == hidden_states.shape[1]
        text = encoder_hidden_states.float().mean((1, 2))
        out = (
            hidden_states.float() * (0.3 + timestep.float() + text)[:, None, None] + img_ids[:, 0][None, :, None] * 0.01
        )
        return (out.to(hidden_states.dtype),)


def make_pairs(batch, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randn(batch, 6, 8, generator=generator).to(dtype) for _ in range(2)]
    return Pairs(*tokens, torch.randn(batch, 4, 5, generator=generator).to(dtype), GRID, GRID)


def released_levels_by_hand(index, bf16_time):
    """(sigma, what the model is told, weight) of grid entries, in float64 but for the rounding of t."""
    line = np.linspace(1.0, 0.001, 1000)
    sigmas = math.exp(0.8) / (math.exp(0.8) + 1 / line - 1)
    t = 1000 * sigmas
    bell = np.exp(-2 * ((t - 500) / 1000) ** 2)
    bell -= bell.min()
    weights = bell * (1000 / bell.sum())
    if not bf16_time:
        return sigmas[index], sigmas[index], weights[index]
    told = torch.tensor(t[index], dtype=torch.float32).bfloat16().double().numpy()
    nearest = np.array([np.abs(t.astype(np.float32).astype(np.float64) - one).argmin() for one in told])
    return sigmas[nearest], told / 1000, weights[nearest]


def loss_by_hand(pairs, noise, sigma, told, weight):
    x0, condition, text = (part.double().numpy() for part in (pairs.target, pairs.condition, pairs.text))
    e = noise.double().numpy()
    losses = []
    for row in range(len(x0)):
        mixed = (1 - sigma[row]) * x0[row] + sigma[row] * e[row]
        factor = 0.3 + told[row] + text[row].mean()
        predicted = mixed * factor  # the target's tokens have time 0
        losses.append(weight[row] * ((predicted - (e[row] - x0[row])) ** 2).mean())
    assert condition.shape == x0.shape
    return np.array(losses)


@pytest.mark.parametrize("bf16_time", [False, True])
def test_the_released_loss_equals_the_formulas(bf16_time):
    uniform = torch.tensor([0.0, 0.0005, 0.25, 0.5, 0.7513, 0.9, 0.9999])
    pairs, noise = make_pairs(len(uniform)), pair_noise(torch.Size((7, 6, 8)), list(range(7)), 1, 2)
    levels = noise_levels(uniform, "released", bf16_time=bf16_time)
    by_hand = loss_by_hand(pairs, noise, *released_levels_by_hand((uniform.numpy() * 1000).astype(int), bf16_time))
    np.testing.assert_allclose(sft_loss(Echo(), pairs, noise, levels).numpy(), by_hand, rtol=1e-6, atol=1e-6)


def test_our_loss_equals_the_formulas():
    uniform = torch.tensor([0.02, 0.3, 0.5, 0.77, 0.99])
    mu = torch.tensor([0.0, 0.8, 1.2, 2.08, 2.08])
    pairs, noise = make_pairs(5), pair_noise(torch.Size((5, 6, 8)), list(range(5)), 1, 2)
    u, shift = uniform.double().numpy(), np.exp(mu.double().numpy())
    sigma = shift * u / (1 + (shift - 1) * u)  # the same shift, written another way
    by_hand = loss_by_hand(pairs, noise, sigma, sigma, np.ones(5))
    ours = sft_loss(Echo(), pairs, noise, noise_levels(uniform, "inference", mu))
    np.testing.assert_allclose(ours.numpy(), by_hand, rtol=1e-6, atol=1e-6)


def test_the_released_rounding_of_noise_and_target_is_to_bfloat16():
    uniform = torch.tensor([0.2, 0.6])
    pairs, noise = make_pairs(2), pair_noise(torch.Size((2, 6, 8)), [0, 1], 1, 2)
    levels = noise_levels(uniform, "released", bf16_time=True)
    rounded = sft_loss(Echo(), pairs, noise, levels, bf16=True)
    x0, e = pairs.target.bfloat16(), noise.bfloat16()
    s = levels.sigma[:, None, None]
    mixed = ((1 - s) * x0.float()).bfloat16() + (s * e.float()).bfloat16()
    factor = 0.3 + levels.time + pairs.text.mean((1, 2))
    error = mixed.float() * factor[:, None, None] - (e - x0).float()
    expected = levels.weight * error.square().mean((1, 2))
    torch.testing.assert_close(rounded, expected, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(rounded, sft_loss(Echo(), pairs, noise, levels), rtol=1e-6)


def test_only_target_tokens_are_trained_on():
    pairs, noise = make_pairs(2), pair_noise(torch.Size((2, 6, 8)), [0, 1], 1, 2)
    levels = noise_levels(torch.tensor([0.3, 0.6]), "uniform")
    before = sft_loss(Echo(), pairs, noise, levels)
    pairs.condition = pairs.condition + 5
    assert torch.equal(before, sft_loss(Echo(), pairs, noise, levels))


# Facts about the released grid, measured on the released code itself.
def test_the_released_grid_has_the_published_weights():
    sigmas, weights = released_grid()
    assert float(weights.mean()) == pytest.approx(1, abs=1e-6)
    assert float(weights.max()) == pytest.approx(1.69, abs=0.005)
    assert float(sigmas[weights.argmax()]) == pytest.approx(0.5, abs=0.001)
    assert float(weights[0]) == 0
    assert float(sigmas[0]) == 1
    assert float(weights[-1]) == pytest.approx(0.012, abs=0.0005)
    assert float(sigmas[-1]) == pytest.approx(0.0022, abs=0.00005)
    edges = [0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 1.01]
    levels = noise_levels((torch.arange(1000) + 0.5) / 1000, "released", bf16_time=True)
    inside = [(levels.sigma >= low) & (levels.sigma < high) for low, high in itertools.pairwise(edges)]
    draws = [100 * float(part.float().mean()) for part in inside]
    shares = [100 * float(levels.weight[part].sum() / levels.weight.sum()) for part in inside]
    assert draws == pytest.approx([4.7, 8.3, 18, 26.4, 22.4, 13.7, 6.5], abs=0.06)
    assert shares == pytest.approx([1.3, 7.3, 27.6, 39.6, 19.1, 4.6, 0.5], abs=0.06)


def test_bfloat16_time_leaves_384_of_1000_levels():
    uniform = (torch.arange(1000) + 0.5) / 1000
    levels = noise_levels(uniform, "released", bf16_time=True)
    assert len(levels.sigma.unique()) == 384
    assert int((levels.sigma.unique() > 0.5).sum()) == 128
    assert float((levels.sigma - levels.time).abs().max()) <= 2.2e-3


def test_draws_depend_on_seed_and_step_alone_and_cover_every_stratum():
    flow = FlowConfig()
    mu = torch.full((8,), math.log(3))
    first, again, other = draw(flow, 0.25, mu, 5, 9), draw(flow, 0.25, mu, 5, 9), draw(flow, 0.25, mu, 5, 10)
    assert torch.equal(first.levels.sigma, again.levels.sigma)
    assert torch.equal(first.dropped, again.dropped)
    assert not torch.equal(first.levels.sigma, other.levels.sigma)
    uniform = first.levels.sigma / (3 - 2 * first.levels.sigma)  # the shift undone
    assert sorted((uniform * 8).long().tolist()) == list(range(8))


def test_prompt_dropout_has_the_asked_share():
    mu = torch.zeros(100)
    dropped = torch.cat([draw(FlowConfig(), 0.1, mu, 0, step).dropped for step in range(50)])
    assert float(dropped.float().mean()) == pytest.approx(0.1, abs=0.02)
    assert not draw(FlowConfig(), 0.0, mu, 0, 0).dropped.any()


def test_noise_belongs_to_the_position_not_to_the_process():
    whole = pair_noise(torch.Size((4, 6, 8)), [0, 1, 2, 3], 7, 3)
    part = pair_noise(torch.Size((2, 6, 8)), [3, 1], 7, 3)
    assert torch.equal(whole[[3, 1]], part)
    assert not torch.equal(whole, pair_noise(torch.Size((4, 6, 8)), [0, 1, 2, 3], 7, 4))
