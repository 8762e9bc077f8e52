"""The fit of the routing rule: a sparse multinomial logistic regression on words, and a temperature."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.sparse import csr_matrix

from data_prep.routing.questions import RoutedQuestion
from etchr.families import TaskFamily
from etchr.router import question_words

Array = NDArray[np.float64]

FAMILIES: tuple[TaskFamily | None, ...] = (*TaskFamily, None)
LEAST = 3  # questions that a word or pair stands in
OWN_COUNTS = 3.0  # how much questions.yaml counts within a family, another source counting 1
BIAS_L2 = 0.01
TINY = 1e-3  # weights below it are dropped


@dataclass(frozen=True)
class Problem:
    """Questions as numbers: which words they hold (N, D), which family they are of (N), what they count (N)."""

    words: tuple[str, ...]
    holds: csr_matrix
    family: NDArray[np.int64]
    counts: Array

    @classmethod
    def of(cls, rows: Sequence[RoutedQuestion]) -> "Problem":
        split = [question_words(row.question) for row in rows]
        seen = Counter(itertools.chain.from_iterable(split))
        words = tuple(sorted(word for word, times in seen.items() if times >= LEAST))
        number = {word: index for index, word in enumerate(words)}
        columns = [[number[word] for word in each if word in number] for each in split]
        ends = np.cumsum([0, *map(len, columns)])
        ones = np.ones(ends[-1])
        holds = csr_matrix((ones, list(itertools.chain(*columns)), ends), shape=(len(rows), len(words)))
        return cls(words, holds, np.array([FAMILIES.index(row.family) for row in rows]), _counts(rows))

    def part(self, mask: NDArray[np.bool_]) -> "Problem":
        """Some of the rows, over the same words."""
        return Problem(self.words, self.holds[mask], self.family[mask], self.counts[mask])


def _counts(rows: Sequence[RoutedQuestion]) -> Array:
    """What each row counts: all families alike, within a family its sources, within a source its rows."""
    sizes = Counter((row.family, row.source) for row in rows)
    of_source = {key: OWN_COUNTS if key[1] == "own" else 1.0 for key in sizes}
    of_family: dict[TaskFamily | None, float] = defaultdict(float)
    for (family, _), share in of_source.items():
        of_family[family] += share
    counts = [of_source[r.family, r.source] / of_family[r.family] / sizes[r.family, r.source] for r in rows]
    return np.array(counts) / sum(counts)


@dataclass(frozen=True)
class Model:
    """Weights (D, K) and biases (K) over `FAMILIES`."""

    weights: Array
    bias: Array

    def probabilities(self, problem: Problem) -> Array:
        """(N, K)."""
        return _softmax(problem.holds @ self.weights + self.bias)


def fit(problem: Problem, l1: float, start: Model | None = None) -> Model:
    """The weights that minimise the mean cross-entropy + `l1` * sum |weight|; biases are hardly held back.

    A weight is the difference of two parts that are not negative, which makes the objective smooth: L-BFGS-B then finds
    the exact minimum, in which most weights are 0.
    """
    shape = size, num = len(problem.words), len(FAMILIES)
    truth = np.eye(num)[problem.family]
    counts = problem.counts / problem.counts.sum()

    def objective(values: Array) -> tuple[float, Array]:
        up, down, bias = values[: size * num], values[size * num : 2 * size * num], values[2 * size * num :]
        found = _softmax(problem.holds @ (up - down).reshape(shape) + bias)
        loss = -counts @ np.log(np.maximum((found * truth).sum(1), 1e-300))
        error = (found - truth) * counts[:, None]
        slope = (problem.holds.T @ error).ravel()
        total = loss + l1 * (up.sum() + down.sum()) + BIAS_L2 / 2 * bias @ bias
        return float(total), np.concatenate([slope + l1, l1 - slope, error.sum(0) + BIAS_L2 * bias])

    first = np.zeros((2 * size + 1) * num)
    if start is not None:
        up, down = np.maximum(start.weights, 0), np.maximum(-start.weights, 0)
        first = np.concatenate([up.ravel(), down.ravel(), start.bias])
    bounds = [(0.0, None)] * (2 * size * num) + [(None, None)] * num
    found = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500}).x
    weights = (found[: size * num] - found[size * num : 2 * size * num]).reshape(shape)
    return Model(np.where(np.abs(weights) < TINY, 0.0, weights), found[2 * size * num :])


def left_out(problem: Problem, groups: Sequence[str], l1: float, whole: Model) -> Array:
    """The log-probabilities (N, K) of every row by a model that has seen nothing of its group."""
    found = np.zeros((len(groups), len(FAMILIES)))
    for group in dict.fromkeys(groups):
        out = np.array([each == group for each in groups])
        model = fit(problem.part(~out), l1, start=whole)
        found[out] = np.log(np.maximum(model.probabilities(problem.part(out)), 1e-12))
    return found


def temperature(logs: Array, problem: Problem) -> float:
    """What log-probabilities must be divided by so that they fit best: above 1 they were too sure."""

    def loss(log_temperature: float) -> float:
        found = _softmax(logs / np.exp(log_temperature))
        return float(-problem.counts @ np.log(found[np.arange(len(found)), problem.family]))

    return float(np.exp(minimize_scalar(loss, bounds=(-2, 2), method="bounded").x))


def _softmax(scores: Array) -> Array:
    mass = np.exp(scores - scores.max(1, keepdims=True))
    return mass / mass.sum(1, keepdims=True)
