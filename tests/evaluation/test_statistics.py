"""Intervals against their defining equations, hand computations and simulated coverage."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize

from evaluation.statistics import (
    Verification,
    detectable,
    gap,
    mcnemar,
    mean_difference,
    mean_over_seeds,
    mean_over_tasks,
    pass_at_k,
    share,
    tango,
    wilson,
)


def single(values):
    """Units of one value each."""
    return {str(i): [float(value)] for i, value in enumerate(values)}


def shares(outcomes):
    return [share(single(values)) for values in outcomes.values()]


# --------------------------------------------------------------------------------------------------------- a share


def test_wilson_solves_its_defining_equation_and_nothing_has_no_value():
    for right, total in [(0, 10), (10, 10), (3, 7), (140, 200), (1, 1)]:
        found = right / total
        estimate = wilson(right, total)
        assert estimate.value == pytest.approx(100 * found), (right, total)
        for edge in (estimate.low / 100, estimate.high / 100):  # |p - share| = z sqrt(p (1 - p) / n) at both ends
            deviations = 1.959963984540054**2 * edge * (1 - edge) / total
            assert (edge - found) ** 2 == pytest.approx(deviations, abs=1e-9), (right, total)

    assert math.isnan(wilson(0, 0).value)
    assert math.isnan(share({}).value)
    assert math.isnan(mean_over_tasks([share({})]).value)

    assert math.isnan(mean_over_tasks(shares({"a": [True], "b": []})).value)
    assert math.isnan(mean_difference({"a": {"1": [1.0]}, "b": {}}).value)


def test_units_that_are_all_alike_leave_wilsons_interval():
    assert share(single([1, 1, 0])) == wilson(2, 3)

    # Each is right half of the time: to redraw them says nothing, and that is no certainty.
    for count in [1, 10]:
        estimate = share({str(i): [1.0, 0.0, 1.0, 0.0] for i in range(count)})
        assert estimate == wilson(count / 2, count), count
        assert estimate.low < 50 < estimate.high, count

    for value in [0.0, 1.0]:
        estimate = share({str(i): [value] * 4 for i in range(50)})
        assert estimate == wilson(50 * value, 50), value
        assert estimate.high - estimate.low > 5, value


def test_an_interval_is_as_wide_as_what_is_independent_makes_it():
    # All four answers to a question agree: the interval is as wide as with one answer each, not half as wide.
    rng = np.random.default_rng(0)
    right = (rng.random(200) < 0.7).astype(float)
    once, four = share(single(right)), share({str(i): [value] * 4 for i, value in enumerate(right)})
    assert four.value == pytest.approx(once.value)
    assert four.high - four.low == pytest.approx(once.high - once.low, rel=0.1)
    independent = share({str(i): (rng.random(4) < 0.7).astype(float) for i in range(200)})
    assert independent.high - independent.low < 0.7 * (once.high - once.low)

    # Equal tasks: with common draws the mean of nine would be as uncertain as one, not a third of it.
    one = single([1] * 30 + [0] * 70)
    alone, nine = mean_difference({"a": one}), mean_difference({str(i): one for i in range(9)})
    assert nine.high - nine.low == pytest.approx((alone.high - alone.low) / 3, rel=0.1)

    rng = np.random.default_rng(0)
    base = rng.random(300) < 0.5
    better = base | (rng.random(300) < 0.1)
    paired = mean_difference({"a": single(better.astype(float) - base)})
    assert paired.low > 0
    assert paired.high - paired.low < 10

    rng = np.random.default_rng(3)
    alike = drawn(rng, {"a": 0.5}, 3, hardness=0)
    apart = [drawn(rng, {"a": right}, 1, hardness=0)[0] for right in (0.2, 0.5, 0.8)]
    widths = [estimate.high - estimate.low for estimate in (mean_over_seeds(seeds, 0.0) for seeds in (alike, apart))]
    assert widths[1] > 2 * widths[0]


def test_intervals_of_clusters_and_of_means_cover_the_truth_about_95_times_in_100():
    rng, hits = np.random.default_rng(4), 0
    for _ in range(100):
        ease = rng.beta(2, 1, 100)  # of each question: its mean is 2/3
        estimate = share({str(i): (rng.random(4) < p).astype(float) for i, p in enumerate(ease)})
        hits += estimate.low <= 200 / 3 <= estimate.high
    assert 90 <= hits <= 99

    rng, truth = np.random.default_rng(1), {"a": (0.3, 60), "b": (0.8, 200)}
    hits = 0
    for _ in range(100):
        estimate = mean_over_tasks(shares({name: rng.random(n) < p for name, (p, n) in truth.items()}))
        hits += estimate.low <= 55.0 <= estimate.high
    assert 90 <= hits <= 99


# ---------------------------------------------------------------------------------------------------------- a mean


def test_means_are_plain_over_tasks_of_any_size_with_wilsons_interval_and_of_one_seed_the_paired_difference():
    estimate = mean_over_tasks(shares({"a": [True] * 9 + [False], "b": [False, True]}))
    assert estimate.value == pytest.approx(70.0)
    assert estimate == mean_over_tasks(shares({"a": [False] + [True] * 9, "b": [True, False]}))  # order does not matter

    estimate = mean_difference({"a": single([1, 0, 0, 0]), "b": single([0, -1])})
    assert estimate.value == pytest.approx(100 * (0.25 - 0.5) / 2)
    assert mean_difference({"a": single([0, 0])}).value == 0

    seeds = [{"a": single([1, 1, 1]), "b": single([0])}, {"a": single([1, 0, 0]), "b": single([1])}]
    assert mean_over_seeds(seeds, 0.0).value == pytest.approx(100 * (2 / 3 + 0.5) / 2)

    assert mean_over_tasks(shares({"a": [True] * 7 + [False] * 3})) == pytest.approx(wilson(7, 10))

    estimate = mean_over_tasks(shares({"a": [True] * 50, "b": [True] * 50}))
    assert estimate.value == estimate.high == 100
    assert 90 < estimate.low < 99

    estimate = mean_over_tasks(shares({"a": [True] * 120 + [False] * 80, "b": [True] * 30 + [False] * 170}))
    error = 100 * math.sqrt(0.6 * 0.4 / 200 + 0.15 * 0.85 / 200) / 2
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * error, rel=0.05)

    system, baseline = drawn(np.random.default_rng(0), {"a": 0.7, "b": 0.4}, 2)
    alone, paired = mean_over_seeds([minus(system, baseline)], -100.0), mean_difference(minus(system, baseline))
    assert alone == pytest.approx(paired)


# ---------------------------------------------------------------------------------------------------- differences


def variance_with(true, gained, lost, total):
    """The variance of a share gained less a share lost under the most likely table in which they differ by `true`."""

    def unlikely(share_lost):
        shares = (share_lost + true, gained), (share_lost, lost), (1 - 2 * share_lost - true, total - gained - lost)
        return -sum(count * math.log(max(share, 1e-300)) for share, count in shares if count)

    bounds, exact = (max(0.0, -true), (1 - true) / 2), {"xatol": 1e-12}
    best = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options=exact).x
    return (2 * best + true - true**2) / total


def test_tangos_bounds_solve_their_defining_equation_and_leave_zero_out_where_a_test_is_significant():
    """At both ends the difference is z standard deviations away, under the most likely table with that difference."""
    for table in [(0, 0, 10), (5, 0, 5), (0, 5, 5), (12, 4, 40), (1, 0, 200), (90, 60, 1200), (0.5, 3, 9)]:
        gained, lost, total = table
        seen, estimate = (gained - lost) / total, tango(*table)
        assert estimate.value == pytest.approx(100 * seen), table
        for true in (estimate.low / 100, estimate.high / 100):
            if abs(true) != 1:
                variance = 1.959963984540054**2 * variance_with(true, *table)
                assert (seen - true) ** 2 == pytest.approx(variance, rel=1e-3), table

    for gained, lost in itertools.product(range(0, 30, 3), range(0, 30, 3)):
        estimate = tango(gained, lost, 200)
        shown = (gained - lost) ** 2 > 1.96**2 * (gained + lost)  # McNemar's chi-square
        assert (not estimate.low <= 0 <= estimate.high) == shown, (gained, lost)


def test_differences_that_are_all_alike_leave_an_interval():
    """Of 10 pairs that agree, or of 5 that differ alike, nobody knows that the next one will do so too."""
    nothing, all_gained = mean_difference({"a": single([0] * 10)}), mean_difference({"a": single([1] * 5)})
    least = 100 * 1.96**2 / (10 + 1.96**2)  # as of Wilson's interval for 0 of 10
    assert nothing == pytest.approx((0, -least, least), abs=0.01)
    assert all_gained.value == all_gained.high == 100
    assert all_gained.low < 20
    joined = mean_difference({"a": single([0] * 10), "b": single([1] * 5)})
    assert (joined.value, joined.low < 40, joined.high > 60) == (50, True, True)
    clusters = mean_difference({"a": {str(i): [0.0, 0.0, 0.0, 0.0] for i in range(10)}})
    assert clusters == nothing  # four times the same says no more
    assert mean_over_seeds([{"a": single([1] * 30)}] * 2, least=0.0).low < 95


def test_the_interval_of_differences_covers_the_truth_about_95_times_in_100():
    """Tasks of (share gained, share lost, pairs); pairs that come four times each agree among themselves at times."""
    for tasks, clusters in [
        ([(0.2, 0.05, 200)], 0),
        ([(0.02, 0.0, 50)], 0),
        ([(0.0, 0.0, 20), (0.6, 0.1, 60), (0.05, 0.02, 200)], 0),
        ([(0.2, 0.05, 200), (0.1, 0.1, 100)], 4),
        ([(0.02, 0.0, 100)], 4),
    ]:
        rng, hits = np.random.default_rng(6), 0
        truth = 100 * np.mean([gained - lost for gained, lost, _ in tasks])
        times = 60 if clusters else 200
        for _ in range(times):
            drawn = {}
            for name, (gained, lost, count) in enumerate(tasks):
                shares = [gained, 1 - gained - lost, lost]
                units = rng.choice([1.0, 0.0, -1.0], (count, max(clusters, 1)), p=shares)
                if clusters:  # half of the units say one thing four times
                    units = np.where(rng.random((count, 1)) < 0.5, units[:, :1], units)
                drawn[str(name)] = dict(enumerate(units.tolist()))
            estimate = mean_difference(drawn)
            hits += estimate.low <= truth <= estimate.high
        assert hits >= 0.92 * times, (tasks, clusters)


def test_mcnemar_sums_the_binomial_tail_of_independent_pairs():
    for gained, lost in [(0, 0), (5, 0), (6, 0), (12, 4), (3, 9), (40, 38)]:
        values = [1.0] * gained + [-1.0] * lost + [0.0] * 20
        n, k = gained + lost, max(gained, lost)
        tail = sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n
        test = mcnemar(single(values))
        assert (test.gained, test.lost) == (gained, lost), (gained, lost)
        assert test.p_value == pytest.approx(min(1.0, 2 * tail)), (gained, lost)

    assert mcnemar({"q": [1.0, 0.0]}) is None


# ----------------------------------------------------------------------------------------------------------- seeds


def drawn(rng, shares, num_seeds, num_samples=120, hardness=0.2):
    """Seeds of one method on tasks with these shares of right answers; what is hard is hard for every seed."""
    seeds = [{} for _ in range(num_seeds)]
    for task, right_share in shares.items():
        hard = rng.normal(0, hardness, num_samples)
        for seed in seeds:
            seed[task] = single(rng.random(num_samples) < np.clip(right_share + hard, 0, 1))
    return seeds


def minus(seed, baseline):
    return {task: {unit: [seed[task][unit][0] - baseline[task][unit][0]] for unit in seed[task]} for task in seed}


@pytest.mark.parametrize(
    ("num_seeds", "spread"),
    [(2, 0.05), (3, 0.03), *(pytest.param(3, spread, marks=pytest.mark.slow) for spread in (0.0, 0.1))],
)
def test_the_interval_over_seeds_covers_the_truth_about_95_times_in_100(num_seeds, spread):
    rng, hits = np.random.default_rng(5), 0
    for _ in range(60):
        luck = rng.normal(0, spread, num_seeds)  # what makes a training better than another one
        seeds = [drawn(rng, {"a": 0.5 + more, "b": 0.6 + more}, 1, hardness=0)[0] for more in luck]
        (baseline,) = drawn(rng, {"a": 0.4, "b": 0.5}, 1, hardness=0)
        estimate = mean_over_seeds([minus(seed, baseline) for seed in seeds], -100.0)
        hits += estimate.low <= 10.0 <= estimate.high
    assert hits >= 54


# --------------------------------------------------------------------------------------------- pass@k, power, rest


def test_pass_at_k_is_the_share_of_draws_with_a_right_one():
    tries = {"a": [1, 0, 0, 1], "b": [0, 0, 0, 0], "c": [1, 1, 1, 0]}
    for k in (1, 2, 3, 4):
        by_hand = [np.mean([any(draw) for draw in itertools.combinations(values, k)]) for values in tries.values()]
        assert pass_at_k(tries, k) == pytest.approx(100 * np.mean(by_hand))
    assert pass_at_k(tries, 1) == pytest.approx(100 * 5 / 12)  # the mean over all tries
    assert math.isnan(pass_at_k(tries, 5))
    assert math.isnan(pass_at_k({}, 1))


def test_what_so_many_samples_can_show_is_found_80_times_in_100():
    found = detectable(191, 0.848, discordant=0.1)
    assert found.least == pytest.approx(100 * 6 / 191)  # 2 * 2^-5 is above 0.05, 2 * 2^-6 below
    assert found.unpaired == pytest.approx(1.96 * 100 * math.sqrt(2 * 0.848 * 0.152 / 191), rel=1e-3)
    assert found.paired == pytest.approx(1.96 * 100 * math.sqrt(0.1 / 191), rel=1e-3)
    assert found.least < found.paired < found.paired_80

    rng, n, discordant = np.random.default_rng(2), 400, 0.2
    gain = detectable(n, 0.5, discordant).paired_80 / 100
    hits = 0
    for _ in range(200):
        kinds = rng.choice([1.0, -1.0, 0.0], n, p=[(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant])
        hits += mean_difference({"a": single(kinds)}).low > 0
    assert 140 <= hits <= 180


def test_verification_shares():
    seen = Verification(num_verdicts=10, num_accepted=4, num_unparsable=1, num_right=5, num_right_accepted=3)
    assert (seen.accept_rate, seen.precision, seen.recall, seen.specificity) == (40, 75, 60, 80)
    assert math.isnan(Verification(0, 0, 0, 0, 0).precision)


def test_a_gap_of_independent_shares_is_newcombes():
    """His first example: 56 of 70 against 48 of 80, by his tenth method."""
    found = gap(wilson(56, 70), wilson(48, 80))
    assert [round(value / 100, 4) for value in found] == [0.2, 0.0524, 0.3339]
    assert gap(wilson(70, 70), wilson(0, 80)).high == 100
