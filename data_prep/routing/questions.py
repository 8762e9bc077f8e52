"""The questions that the routing rule is fitted on, each with its family; see this package for the split."""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_prep import procedural_tasks
from data_prep.sources import jigsaws, lakes, mazes
from data_prep.sources.dl3dv import DL3DVConfig, Pair
from data_prep.sources.dl3dv import questions as dl3dv_questions
from data_prep.sources.poses import Motion
from data_prep.task import place
from etchr.families import TASK_FAMILY, TaskFamily
from etchr.router import NO_FAMILY
from etchr.rows import parsed_yaml, text

OWN = Path(__file__).with_name("questions.yaml")
FILLS = 4  # of a line with slots
SCENES = 60  # of each procedural task
SIZES = range(3, 13)  # of mazes and lakes
MAX_ROWS = 400  # of a family from one data set

# Of ViewSpatial-Bench. What the camera itself sees needs no other viewpoint: a box round the things answers it.
VIEWSPATIAL = {
    "Camera perspective - Relative Direction": TaskFamily.PERCEPTION,
    "Camera perspective - Object View Orientation": TaskFamily.PERCEPTION,
    "Person perspective - Object View Orientation": TaskFamily.VIEW3D,
    "Person perspective - Scene Simulation Relative Direction": TaskFamily.VIEW3D,
}


class RoutedQuestion(NamedTuple):
    """A question of the development data."""

    family: TaskFamily | None
    source: str
    group: str  # what is left out together when confidence is measured: nothing in it words what is outside
    question: str


def development(charxiv: Path, viewspatial: Path, folds: int, seed: int) -> list[RoutedQuestion]:
    """All rows, each text of a family once; `ValueError` if a file is missing or does not fit."""
    parts = procedural(seed), templates(), own(OWN, folds), from_charxiv(charxiv), from_viewspatial(viewspatial)
    by_source: dict[tuple[TaskFamily | None, str], dict[str, RoutedQuestion]] = defaultdict(dict)
    for row in (row for part in parts for row in part):
        by_source[row.family, row.source].setdefault(row.question, row)
    rng = random.Random(seed)
    found: list[RoutedQuestion] = []
    for (_, source), rows in by_source.items():
        few = source == "own" or len(rows) <= MAX_ROWS
        found += rows.values() if few else rng.sample(list(rows.values()), MAX_ROWS)
    return found


def procedural(seed: int) -> Iterator[RoutedQuestion]:
    """Questions about training scenes of the six tasks; nothing is drawn."""
    for name, task in procedural_tasks().items():
        rng = random.Random(f"{seed}/{name}")
        left = SCENES
        while left:
            scene = task.scene(rng)
            if place(task, scene)[1] == "train":
                question = task.ask(scene, task.target(scene, rng), rng).question
                yield RoutedQuestion(TASK_FAMILY[name], "procedural", f"procedural {name}", question)
                left -= 1


def templates() -> Iterator[RoutedQuestion]:
    """The wordings of the sources that word their own questions."""
    for size in SIZES:
        for unique in (True, False):
            yield RoutedQuestion(TaskFamily.LOGIC, "mazes", "mazes", mazes.question(size, unique))
        yield RoutedQuestion(TaskFamily.LOGIC, "lakes", "lakes", lakes.question(size))
    yield RoutedQuestion(TaskFamily.JIGSAW, "jigsaws", "jigsaws", jigsaws.QUESTION)
    config = DL3DVConfig(root=".")
    dark, bright = [200, 10, 20], [10, 200, 20]  # of the thirds of two pictures: all kinds of questions fit
    for heading in range(-180, 180, 9):
        for yaw in range(-90, 91, 10):
            pair = Pair((0, 1), Motion(heading, yaw, slope=0.0, baseline=0.2), shared=0.8)
            for ask in dl3dv_questions(pair, dark, bright, config):
                yield RoutedQuestion(TaskFamily.VIEW3D, "dl3dv", "dl3dv", ask.question)


def own(path: Path, folds: int) -> Iterator[RoutedQuestion]:
    """The questions of a YAML: lines by family, with {slots} that are filled `FILLS` times; lines go into `folds`."""
    entries = parsed_yaml(path.read_text(encoding="utf-8"))
    slots, frames = entries.pop("slots"), entries.pop("frames")
    for name, lines in entries.items():
        family = None if name == NO_FAMILY else TaskFamily.parse(name)
        for number, line in enumerate(lines):
            for fill in range(FILLS if "{" in line else 2):
                rng = random.Random(f"{line}/{fill}")
                question = filled(line, slots, rng)
                if fill % 2:
                    question = framed(question, rng.choice(frames))
                yield RoutedQuestion(family, "own", f"own {number % folds}", question)


def filled(line: str, slots: dict[str, list[str]], rng: random.Random) -> str:
    """A line with a random word in each {slot}."""
    return re.sub(r"\{(\w+)\}", lambda slot: rng.choice(slots[slot[1]]), line)


def framed(question: str, frame: str) -> str:
    """A question in the place of the frame's {}; unchanged if it is none or speaks of a picture itself."""
    if not question.endswith("?") or re.search(r"\b(?:image|picture|photo\w*)\b", question):
        return question
    return frame.format(question.removesuffix("?"))


def from_charxiv(folder: Path) -> Iterator[RoutedQuestion]:
    """The reasoning questions of CharXiv's test figures."""
    entries = _json(folder / "reasoning_test.json", dict)
    yield from _rows(TaskFamily.CHART, "charxiv", "charxiv", (entry.get("query") for entry in entries.values()))


def from_viewspatial(folder: Path) -> Iterator[RoutedQuestion]:
    """The questions of ViewSpatial-Bench of all types but the one that is reported."""
    entries = _json(folder / "ViewSpatial-Bench.json", list)
    for kind, family in VIEWSPATIAL.items():
        asked = (entry.get("question") for entry in entries if entry.get("question_type") == kind)
        yield from _rows(family, "viewspatial", f"viewspatial {kind}", asked)


def _rows(family: TaskFamily, source: str, group: str, questions: Iterable[Any]) -> Iterator[RoutedQuestion]:
    return (RoutedQuestion(family, source, group, text(question, "question")) for question in questions)


def _json(path: Path, kind: type) -> Any:
    if not path.is_file():
        raise ValueError(f"no file {path}; name the folder that holds it")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    entries = value.values() if isinstance(value, dict) else value
    if not isinstance(value, kind) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} must be a {kind.__name__} of objects")
    return value
