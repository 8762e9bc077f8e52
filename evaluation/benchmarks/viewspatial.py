"""ViewSpatial-Bench (Li et al. 2025, arXiv 2505.21500): where things are, seen from the camera or by a person in it.

ViewSpatial-Bench.json lists 5,712 questions {question_type, image_path, question, answer, choices}; the pictures come
in val2017.zip (COCO) and scannetv2_val.zip, which are to be extracted beside it. The paper's column, Person Relative
Direction, is one of five types. The authors read a reply by its last line, where the first of the letters A to D that
stands alone counts, be it an article ("a left turn: B" is A); that reading is reported beside ours.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etchr.choices import chosen_letter, read_options
from etchr.families import TaskFamily
from etchr.mllm.answers import is_correct
from etchr.mllm.judge import Grade, Judge
from etchr.rows import text
from etchr.sample import EditSample
from evaluation.benchmarks.benchmark import Benchmark, Decode, HubFiles, LazySamples, LoadOptions, Samples
from evaluation.benchmarks.files import content_ids, digest, naming, picture, read_objects

REPO = "lidingm/ViewSpatial-Bench"
FILE = "ViewSpatial-Bench.json"
ARCHIVES = ("val2017.zip", "scannetv2_val.zip")  # of COCO's pictures, and of ScanNet's
PREFIX = "ViewSpatial-Bench/"  # of all paths in it; the archives have none
MAX_IMAGES = 64  # of a question; the published ones have up to 32
TYPES = (
    "Camera perspective - Relative Direction",
    "Camera perspective - Object View Orientation",
    "Person perspective - Relative Direction",
    "Person perspective - Object View Orientation",
    "Person perspective - Scene Simulation Relative Direction",
)
PERSON_DIRECTION = TYPES[2]
_ALONE = re.compile(r"\b([A-D])\b", re.IGNORECASE)


@dataclass(frozen=True)
class ViewQuestion:
    """A row of the file, checked."""

    kind: str
    pictures: tuple[str, ...]
    text: str
    choices: tuple[str, ...]
    answer: str  # a letter


class ViewSpatial(Benchmark):
    """The questions of some types; of several pictures the editor sees the first."""

    place = "viewspatial"
    licence = "Apache-2.0; the photographs are COCO's and ScanNet's"
    rule = (
        "the letter of the right option as our grader reads the reply, so that the headline is not the authors' score; "
        "theirs is beside it as official: the first of A to D that stands alone in the reply's last line, in either "
        "case, as their evaluate.py reads it"
    )

    def __init__(self, name: str, title: str, types: tuple[str, ...], expected: int) -> None:
        self.name, self.title, self.types, self.expected = name, title, types, expected
        self.largest = (640, 640) if types == (PERSON_DIRECTION,) else (2048, 2048)  # COCO's, or ScanNet's too
        self.get = f"python -m evaluation download {name}"
        self.hub = HubFiles(REPO, (FILE, *(ARCHIVES[:1] if types == (PERSON_DIRECTION,) else ARCHIVES)))

    def load(self, folder: Path, options: LoadOptions) -> Samples:
        """The questions in `folder`'s file; all are read, no picture is opened or looked for."""
        path = folder / FILE
        if not path.is_file():
            raise self.missing(f"no {FILE} in {folder}")
        questions = []
        for number, row in enumerate(read_objects(path), 1):
            with naming(path, number):
                question = _question(row)
            if question.kind in self.types:
                questions.append(question)
        if not questions:
            raise ValueError(f"{path} has no question of type {' or '.join(self.types)}")
        ids = content_ids(self.name, (digest(*q.pictures, q.kind, q.text, *q.choices, q.answer) for q in questions))

        def read(index: int, decode: Decode) -> EditSample:
            return self._sample(ids[index], folder, questions[index], decode)

        return LazySamples(ids, read)

    def _sample(self, key: str, folder: Path, question: ViewQuestion, decode: Decode) -> EditSample:
        first, *others = (self._picture(folder, label, decode) for label in question.pictures)
        return EditSample(
            id=key,
            family=TaskFamily.VIEW3D,
            task=self.name,
            image=first,
            question=question.text,
            answer=question.answer,
            choices=question.choices,
            meta={
                "answer_type": "option",
                "source": "ViewSpatial-Bench",
                "licence": self.licence,
                "split": "test",
                "cluster": _scene(question.pictures[0]),
                "category": question.kind,
                "pictures": list(question.pictures),
            },
            more_images=tuple(others),
        )

    def _picture(self, folder: Path, label: str, decode: Callable[[bytes], Any]) -> Any:
        """A picture below `folder`, whether or not the archives were extracted into a folder of the prefix's name."""
        short = label.removeprefix(PREFIX)
        try:
            return picture(folder, label if (folder / PREFIX).is_dir() else short, decode)
        except ValueError as error:
            raise ValueError(f"{error}; the pictures of {self.title} come with: {self.get}") from None

    async def score(
        self, sample: EditSample, answer: str | None, judge: Judge | None, reply: str | None = None
    ) -> Grade:
        """By the letter; and by the authors' reading of the reply, where there is one."""
        parts = {} if reply is None else {"official": official_letter(reply) == sample.answer}
        return Grade(is_correct(answer, sample), parts)


def official_letter(reply: str) -> str | None:
    """The letter that the authors' code finds in a reply."""
    found = _ALONE.search(reply.split("\n")[-1])
    return found[1].upper() if found else None


def _question(row: dict[str, Any]) -> ViewQuestion:
    kind = text(row.get("question_type"), "question_type", 100)
    if kind not in TYPES:
        raise ValueError(f"question_type {kind!r} is none of: {'; '.join(TYPES)}")
    paths = row.get("image_path")
    if not isinstance(paths, list) or not 1 <= len(paths) <= MAX_IMAGES:
        raise ValueError(f"image_path must be a list of 1 to {MAX_IMAGES} paths")
    choices = read_options(text(row.get("choices"), "choices"))
    answer = chosen_letter(text(row.get("answer"), "answer"), choices)
    if not choices or answer is None:
        raise ValueError("choices and answer must hold options A. ... and one of them")
    pictures = tuple(text(path, "image_path", 1_000) for path in paths)
    return ViewQuestion(kind, pictures, text(row.get("question"), "question"), choices, answer)


def _scene(label: str) -> str:
    """What questions have in common: the scene that a ScanNet frame is of, or the photograph."""
    parts = label.removeprefix(PREFIX).split("/")
    return "/".join(parts[:2])
