"""Intervals and paired differences for right/wrong outcomes: numpy alone, deterministic, in percent.

A table's mean is the plain mean over tasks, as in the paper, so its interval is stratified by task: the tasks'
uncertainties add up, whatever their sizes. A mean over fewer tasks than asked for would be another quantity; where a
task has no outcome there is no mean.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Z95 = 1.959963984540054
T95 = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
}  # Student's, by degrees
RESAMPLES = 10_000
SEED = 20260524  # of every bootstrap: equal outcomes give equal intervals


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(num_right: int, num_samples: int) -> Estimate:
    """A share in percent with its Wilson score interval; (nan, 0, 100) without samples.

    Wilson (1927), doi:10.1080/01621459.1927.10502953; stays inside [0, 100] and is honest at 0 and at 100.
    """
    if num_samples == 0:
        return Estimate(float("nan"), 0.0, 100.0)
    share, z2 = num_right / num_samples, Z95**2
    centre = (share + z2 / (2 * num_samples)) / (1 + z2 / num_samples)
    half = Z95 * np.sqrt(share * (1 - share) / num_samples + z2 / (4 * num_samples**2)) / (1 + z2 / num_samples)
    return Estimate(100 * share, 100 * max(centre - half, 0.0), 100 * min(centre + half, 1.0))


def mean_over_tasks(outcomes: Mapping[str, Sequence[bool]]) -> Estimate:
    """The plain mean of the tasks' shares; its interval joins the tasks' Wilson intervals.

    By the method of variance estimates recovery (Zou and Donner 2008, doi:10.1002/sim.3095): the distances of the
    bounds from the shares add in quadrature. Unlike a bootstrap it does not shrink to a point at 0 or 100.
    """
    shares = [wilson(sum(values), len(values)) for values in outcomes.values()]
    if not shares or not all(len(values) for values in outcomes.values()):
        return Estimate(*[float("nan")] * 3)
    mean = sum(share.value for share in shares) / len(shares)
    below = math.hypot(*(share.value - share.low for share in shares)) / len(shares)
    above = math.hypot(*(share.high - share.value for share in shares)) / len(shares)
    return Estimate(mean, max(mean - below, 0.0), min(mean + above, 100.0))


def paired_difference(system: Mapping[str, Mapping[str, bool]], baseline: Mapping[str, Mapping[str, bool]]) -> Estimate:
    """How much better `system` is than `baseline`, over the samples that both have scored: task -> id -> right.

    The difference is taken sample by sample, so what makes a sample hard for both cancels out. The interval is a
    percentile bootstrap that redraws samples within each task.
    """
    differences = {}
    for task in system:
        shared = sorted(system[task].keys() & baseline.get(task, {}).keys())
        differences[task] = [float(system[task][key]) - float(baseline[task][key]) for key in shared]
    return _bootstrap_mean(differences)


def mean_over_seeds(
    systems: Sequence[Mapping[str, Mapping[str, bool]]], baseline: Mapping[str, Mapping[str, bool]] | None = None
) -> Estimate:
    """The mean over seeds of one method, each task -> id -> right, or its difference from `baseline`, as above.

    Over the samples that all of them have scored. The interval joins two uncertainties in quadrature: that of the
    samples (the bootstrap of the seeds' mean, sample by sample) and that of the seeds (Student's t of the spread of
    their means). So it says what other seeds on other samples would give, against this one baseline; of a single seed
    it can say nothing but what the samples do.
    """
    values: dict[str, list[float]] = {}
    per_seed = np.zeros(len(systems))
    for task in systems[0]:
        others = [*systems, baseline] if baseline is not None else systems
        shared = sorted(set.intersection(*(set(one.get(task, {})) for one in others)))
        right = np.array([[float(one[task][key]) for key in shared] for one in systems])
        if baseline is not None:
            right -= [float(baseline[task][key]) for key in shared]
        values[task] = right.mean(0).tolist()
        if shared:
            per_seed += 100 * right.mean(1) / len(systems[0])
    samples, spread = _bootstrap_mean(values), 0.0
    if len(systems) > 1:
        degrees = len(systems) - 1
        spread = T95.get(degrees, T95[max(T95)]) * float(per_seed.std(ddof=1)) / math.sqrt(len(systems))
    below, above = math.hypot(samples.value - samples.low, spread), math.hypot(samples.high - samples.value, spread)
    least = 0.0 if baseline is None else -100.0
    return Estimate(samples.value, max(samples.value - below, least), min(samples.value + above, 100.0))


def _bootstrap_mean(values: Mapping[str, Sequence[float]]) -> Estimate:
    tasks = [np.asarray(task, float) for task in values.values()]
    if not tasks or not all(map(len, tasks)):
        return Estimate(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(SEED)
    means = np.zeros(RESAMPLES)
    for task in tasks:
        levels, counts = np.unique(task, return_counts=True)  # redrawing n samples redraws the counts of their levels
        means += rng.multinomial(len(task), counts / len(task), RESAMPLES) @ levels / len(task)
    low, high = np.percentile(means / len(tasks), (2.5, 97.5))
    return Estimate(100 * float(np.mean([task.mean() for task in tasks])), 100 * float(low), 100 * float(high))


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
    return 100 * part / whole if whole else float("nan")
