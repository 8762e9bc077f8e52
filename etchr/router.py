"""Meta-prompt router: a question and its task family become the editing prompt m_t + q (paper, section 3).

The meta-prompt is one short sentence per *family*, never per sample: it tells the editor which kind of edit is wanted
and leaves it to infer the edit itself from the question. The sentences live in a YAML that a user can replace, e.g. by
the ones read from a published training set.

A question whose family nobody has stated is routed by a rule on its words, or by a model (`mllm/routing.py`).
"""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from etchr.families import TaskFamily
from etchr.rows import parsed_yaml

_FOLDER = Path(__file__).parent.parent / "configs" / "router"
DEFAULT_ROUTER = _FOLDER / "default.yaml"
DEFAULT_WORDS = _FOLDER / "words.yaml"  # of the local rule; made by python -m data_prep.routing
NO_FAMILY = "none"
KEYS = {"sentence", "candidates"}  # of a family in a router file
MIN_CONFIDENCE = 0.5  # of a guessed family; below it no edit is asked for
MAX_QUESTION = 4_000  # characters of a question that the rule reads

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)?")
_PLURAL = re.compile(r"ies$|(?<=ch|sh|ss)es$|(?<=x)es$|(?<![sui])s$")
_SINGULAR = {"ies": "y"}
_YEAR = re.compile(r"(?:19|20)\d\d")
_COLOURS = {
    "red", "blue", "green", "yellow", "black", "white", "orange", "purple", "grey", "gray", "brown", "pink", "teal",
    "magenta", "cyan",
}  # fmt: skip


@dataclass(frozen=True)
class Router:
    """The meta-prompt of each family that an editor knows."""

    meta_prompts: dict[TaskFamily, str]
    with_candidates: frozenset[TaskFamily] = frozenset()  # families whose prompts hold the options behind the question

    @classmethod
    def load(cls, path: str | Path = DEFAULT_ROUTER) -> "Router":
        """Read `family: sentence` lines; `ValueError` for a missing file, an unknown family or what is no sentence.

        In the place of a sentence `{sentence: ..., candidates: true}` puts the options behind the question.
        """
        entries = _read_yaml(Path(path), "router file", "a sentence", DEFAULT_ROUTER)
        sentences, with_candidates = dict[TaskFamily, str](), set[TaskFamily]()
        for name, entry in entries.items():
            family = TaskFamily.parse(name)
            known = entry if isinstance(entry, dict) else {"sentence": entry}
            sentence, candidates = known.get("sentence"), known.get("candidates", False)
            if not isinstance(sentence, str) or not isinstance(candidates, bool) or known.keys() - KEYS:
                raise ValueError(f"router file {path}: {name} must be a sentence (or '' for none), got {entry!r}")
            sentences[family] = sentence.strip()
            with_candidates |= {family} if candidates else set()
        return cls(sentences, frozenset(with_candidates))

    def prompt(self, question: str, family: str | TaskFamily, choices: Sequence[str] | None = None) -> str:
        """The editing prompt for `question`; `ValueError` if the family is unknown or has no meta-prompt here."""
        family = TaskFamily.parse(family)
        if family not in self.meta_prompts:
            raise ValueError(f"the router has no meta-prompt for {family}; it has: {', '.join(self.meta_prompts)}")
        if choices and family in self.with_candidates:
            listed = " ".join(f"{chr(ord('A') + place)}. {choice}" for place, choice in enumerate(choices))
            question = f"{question}Candidates: {listed}"  # without a space, as in the authors' script
        return f"{self.meta_prompts[family]} {question}".strip()


@dataclass(frozen=True)
class Route:
    """A guess at the family of a question that nobody has labelled."""

    family: TaskFamily | None  # None: no family's edit would help, or nobody can say
    confidence: float  # 0 to 1: the probability that this is right

    def asks_for_edit(self, min_confidence: float) -> bool:
        """Whether there is a family, and one sure enough for an edit."""
        return self.family is not None and self.confidence >= min_confidence


@dataclass(frozen=True)
class WordRule:
    """A linear model on the words of a question, and on pairs of neighbours: the local rule.

    What the words add up to, over all families and "none", becomes probabilities by a softmax.
    """

    bias: dict[TaskFamily | None, float]
    weights: dict[str, dict[TaskFamily | None, float]]  # word or pair -> what it adds for each family

    @classmethod
    def load(cls, path: str | Path = DEFAULT_WORDS) -> "WordRule":
        """Read `family: {bias: number, words: {word: number}}`; `ValueError` for a file that does not fit."""
        entries = _read_yaml(Path(path), "word rule", "a bias and words", DEFAULT_WORDS)
        bias: dict[TaskFamily | None, float] = {}
        weights: dict[str, dict[TaskFamily | None, float]] = {}
        for name, entry in entries.items():
            family = None if name == NO_FAMILY else TaskFamily.parse(name)
            words = entry.get("words") if isinstance(entry, dict) else None
            if not isinstance(words, dict) or not all(map(_is_number, (entry.get("bias"), *words.values()))):
                raise ValueError(f"word rule {path}: {name} must hold a bias and words, all with finite numbers")
            bias[family] = float(entry["bias"])
            for word, weight in words.items():
                weights.setdefault(str(word), {})[family] = float(weight)
        if set(bias) != {*TaskFamily, None}:
            raise ValueError(f"word rule {path} must hold {', '.join(TaskFamily)} and {NO_FAMILY}")
        return cls(bias, weights)

    def probabilities(self, question: str) -> dict[TaskFamily | None, float]:
        """How probable each family is, and None; empty where the rule knows no word of the question."""
        known = [self.weights[word] for word in question_words(question) if word in self.weights]
        if not known:
            return {}
        scores = {family: start + sum(each.get(family, 0.0) for each in known) for family, start in self.bias.items()}
        most = max(scores.values())
        mass = {family: math.exp(score - most) for family, score in scores.items()}
        return {family: value / sum(mass.values()) for family, value in mass.items()}


def route_by_rule(question: str, rule: WordRule | None = None) -> Route:
    """The family that the words of a question speak for, and how probable it is; no model is asked.

    Answer options are not read: on wordings that were left out of the fit they misled more often than they helped.
    """
    found = (rule or _default_rule()).probabilities(question)
    if not found:
        return Route(None, 0.0)
    best = max(found, key=lambda family: found[family])
    return Route(best, found[best])


def question_words(question: str) -> list[str]:
    """The words of a question in the form in which the rule knows them, and all pairs of neighbours, each once.

    Lower case, without a plural s; colours are <colour>, years <year> and other numbers <number>.
    """
    words = [_plain_word(word) for word in _WORD.findall(question[:MAX_QUESTION].lower().replace("\u2019", "'"))]
    pairs = [f"{first} {second}" for first, second in itertools.pairwise(words)]
    return list(dict.fromkeys([*words, *pairs]))


def _plain_word(word: str) -> str:
    word = word.removesuffix("'s")
    if word[0].isdigit():
        return "<year>" if _YEAR.fullmatch(word) else "<number>"
    if word in _COLOURS:
        return "<colour>"
    return _PLURAL.sub(lambda end: _SINGULAR.get(end[0], ""), word) if len(word) > 3 else word


@cache
def _default_rule() -> WordRule:
    return WordRule.load()


def _read_yaml(path: Path, what: str, holds: str, default: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise ValueError(f"no {what} at {path}; the default one is {default}")
    try:
        entries = parsed_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} {path} is not YAML: {error}") from None
    if not isinstance(entries, dict):
        raise ValueError(f"{what} {path} must map each task family to {holds}")
    return entries


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
