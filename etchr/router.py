"""Meta-prompt router: a question and its task family become the editing prompt m_t + q (paper, section 3).

The meta-prompt is one short sentence per *family*, never per sample: it tells the editor which kind of edit is wanted
and leaves it to infer the edit itself from the question. The sentences live in a YAML that a user can replace, e.g. by
the ones read from a published training set.
"""

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
