"""Intervals and paired differences for right/wrong outcomes, deterministic, in percent.

What counts as one observation is the *unit*: a sample, or a question that was put several times, with permuted options
or with other seeds. Units of one outcome have score intervals: Wilson's, and Tango's for paired differences. Units of
several are redrawn (cluster bootstrap). A table's mean is the plain mean over tasks, as in the paper, so its interval
is stratified by task: the tasks' uncertainties add up, whatever their sizes. A mean over fewer tasks than asked for
would be another quantity; where a task has no outcome there is no mean.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

Z95 = float(stats.norm.ppf(0.975))
Z80 = float(stats.norm.ppf(0.8))
RESAMPLES = 10_000
SEED = 20260524  # of every bootstrap: equal outcomes give equal intervals
FEW = 10  # units unlike the most; of fewer, a bootstrap redraws the same handful, or nothing but what is alike

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


def tango(gained: float, lost: float, num_pairs: int) -> Estimate:
    """A paired difference in percent with Tango's score interval; `NOTHING` without pairs.

    Of `num_pairs` pairs, `gained` are right in the first only and `lost` in the second only. Tango (1998),
    doi:10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B; leaves 0 out where McNemar's test, in its
    asymptotic form, does, and like Wilson's interval is honest where all pairs agree or all differ alike.
    """
    if num_pairs == 0:
        return NOTHING
    low, high = _least_plausible(gained, lost, num_pairs), -_least_plausible(lost, gained, num_pairs)
    return Estimate(100 * (gained - lost) / num_pairs, 100 * low, 100 * high)


def _least_plausible(gained: float, lost: float, num_pairs: int) -> float:
    """The smallest true difference, -1 to 1, from which what was seen is at most 1.96 standard deviations away."""
    seen, edge = (gained - lost) / num_pairs, 1e-9
    if seen <= -1 + 2 * edge:
        return -1.0

    def beyond(true: float) -> float:
        # The share of losses that is most likely if `true` is the difference: it solves a share^2 + b share + c = 0.
        b = (2 * num_pairs - gained + lost) * true - gained - lost
        c = -lost * true * (1 - true)
        share_lost = (math.sqrt(b * b - 8 * num_pairs * c) - b) / (4 * num_pairs)
        return (seen - true) * math.sqrt(num_pairs / (2 * share_lost + true * (1 - true))) - Z95

    return float(optimize.brentq(beyond, -1 + edge, seen - edge))


def share(units: Units) -> Estimate:
    """The share of right outcomes, all values alike, with an interval over units.

    Wilson's where every unit has one value, 0 or 1; else a percentile bootstrap that redraws units (cluster bootstrap)
    or, where all but a few units are alike, Wilson's with each unit as one observation.
    """
    if _is_single(units) or _is_alike(units):
        right, _ = _as_single(units)
        return wilson(right, len(units))
    return _bootstrap(units)


def difference(units: Units) -> Estimate:
    """The mean of paired differences, each -1 to 1, with an interval over units.

    Tango's where every unit has one value, -1, 0 or 1; else a percentile bootstrap that redraws units or, where all but
    a few units are alike, Tango's with each unit as one pair.
    """
    if _is_single(units) or _is_alike(units):
        return tango(*_as_single(units), len(units))
    return _bootstrap(units)


def _is_single(units: Units) -> bool:
    """Whether every unit is one outcome; not so the mean of several, such as those of seeds."""
    return all(len(values) == 1 and values[0] in (-1, 0, 1) for values in units.values())


def _is_alike(units: Units) -> bool:
    """Whether all but a few units are interchangeable, so that redrawing them says too little."""
    kinds = _kinds(units)
    return kinds.total() - max(kinds.values()) < FEW


def _as_single(units: Units) -> tuple[float, float]:
    """Gains and losses if every unit were one outcome: their shares of all values, times the number of units."""
    values = [value for unit in units.values() for value in unit]
    per_value = len(units) / max(len(values), 1)
    gained, lost = (sum(max(sign * value, 0.0) for value in values) for sign in (1, -1))
    return gained * per_value, lost * per_value


def mean_over_tasks(estimates: Sequence[Estimate], least: float = 0.0) -> Estimate:
    """The plain mean of the tasks' shares, or of their differences (`least` -100); its interval joins theirs.

    By the method of variance estimates recovery (Zou and Donner 2008, doi:10.1002/sim.3095): the distances of the
    bounds from the values add in quadrature. Unlike a bootstrap it does not shrink to a point at 0 or 100.
    """
    if not estimates or any(math.isnan(each.value) for each in estimates):
        return NOTHING
    mean = sum(each.value for each in estimates) / len(estimates)
    below = math.hypot(*(each.value - each.low for each in estimates)) / len(estimates)
    above = math.hypot(*(each.high - each.value for each in estimates)) / len(estimates)
    return Estimate(mean, max(mean - below, least), min(mean + above, 100.0))


def mean_difference(differences: Mapping[str, Units]) -> Estimate:
    """The plain mean over tasks of paired differences, task -> unit -> difference of each of its outcomes, -1 to 1.

    The difference is taken sample by sample, so what makes a sample hard for both systems cancels out.
    """
    return mean_over_tasks([difference(units) for units in differences.values()], least=-100.0)


def gap(one: Estimate, other: Estimate) -> Estimate:
    """The difference of two shares of other samples; its interval joins theirs, as that of `mean_over_tasks` does.

    Of two Wilson intervals it is Newcombe's tenth method (1998,
    doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I). Where both are of the same seeds, these
    count twice: it is rather too wide than too narrow.
    """
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, max(value - below, -100.0), min(value + above, 100.0))


def mean_over_seeds(seeds: Sequence[Mapping[str, Units]], least: float) -> Estimate:
    """The mean over seeds of one method: of shares (`least` 0) or differences (-100), in the plain mean over tasks.

    All seeds hold the same units. The interval joins two uncertainties in quadrature: that of the samples (of the
    seeds' mean, unit by unit) and that of the seeds (Student's t of the spread of their means). So it says what other
    seeds on other samples would give; of a single seed it can say nothing but what the samples do.
    """
    of_task = share if least == 0 else difference
    mean = {
        task: {unit: list(np.mean([seed[task][unit] for seed in seeds], axis=0)) for unit in seeds[0][task]}
        for task in seeds[0]
    }
    samples, spread = mean_over_tasks([of_task(units) for units in mean.values()], least), 0.0
    if len(seeds) > 1:
        centres = [100 * float(np.mean([_mean(units) for units in seed.values()])) for seed in seeds]
        spread = float(stats.t.ppf(0.975, len(seeds) - 1)) * float(np.std(centres, ddof=1)) / math.sqrt(len(seeds))
    below, above = math.hypot(samples.value - samples.low, spread), math.hypot(samples.high - samples.value, spread)
    return Estimate(samples.value, max(samples.value - below, least), min(samples.value + above, 100.0))


def _mean(units: Units) -> float:
    """The mean of all values; NaN without any."""
    values = [value for unit in units.values() for value in unit]
    return sum(values) / len(values) if values else math.nan


def _bootstrap(units: Units) -> Estimate:
    """The mean of all values with the percentile interval of a bootstrap that redraws units."""
    low, high = np.percentile(_redrawn(units), (2.5, 97.5))
    return Estimate(100 * _mean(units), 100 * float(low), 100 * float(high))


def _redrawn(units: Units) -> np.ndarray:
    """The mean of all values (RESAMPLES,) when units are redrawn; 0..1 or -1..1."""
    kinds = _kinds(units)
    ordered = sorted(kinds)
    numbers = np.array([kinds[kind] for kind in ordered])
    drawn = np.random.default_rng(SEED).multinomial(numbers.sum(), numbers / numbers.sum(), RESAMPLES)
    return (drawn @ [total for total, _ in ordered]) / (drawn @ [count for _, count in ordered])


def _kinds(units: Units) -> Counter[tuple[float, int]]:
    """How many units have each sum and count of values; units that share both are interchangeable."""
    return Counter((float(sum(values)), len(values)) for values in units.values())


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
