"""The fit: a logistic regression whose weights keep their signs, and its confidences on questions it has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from etchr.nano.confidence import Feature, Rule

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """A reading in which something may be right: its features, whether it is right, and of which question it is."""

    features: Mapping[str, float]
    is_right: bool
    question: str
    counts: float = 1.0  # how much, beside the others


def fit_rule(examples: Sequence[Example], features: Mapping[str, Feature], l2: float, guess: float = 0.5) -> Rule:
    """The rule with the least mean cross-entropy + `l2` / 2 * sum of squared weights, those of features in spreads.

    A weight that would have the wrong sign becomes 0. Labels are smoothed as Platt did, so that a skill that never errs
    is sure, but not infinitely so. `guess` goes into the rule. `ValueError` without examples.
    """
    if not examples:
        raise ValueError("no edit gave a reading to fit on; give more questions or a better editor")
    values = np.array([[example.features[name] for name in features] for example in examples], float)
    right = np.array([example.is_right for example in examples])
    centre, spread = values.mean(0), np.maximum(values.std(0), 1e-6)
    signs = np.array([feature.sign for feature in features.values()], float)
    scaled = (values - centre) / spread * signs
    counts = np.array([example.counts for example in examples])
    num_right, num_wrong = counts[right].sum(), counts[~right].sum()
    target = np.where(right, (num_right + 1) / (num_right + 2), 1 / (num_wrong + 2))
    counts = counts / counts.sum()

    def objective(found: Array) -> tuple[float, Array]:
        scores = scaled @ found[1:] + found[0]
        loss = counts @ (np.logaddexp(0, scores) - target * scores) + l2 / 2 * found[1:] @ found[1:]
        error = counts * (1 / (1 + np.exp(-scores)) - target)
        return float(loss), np.concatenate([[error.sum()], scaled.T @ error + l2 * found[1:]])

    bounds = [(-20.0, 20.0)] + [(0.0, None)] * len(signs)
    found = minimize(objective, np.zeros(len(signs) + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = found[1:] * signs / spread
    usual = values[right].mean(0) if right.any() else centre
    bias = float(found[0] + weights @ (usual - centre))
    return Rule(
        bias,
        dict(zip(features, weights.tolist(), strict=True)),
        dict(zip(features, usual.tolist(), strict=True)),
        guess,
    )


def left_out(examples: Sequence[Example], features: Mapping[str, Feature], l2: float, folds: int) -> list[float]:
    """The confidence of each example by a rule that has seen no edit of its question."""
    questions = {name: number for number, name in enumerate(dict.fromkeys(each.question for each in examples))}
    fold = [questions[example.question] % folds for example in examples]
    found = [0.0] * len(examples)
    for out in set(fold):
        rest = [example for example, number in zip(examples, fold, strict=True) if number != out]
        rule = fit_rule(rest, features, l2)
        for index, example in enumerate(examples):
            if fold[index] == out:
                found[index] = rule.confidence(example.features)
    return found
