"""Advantages against the same arithmetic in plain Python, and what must not change them."""

import math
import statistics

import numpy as np
import pytest
import torch

from etchr.rl import ADVANTAGES
from etchr.rl.advantage import advantages, varied, win_rates, z_scores

NAN = math.nan
SHAPES = [(1, 2), (3, 8), (5, 5)]


def table(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def rewards(seed, shape, missing=0.0):
    """Two rewards (P, G): shares of four decodings, with many ties; an edit misses both or none."""
    rng = np.random.default_rng(seed)
    guidance, correctness = rng.integers(0, 5, (2, *shape)) / 4
    guidance[rng.random(shape) < missing] = NAN
    correctness[np.isnan(guidance)] = NAN
    return torch.tensor(guidance), torch.tensor(correctness)


def plain_win_rates(row, ties, margin=0.0):
    present = [k for k, value in enumerate(row) if not math.isnan(value)]
    rates = [NAN] * len(row)
    for k in present if len(present) > 1 else []:
        wins = 0.0
        for j in present:
            if j != k:
                wins += ties if abs(row[k] - row[j]) <= margin else float(row[k] > row[j])
        rates[k] = wins / (len(present) - 1)
    return rates


def plain_z(row):
    present = [value for value in row if not math.isnan(value)]
    if len(present) < 2:
        return [NAN] * len(row)
    mean, std = statistics.mean(present), statistics.stdev(present)  # stdev: unbiased
    return [NAN if math.isnan(value) else (value - mean) / std if std else 0.0 for value in row]


def plain_advantages(name, guidance, correctness, alpha, ties):
    guidance, correctness = guidance.tolist(), correctness.tolist()
    pairs = [list(zip(*rows, strict=True)) for rows in zip(guidance, correctness, strict=True)]
    reward = [[alpha * g + (1 - alpha) * c for g, c in row] for row in pairs]
    if name == "zscore":
        return [plain_z(row) for row in reward]
    if name == "win_rate":
        return [plain_z(plain_win_rates(row, ties)) for row in reward]
    scaled = [(plain_z(g), plain_z(c)) for g, c in zip(guidance, correctness, strict=True)]
    parts = [[alpha * g + (1 - alpha) * c for g, c in zip(*rows, strict=True)] for rows in scaled]
    everything = plain_z([value for row in parts for value in row])
    return np.reshape(everything, (len(parts), -1)).tolist()


@pytest.mark.parametrize("ties", [0.5, 0.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_win_rates_count_the_pairs_of_a_group(ties, shape, seed):
    reward, _ = rewards(seed, shape, missing=0.25)
    for margin in (0.0, 0.25, 0.6):  # rewards are quarters
        wanted = [plain_win_rates(row, ties, margin) for row in reward.tolist()]
        np.testing.assert_allclose(win_rates(reward, ties, margin).numpy(), wanted, rtol=0, atol=1e-12)
    assert varied(win_rates(reward, ties, 1.0)).sum() == 0


def test_win_rates_by_hand():
    reward = table([1.0, 0.5, 0.5, 0.0], [1.0, NAN, 0.5, 0.5], [NAN, NAN, NAN, 1.0])
    nothing = [NAN] * 4
    half = table([1.0, 0.5, 0.5, 0.0], [1.0, NAN, 0.25, 0.25], nothing)
    none = table([1.0, 1 / 3, 1 / 3, 0.0], [1.0, NAN, 0.0, 0.0], nothing)
    torch.testing.assert_close(win_rates(reward), half, equal_nan=True)
    torch.testing.assert_close(win_rates(reward, ties=0.0), none, equal_nan=True)


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("ties", [0.5, 0.0])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_advantages_are_those_of_plain_arithmetic(name, ties, missing, shape, seed):
    guidance, correctness = rewards(seed, shape, missing)
    got = advantages(name, guidance, correctness, 0.25, ties)
    wanted = plain_advantages(name, guidance, correctness, 0.25, ties)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-9, atol=1e-9)


def test_the_rarer_outcome_is_amplified_as_published():
    one, half = table([1.0, *[0.0] * 7]), table([1.0] * 4 + [0.0] * 4)
    assert z_scores(one)[0, 0] == pytest.approx(2.47, abs=0.005)
    assert z_scores(half)[0].tolist() == pytest.approx([0.94] * 4 + [-0.94] * 4, abs=0.005)
    for name in ("win_rate", "zscore", "gdpo"):  # one group of one reward that is 0 or 1: all three agree
        assert advantages(name, one, one, 0.5)[0, 0] == pytest.approx(2.47, abs=0.005)


@pytest.mark.parametrize("name", ADVANTAGES)
def test_a_missing_score_leaves_its_group_and_one_edit_alone_has_no_advantage(name):
    guidance = table([1.0, 0.0, NAN, 0.5], [NAN, NAN, 0.5, NAN], [NAN] * 4)
    got = advantages(name, guidance, guidance, 0.5)
    alone = advantages(name, guidance[:1, [0, 1, 3]], guidance[:1, [0, 1, 3]], 0.5)
    torch.testing.assert_close(got[:1, [0, 1, 3]], alone)
    assert got[0, 2].isnan()
    assert got[1:].isnan().all()


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0])
def test_a_group_of_equal_scores_has_advantages_of_exactly_zero(name, value):
    group = table([value] * 7 + [NAN])
    assert advantages(name, group, group, 0.3)[0, :7].tolist() == [0.0] * 7


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("seed", range(5))
def test_a_group_of_equal_scores_has_advantages_of_exactly_zero_among_groups_that_differ(name, seed):
    guidance, correctness = rewards(seed, (4, 8))
    guidance[2], correctness[2] = 0.5, 1.0
    got = advantages(name, guidance, correctness, 0.5)
    assert got[2].tolist() == [0.0] * 8
    assert (got[[0, 1, 3]] != 0).any()


# Two ways to the same R: 0.5 (4/5) + 0.5 (2/5) = 0.5 (5/5) + 0.5 (1/5) = 0.6, but 0.6000000000000001 in fp64.
@pytest.mark.parametrize("name", ["win_rate", "zscore"])
def test_rewards_that_differ_in_the_last_bit_only_are_a_tie(name):
    guidance, correctness = table([0.8, 1.0, 0.8, 1.0]), table([0.4, 0.2, 0.4, 0.2])
    assert advantages(name, guidance, correctness, 0.5).tolist() == [[0.0] * 4]


@pytest.mark.parametrize("size", [2, 3, 6, 8])
def test_gdpo_makes_no_advantage_of_rounding_when_two_rewards_cancel(size):
    guidance = table([1.0] + [0.0] * (size - 1))
    assert advantages("gdpo", guidance, 1 - guidance, 0.5).tolist() == [[0.0] * size]


def test_which_groups_vary():
    values = table([1.0, 1.0, NAN], [1.0, 0.5, NAN], [NAN, NAN, 1.0], [NAN, NAN, NAN], [0.0, 0.0, 1.0])
    assert varied(values).tolist() == [False, True, False, False, True]


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_a_group_does_not_matter(name, seed):
    guidance, correctness = rewards(seed, (4, 8), missing=0.2)
    order = torch.stack([torch.randperm(8, generator=torch.Generator().manual_seed(10 * seed + p)) for p in range(4)])
    got = advantages(name, guidance.gather(1, order), correctness.gather(1, order), 0.25)
    wanted = advantages(name, guidance, correctness, 0.25).gather(1, order)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("transform", [torch.exp, torch.sqrt, lambda r: r**3 - 7, lambda r: 1e-3 * r + 1e3])
def test_win_rates_know_the_order_of_rewards_only(transform):
    reward, other = rewards(1, (5, 8), missing=0.2)
    got = advantages("win_rate", transform(reward), other.nan_to_num(0.0), 1.0)
    assert torch.equal(got.nan_to_num(9.0), advantages("win_rate", reward, other.nan_to_num(0.0), 1.0).nan_to_num(9.0))


@pytest.mark.parametrize(("scale", "offset"), [(3.0, -1.0), (0.01, 5.0), (100.0, 0.0)])
def test_z_scores_do_not_know_scale_and_offset(scale, offset):
    reward, _ = rewards(2, (5, 8), missing=0.2)
    torch.testing.assert_close(z_scores(scale * reward + offset), z_scores(reward), rtol=0, atol=1e-9, equal_nan=True)
    torch.testing.assert_close(z_scores(-reward), -z_scores(reward), rtol=0, atol=1e-12, equal_nan=True)
    assert not torch.allclose(z_scores(reward**3).nan_to_num(), z_scores(reward).nan_to_num(), atol=0.01)


@pytest.mark.parametrize("name", ADVANTAGES)
def test_the_advantages_of_a_group_sum_to_zero(name):
    guidance, correctness = rewards(3, (6, 8), missing=0.2)
    got = advantages(name, guidance, correctness, 0.25)
    torch.testing.assert_close(got.nansum(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-9)
    assert (got.nan_to_num().abs().amax(1) > 0.5).all()
    if name == "gdpo":  # unit variance over the batch, not in each group
        assert got[~got.isnan()].std() == pytest.approx(1)
    else:
        stds = [row[~row.isnan()].std().item() for row in got]
        assert stds == pytest.approx([1.0] * 6)


def test_gdpo_lets_a_small_difference_in_one_reward_count_as_much_as_a_large_one():
    guidance, correctness = table([0.51, 0.5, 0.5, 0.51]), table([1.0, 0.0, 1.0, 0.0])
    got = advantages("gdpo", guidance, correctness, 0.5)[0]
    assert got[0] == pytest.approx(-got[1])
    assert got[[2, 3]].tolist() == pytest.approx([0.0, 0.0], abs=1e-9)
    assert advantages("zscore", guidance, correctness, 0.5)[0, 2] > 0.8  # R knows which of the two is large


@pytest.mark.parametrize("name", ADVANTAGES)
def test_what_rounding_leaves_is_no_difference(name):
    """Rewards count to six decimals: 0.1 + 0.2 is 0.3, and a billionth is not blown up to a whole deviation."""
    flat = table([0.5, 0.5, 0.5, 0.5])
    for values in ([0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2], [0.5, 0.5 + 1e-9, 0.5 - 1e-9, 0.5]):
        for guidance, correctness in ((table(values), flat), (flat, table(values))):
            got = advantages(name, guidance, correctness, 0.5)
            assert got.tolist() == [[0.0] * 4]
    apart = table([0.3, 0.1 + 0.2, 0.4, 0.4])
    got = advantages(name, apart, flat, 0.5)[0].tolist()
    assert got == pytest.approx([-got[2], -got[2], got[2], got[2]])
    assert got[2] > 0.5


def test_an_unknown_advantage_is_named():
    with pytest.raises(ValueError, match=r"advantage='grpo' must be one of win_rate, gdpo, zscore"):
        advantages("grpo", table([1.0, 0.0]), table([1.0, 0.0]), 0.5)
