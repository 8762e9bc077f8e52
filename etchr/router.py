"""Meta-prompt router: a question and its task family become the editing prompt m_t + q (paper, section 3).

The meta-prompt is one short sentence per *family*, never per sample: it tells the editor which kind of edit is wanted
and leaves it to infer the edit itself from the question. The sentences live in a YAML that a user can replace, e.g. by
the ones read from a published training set.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from etchr.families import TaskFamily

DEFAULT_ROUTER = Path(__file__).parent.parent / "configs" / "router" / "default.yaml"


@dataclass(frozen=True)
class Router:
    """The meta-prompt of each family that an editor knows."""

    meta_prompts: dict[TaskFamily, str]

    @classmethod
    def load(cls, path: str | Path = DEFAULT_ROUTER) -> "Router":
        """Read `family: sentence` lines; `ValueError` for a missing file, an unknown family or an empty sentence."""
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"no router file at {path}; the default one is {DEFAULT_ROUTER}")
        try:
            entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"router file {path} is not YAML: {error}") from None
        if not isinstance(entries, dict):
            raise ValueError(f"router file {path} must map each task family to a sentence")
        for family, sentence in entries.items():
            if not isinstance(sentence, str):
                raise ValueError(f"router file {path}: {family} must be a sentence (or '' for none), got {sentence!r}")
        return cls({TaskFamily.parse(family): sentence.strip() for family, sentence in entries.items()})

    def prompt(self, question: str, family: str | TaskFamily) -> str:
        """The editing prompt for `question`; `ValueError` if the family is unknown or has no meta-prompt here."""
        family = TaskFamily.parse(family)
        if family not in self.meta_prompts:
            raise ValueError(f"the router has no meta-prompt for {family}; it has: {', '.join(self.meta_prompts)}")
        return f"{self.meta_prompts[family]} {question}".strip()


@dataclass(frozen=True)
class Route:
    """A guess at the family of a question that nobody has labelled."""

    family: TaskFamily | None  # None: no edit would help, or nobody can say
    confidence: float  # 0 to 1


# Words that speak for a family, with their weights; a question without any speaks weakly for perception.
SIGNS: dict[TaskFamily, dict[str, float]] = {
    TaskFamily.CHART: {
        r"\b(?:bar|bars|chart|graph|plot|plots|subplot|subplots|axis|axes|legend|histogram|heatmap|scatter)\b": 3.0,
        r"\b(?:x-axis|y-axis|tick|ticks|curve|curves|line labels?|data points?|percentage|percent|ratio)\b": 2.0,
        r"\b(?:value|values|maximum|minimum|highest|lowest|average|median|trend|year|years|title)\b": 1.0,
    },
    TaskFamily.LOGIC: {
        r"\b(?:maze|labyrinth|frozen lake|shortest path|sudoku)\b": 4.0,
        r"\b(?:path|route|moves|steps|start to goal|goal)\b": 1.5,
    },
    TaskFamily.JIGSAW: {
        r"\b(?:jigsaw|shuffled|permutation)\b": 4.0,
        r"\b(?:puzzle|patches|pieces|tiles|rearrange|restore|order of)\b": 2.0,
    },
    TaskFamily.VIEW3D: {
        r"\b(?:perspective|viewpoint|point of view|seen from|viewed from|camera|facing)\b": 3.0,
        r"\b(?:stand|standing|turn|rotate|behind|orientation|relative to|in relation to)\b": 1.5,
    },
    TaskFamily.PERCEPTION: {
        r"\b(?:colou?r|wearing|holding|logo|text|word|material|sign|number plate|man|woman|person|dog|shirt)\b": 1.0,
    },
}
PRIOR = {TaskFamily.PERCEPTION: 1.0}


def route_by_rule(question: str, choices: Sequence[str] | None = None) -> Route:
    """The family that the words of a question speak for, and how clearly; no model is asked."""
    words = " ".join([question, *(choices or ())]).lower()
    scores = {family: PRIOR.get(family, 0.0) for family in SIGNS}
    for family, signs in SIGNS.items():
        scores[family] += sum(weight for pattern, weight in signs.items() if re.search(pattern, words))
    best = max(scores, key=lambda family: scores[family])
    mass = {family: 2.0**score for family, score in scores.items()}
    return Route(best, mass[best] / sum(mass.values()))
