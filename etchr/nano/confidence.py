"""How sure the embedded reader is that what it read off an edit is right: a small logistic model for each skill.

A skill measures a few features of question, source and edit. What each of them counts stands in `confidence.yaml`,
which `python -m evaluation.calibrate` fits on edits of validation questions: the reader itself never sees a truth.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from etchr.mllm.settings import check_threshold
from etchr.rows import parsed_yaml

RULES_FILE = Path(__file__).with_name("confidence.yaml")
REFIT = "fit it anew: python -m evaluation.calibrate"


@dataclass(frozen=True)
class Feature:
    """What a skill measures: which way it may count, and what is said of an edit that it speaks against the most."""

    sign: int  # 1: the more of it, the surer; -1: the less
    fault: str  # with the question's words in {braces}


@dataclass(frozen=True)
class Rule:
    """The log-odds that a reading is right: `bias` for a usual right one, and what each feature adds or takes."""

    bias: float
    weights: dict[str, float]  # per unit of a feature
    usual: dict[str, float]  # the features' means over right readings
    guess: float  # how probably the answer without an edit is right: below this an edit does not pay

    def gains(self, values: Mapping[str, float]) -> dict[str, float]:
        """What each feature adds to the log-odds."""
        return {name: weight * (values[name] - self.usual[name]) for name, weight in self.weights.items()}

    def confidence(self, values: Mapping[str, float]) -> float:
        """The probability that the reading with these features is right, 0..1."""
        return sigmoid(self.bias + sum(self.gains(values).values()))

    def worst(self, values: Mapping[str, float]) -> str:
        """The feature that speaks against the reading the most."""
        gains = self.gains(values)
        return min(gains, key=lambda name: gains[name])


def _number(value: float) -> str:
    """Four decimals, as few of them as say the same, and no minus before a zero."""
    return f"{round(value, 4) + 0.0:.10g}"


def sigmoid(log_odds: float) -> float:
    return 1 / (1 + math.exp(-min(max(log_odds, -500.0), 500.0)))


def read_rules(features: Mapping[str, Collection[str]], path: Path = RULES_FILE) -> dict[str, Rule]:
    """The rule of every skill; `ValueError` for a file that does not hold what the skills measure."""
    try:
        entries = parsed_yaml(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read the reader's confidence from {path}: {error}; {REFIT}") from None
    if not isinstance(entries, dict) or set(entries) != set(features):
        raise ValueError(f"{path} must hold {', '.join(features)}, got {_names(entries)}; {REFIT}")
    return {skill: _rule(entries[skill], list(features[skill]), f"{path}: {skill}") for skill in features}


def _rule(entry: Any, names: list[str], where: str) -> Rule:
    counts = entry.get("features") if isinstance(entry, dict) else None
    if not isinstance(counts, dict) or set(counts) != set(names):
        raise ValueError(f"{where} must weigh {', '.join(names)}, got {_names(counts)}; {REFIT}")
    try:
        weights = {name: float(counts[name]["weight"]) for name in names}
        usual = {name: float(counts[name]["usual"]) for name in names}
        rule = Rule(float(entry["bias"]), weights, usual, float(entry["guess"]))
        check_threshold(rule.guess, "guess")
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{where} needs a bias, a guess above 0 and below 1, and for each feature a weight and a usual value; "
            f"{REFIT}"
        ) from None
    return rule


def _names(entries: Any) -> str:
    return ", ".join(map(str, entries)) if isinstance(entries, dict) and entries else "nothing of the kind"


def rules_text(rules: Mapping[str, Rule], head: str) -> str:
    """The rules as YAML for people; `head` goes in front as a comment."""
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    for skill, rule in rules.items():
        lines += [f"{skill}:", f"  guess: {_number(rule.guess)}", f"  bias: {_number(rule.bias)}", "  features:"]
        for name, weight in rule.weights.items():
            lines.append(f"    {name}: {{weight: {_number(weight)}, usual: {_number(rule.usual[name])}}}")
    return "\n".join(lines) + "\n"
