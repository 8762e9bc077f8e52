"""Intervals and paired differences for right/wrong outcomes, deterministic, in percent.

What is redrawn is the *unit*: a sample, or a question that was put several times, with permuted options or with other
seeds. A table's mean is the plain mean over tasks, as in the paper, so its interval is stratified by task: the tasks'
uncertainties add up, whatever their sizes. A mean over fewer tasks than asked for would be another quantity; where a
task has no outcome there is no mean.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

Z95 = float(stats.norm.ppf(0.975))
Z80 = float(stats.norm.ppf(0.8))
RESAMPLES = 10_000
SEED = 20260524  # of every bootstrap: equal outcomes give equal intervals

Units = Mapping[str, Sequence[float]]  # unit -> its values: one for a sample, several for a question put several times


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


NOTHING = Estimate(math.nan, math.nan, math.nan)


def wilson(right: float, num_samples: int) -> Estimate:
    """A share in percent with its Wilson score interval; (nan, 0, 100) without samples.

    Wilson (1927), doi:10.1080/01621459.1927.10502953; stays inside [0, 100] and is honest at 0 and at 100.
    """
    if num_samples == 0:
        return Estimate(math.nan, 0.0, 100.0)
    share, z2 = right / num_samples, Z95**2
    centre = (share + z2 / (2 * num_samples)) / (1 + z2 / num_samples)
    half = Z95 * math.sqrt(share * (1 - share) / num_samples + z2 / (4 * num_samples**2)) / (1 + z2 / num_samples)
    return Estimate(100 * share, 100 * max(centre - half, 0.0), 100 * min(centre + half, 1.0))


def share(units: Units) -> Estimate:
    """The share of right outcomes, all values alike, with an interval over units.

    Wilson's where every unit has one value. Where units have several, a percentile bootstrap that redraws units
    (cluster bootstrap); where that shrinks to a point, because all units are alike, Wilson's for the units is given.
    """
    values = [value for unit in units.values() for value in unit]
    if all(len(unit) == 1 for unit in units.values()):
        return wilson(sum(values), len(values))
    drawn = _redrawn(units, np.random.default_rng(SEED))
    low, high = np.percentile(drawn, (2.5, 97.5))
    if low == high:
        return wilson(float(np.mean(values)) * len(units), len(units))
    return Estimate(100 * float(np.mean(values)), 100 * float(low), 100 * float(high))


def mean_over_tasks(shares: Sequence[Estimate]) -> Estimate:
    """The plain mean of the tasks' shares; its interval joins theirs.

    By the method of variance estimates recovery (Zou and Donner 2008, doi:10.1002/sim.3095): the distances of the
    bounds from the shares add in quadrature. Unlike a bootstrap it does not shrink to a point at 0 or 100.
    """
    if not shares or any(math.isnan(each.value) for each in shares):
        return NOTHING
    mean = sum(each.value for each in shares) / len(shares)
    below = math.hypot(*(each.value - each.low for each in shares)) / len(shares)
    above = math.hypot(*(each.high - each.value for each in shares)) / len(shares)
    return Estimate(mean, max(mean - below, 0.0), min(mean + above, 100.0))


def mean_difference(differences: Mapping[str, Units]) -> Estimate:
    """The plain mean over tasks of paired differences, task -> unit -> difference of each of its outcomes, -1 to 1.

    The difference is taken sample by sample, so what makes a sample hard for both systems cancels out. The interval is
    a percentile bootstrap that redraws units within each task.
    """
    if not differences or not all(differences.values()):
        return NOTHING
    rng = np.random.default_rng(SEED)
    means = sum(_redrawn(units, rng) for units in differences.values()) / len(differences)
    low, high = np.percentile(means, (2.5, 97.5))
    value = np.mean([np.mean([value for unit in units.values() for value in unit]) for units in differences.values()])
    return Estimate(100 * float(value), 100 * float(low), 100 * float(high))


def mean_over_seeds(seeds: Sequence[Mapping[str, Units]], least: float) -> Estimate:
    """The mean over seeds of one method of what `mean_difference` averages: shares (`least` 0) or differences (-100).

    All seeds hold the same units. The interval joins two uncertainties in quadrature: that of the samples (the
    bootstrap of the seeds' mean, unit by unit) and that of the seeds (Student's t of the spread of their means). So it
    says what other seeds on other samples would give; of a single seed it can say nothing but what the samples do.
    """
    mean = {
        task: {unit: list(np.mean([seed[task][unit] for seed in seeds], axis=0)) for unit in seeds[0][task]}
        for task in seeds[0]
    }
    samples, spread = mean_difference(mean), 0.0
    if len(seeds) > 1:
        centres = [mean_difference_value(seed) for seed in seeds]
        spread = float(stats.t.ppf(0.975, len(seeds) - 1)) * float(np.std(centres, ddof=1)) / math.sqrt(len(seeds))
    below, above = math.hypot(samples.value - samples.low, spread), math.hypot(samples.high - samples.value, spread)
    return Estimate(samples.value, max(samples.value - below, least), min(samples.value + above, 100.0))


def mean_difference_value(differences: Mapping[str, Units]) -> float:
    """The value of `mean_difference` without its interval."""
    tasks = [[value for unit in units.values() for value in unit] for units in differences.values()]
    return 100 * float(np.mean([np.mean(task) for task in tasks])) if all(tasks) else math.nan


def _redrawn(units: Units, rng: np.random.Generator) -> np.ndarray:
    """The mean of all values (RESAMPLES,) when units are redrawn; 0..1 or -1..1.

    Units with the same sum and count of values are interchangeable, so it is their numbers that are drawn.
    """
    kinds = Counter((float(sum(values)), len(values)) for values in units.values())
    ordered = sorted(kinds)
    numbers = np.array([kinds[kind] for kind in ordered])
    drawn = rng.multinomial(numbers.sum(), numbers / numbers.sum(), RESAMPLES)
    return (drawn @ [total for total, _ in ordered]) / (drawn @ [count for _, count in ordered])


class McNemar(NamedTuple):
    """An exact test of whether two systems differ on the same samples."""

    gained: int  # samples that only the system has right
    lost: int  # samples that only the other one has right
    p_value: float  # two-sided binomial probability of so uneven a split of those


def mcnemar(differences: Units) -> McNemar | None:
    """McNemar's exact test (1947, doi:10.1007/BF02295996); None where a unit has several values, which depend."""
    if any(len(values) != 1 for values in differences.values()):
        return None
    values = [values[0] for values in differences.values()]
    gained, lost = sum(value > 0 for value in values), sum(value < 0 for value in values)
    p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return McNemar(gained, lost, p_value)


def pass_at_k(units: Units, k: int) -> float:
    """The probability in percent that one of k tries is right: the unbiased estimate over n >= k tries of each unit.

    1 - C(n - c, k) / C(n, k) with c right ones (Chen et al. 2021, arXiv 2107.03374). NaN where a unit has fewer tries.
    """
    if not units or any(len(values) < k for values in units.values()):
        return math.nan
    chances = []
    for values in units.values():
        n, c = len(values), round(sum(values))
        chances.append(1.0 - math.comb(n - c, k) / math.comb(n, k))
    return 100 * float(np.mean(chances))


class Detectable(NamedTuple):
    """The smallest gains, in points, that so many samples can show at 95 %."""

    least: float  # in the best case: every sample that differs favours the system (McNemar's p below 0.05)
    paired: float  # with this share of samples on which two systems differ
    paired_80: float  # the true gain that is shown in 80 of 100 such comparisons
    unpaired: float  # between two sets of samples


def detectable(num_samples: int, share_right: float, discordant: float) -> Detectable:
    """What `num_samples` can show; `share_right` of the weaker system, `discordant` share of pairs, both 0..1."""
    certain = next(count for count in range(1, 100) if 2 * 0.5**count < 0.05)
    paired = math.sqrt(discordant / num_samples)
    unpaired = Z95 * math.sqrt(2 * share_right * (1 - share_right) / num_samples)
    return Detectable(100 * certain / num_samples, 100 * Z95 * paired, 100 * (Z95 + Z80) * paired, 100 * unpaired)


class Verification(NamedTuple):
    """How verdicts agree with the pixels: an edit is right iff it matches the ground truth."""

    num_verdicts: int
    num_accepted: int
    num_unparsable: int
    num_right: int  # edits that match the ground truth
    num_right_accepted: int

    @property
    def accept_rate(self) -> float:
        """Percent of verdicts that accept."""
        return _percent(self.num_accepted, self.num_verdicts)

    @property
    def precision(self) -> float:
        """Percent of accepted edits that are right."""
        return _percent(self.num_right_accepted, self.num_accepted)

    @property
    def recall(self) -> float:
        """Percent of right edits that are accepted."""
        return _percent(self.num_right_accepted, self.num_right)

    @property
    def specificity(self) -> float:
        """Percent of wrong edits that are not accepted."""
        num_wrong = self.num_verdicts - self.num_right
        return _percent(num_wrong - (self.num_accepted - self.num_right_accepted), num_wrong)


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else math.nan
