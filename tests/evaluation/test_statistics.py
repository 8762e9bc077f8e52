"""Intervals against scipy, hand computations and simulated coverage."""

import math

import numpy as np
import pytest

from evaluation.statistics import Verification, mean_over_seeds, mean_over_tasks, paired_difference, wilson


@pytest.mark.parametrize(("right", "total"), [(0, 10), (10, 10), (3, 7), (140, 200), (1, 1)])
def test_wilson_solves_its_defining_equation(right, total):
    share = right / total
    estimate = wilson(right, total)
    assert estimate.value == pytest.approx(100 * share)
    for edge in (estimate.low / 100, estimate.high / 100):  # |p - share| = z sqrt(p (1 - p) / n) at both ends
        assert (edge - share) ** 2 == pytest.approx(1.959963984540054**2 * edge * (1 - edge) / total, abs=1e-9)


def test_no_samples_is_no_value():
    assert math.isnan(wilson(0, 0).value)
    assert math.isnan(mean_over_tasks({"a": []}).value)


def test_the_mean_is_plain_over_tasks_of_any_size():
    estimate = mean_over_tasks({"a": [True] * 9 + [False], "b": [False, True]})
    assert estimate.value == pytest.approx(70.0)
    assert estimate == mean_over_tasks({"a": [False] + [True] * 9, "b": [True, False]})  # order does not matter


def test_the_mean_of_one_task_is_its_wilson_interval():
    assert mean_over_tasks({"a": [True] * 7 + [False] * 3}) == pytest.approx(wilson(7, 10))


def test_a_perfect_mean_still_has_an_interval():
    estimate = mean_over_tasks({"a": [True] * 50, "b": [True] * 50})
    assert estimate.value == estimate.high == 100
    assert 90 < estimate.low < 99


def test_a_task_without_outcomes_leaves_no_mean():
    assert math.isnan(mean_over_tasks({"a": [True], "b": []}).value)
    assert math.isnan(paired_difference({"a": {"1": True}}, {"a": {"2": True}}).value)


def test_the_mean_interval_covers_the_truth_about_95_times_in_100():
    rng, truth = np.random.default_rng(1), {"a": (0.3, 60), "b": (0.8, 200)}
    hits = 0
    for _ in range(200):
        estimate = mean_over_tasks({name: (rng.random(n) < p).tolist() for name, (p, n) in truth.items()})
        hits += estimate.low <= 55.0 <= estimate.high
    assert 180 <= hits <= 199


def test_the_interval_width_agrees_with_the_normal_formula():
    outcomes = {"a": [True] * 120 + [False] * 80, "b": [True] * 30 + [False] * 170}
    estimate = mean_over_tasks(outcomes)
    error = 100 * math.sqrt(0.6 * 0.4 / 200 + 0.15 * 0.85 / 200) / 2
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * error, rel=0.05)


def test_a_paired_difference_uses_the_shared_samples_only():
    system = {"a": {"1": True, "2": True, "3": False, "only": True}}
    baseline = {"a": {"1": False, "2": True, "3": False, "other": True}}
    assert paired_difference(system, baseline).value == pytest.approx(100 / 3)
    same = paired_difference(baseline, baseline)
    assert same == (0, 0, 0)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    base = rng.random(300) < 0.5
    better = base | (rng.random(300) < 0.1)
    paired = paired_difference(
        {"a": {str(i): bool(b) for i, b in enumerate(better)}}, {"a": {str(i): bool(b) for i, b in enumerate(base)}}
    )
    assert paired.low > 0
    assert paired.high - paired.low < 10


def test_verification_shares():
    seen = Verification(num_verdicts=10, num_accepted=4, num_unparsable=1, num_right=5, num_right_accepted=3)
    assert (seen.accept_rate, seen.precision, seen.recall, seen.specificity) == (40, 75, 60, 80)
    assert math.isnan(Verification(0, 0, 0, 0, 0).precision)


def drawn(rng, shares, num_seeds, num_samples=120, hardness=0.2):
    """Seeds of one method on tasks with these shares of right answers; what is hard is hard for every seed."""
    seeds = [{} for _ in range(num_seeds)]
    for task, share in shares.items():
        hard = rng.normal(0, hardness, num_samples)
        for seed in seeds:
            right = rng.random(num_samples) < np.clip(share + hard, 0, 1)
            seed[task] = {str(i): bool(value) for i, value in enumerate(right)}
    return seeds


def test_the_mean_of_one_seed_is_the_paired_difference():
    system, baseline = drawn(np.random.default_rng(0), {"a": 0.7, "b": 0.4}, 2)
    alone, paired = mean_over_seeds([system], baseline), paired_difference(system, baseline)
    assert alone.value == pytest.approx(paired.value)
    assert alone == pytest.approx(paired)


def test_the_mean_over_seeds_is_theirs_over_shared_samples_and_plain_over_tasks():
    seeds = [
        {"a": {"1": True, "2": True, "3": True}, "b": {"1": False}},
        {"a": {"1": True, "2": False}, "b": {"1": True, "9": False}},
    ]
    assert mean_over_seeds(seeds).value == pytest.approx(100 * (0.75 + 0.5) / 2)
    baseline = {"a": {"2": True, "3": False}, "b": {"1": True}}
    assert mean_over_seeds(seeds, baseline).value == pytest.approx(100 * (-0.5 - 0.5) / 2)
    assert math.isnan(mean_over_seeds(seeds, {"a": {"1": True}}).value)


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(3)
    alike = drawn(rng, {"a": 0.5}, 3, hardness=0)
    apart = [drawn(rng, {"a": share}, 1, hardness=0)[0] for share in (0.2, 0.5, 0.8)]
    widths = [estimate.high - estimate.low for estimate in map(mean_over_seeds, (alike, apart))]
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize(("num_seeds", "spread"), [(2, 0.05), (3, 0.0), (3, 0.03), (3, 0.1)])
def test_the_interval_over_seeds_covers_the_truth_about_95_times_in_100(num_seeds, spread):
    rng, hits = np.random.default_rng(5), 0
    for _ in range(100):
        luck = rng.normal(0, spread, num_seeds)  # what makes a training better than another one
        seeds = [drawn(rng, {"a": 0.5 + more, "b": 0.6 + more}, 1, hardness=0)[0] for more in luck]
        (baseline,) = drawn(rng, {"a": 0.4, "b": 0.5}, 1, hardness=0)
        estimate = mean_over_seeds(seeds, baseline)
        hits += estimate.low <= 10.0 <= estimate.high
    assert hits >= 90
