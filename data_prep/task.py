"""What a procedural task is, and how its samples are drawn so that no test scene can occur in training.

A task separates the *scene* (what is in the picture) from the *target* (which edit is wanted). The scene alone decides
the split: its hash falls into the train, val or test bucket, whatever the seed, and scenes that look alike go together,
so the splits are disjoint by construction. Two kinds of samples come from the same scenes:

- `question`: the question of the task, with the edit that answers it (Stage I, Stage II and evaluation);
- `instruction`: an explicit instruction with an *arbitrary* target, such as a box round an object that nobody asked
  for or a path that leads nowhere. The base editor is trained on these: it learns to do what it is told, and nothing
  about what a question wants.
"""

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from etchr.families import TASK_FAMILY
from etchr.sample import EditSample

Scene = dict[str, Any]  # JSON: everything that is in the picture, and for 3D the roles of the question
Target = dict[str, Any]  # JSON: the edit that is wanted

# Buckets of a scene's hash, in percent.
SPLITS = {"train": range(0, 70), "val": range(70, 80), "test": range(80, 100)}
MAX_MISSES = 5_000  # proposals without a new scene before a task is declared exhausted
MAX_SHORT = 20_000  # proposals without a path of the wanted length, likewise


@dataclass(frozen=True)
class Ask:
    """A question about a scene, with its answer in the form that `answer_type` names."""

    question: str
    answer: str
    answer_type: str  # option | number | moves | permutation
    choices: tuple[str, ...] | None = None
    meta: dict[str, Any] = field(default_factory=dict)


class ProceduralTask(ABC):
    """One procedural task; every method is a pure function of its arguments."""

    name: str
    scenes_repeat = False  # whether held-out questions may share a scene, with different targets
    longest_path = 0  # moves of the longest path that `path_target` may be asked for; 0: the task has no paths
    shallow: int  # the largest depth of nearly all that the miniature's Stage I imitates; Stage II has every depth

    def aliases(self, scene: Scene) -> list[Scene]:
        """All scenes with the same picture, this one among them: what differs between them cannot be seen."""
        return [scene]

    @abstractmethod
    def scene(self, rng: random.Random) -> Scene:
        """A random scene that has a question."""

    @abstractmethod
    def target(self, scene: Scene, rng: random.Random) -> Target:
        """The target of a random question about the scene."""

    def any_target(self, scene: Scene, rng: random.Random) -> Target:
        """A target that an explicit instruction may name, whether or not a question would."""
        return self.target(scene, rng)

    def path_target(self, scene: Scene, length: int, rng: random.Random) -> Target | None:
        """The target of an instruction to draw a path of exactly `length` moves; None if the scene has none."""
        raise NotImplementedError(f"task {self.name} has no paths")

    @abstractmethod
    def depth(self, scene: Scene, target: Target) -> int:
        """How hard a question is: moves or bends of a path, pieces moved, quarter turns, things to choose from."""

    @abstractmethod
    def source(self, scene: Scene, target: Target, size: int) -> Image.Image:
        """The source image, `size` x `size` RGB."""

    @abstractmethod
    def edit(self, scene: Scene, target: Target, size: int) -> Image.Image:
        """The ground-truth edit for the target, aligned with the source."""

    @abstractmethod
    def instruction(self, scene: Scene, target: Target) -> str:
        """The explicit instruction for the target."""

    @abstractmethod
    def ask(self, scene: Scene, target: Target, rng: random.Random) -> Ask:
        """The question that the target answers."""


def scene_hash(scene: Scene) -> str:
    """Hex digest of the scene: equal scenes, and only those, have equal digests."""
    return hashlib.sha256(json.dumps(scene, sort_keys=True).encode()).hexdigest()


def place(task: ProceduralTask, scene: Scene) -> tuple[str, str]:
    """The digest of a scene's picture and its split: the first of train, val, test that one of its aliases falls in."""
    digests = sorted(scene_hash(alias) for alias in task.aliases(scene))
    buckets = {int(digest[:8], 16) % 100 for digest in digests}
    return digests[0], next(name for name, part in SPLITS.items() if not buckets.isdisjoint(part))


def check_lengths(task: ProceduralTask, lengths: Sequence[int]) -> None:
    """`ValueError` unless the task can draw paths of all these lengths."""
    if not task.longest_path:
        raise ValueError(f"lengths= is for tasks with paths, maze and frozen_lake; {task.name} has none")
    if not lengths:
        raise ValueError("lengths=[] names none; leave it out for paths of any length")
    for length in lengths:
        if not 1 <= length <= task.longest_path:
            raise ValueError(
                f"lengths={list(lengths)}: a path of {length} moves cannot be had in the scenes of {task.name}; "
                f"ask for 1 to {task.longest_path}"
            )


def generate(
    task: ProceduralTask,
    *,
    split: str,
    num_samples: int,
    seed: int,
    size: int,
    kind: str = "question",
    shallow: float = 0.0,
    lengths: Sequence[int] | None = None,
) -> Iterator[EditSample]:
    """`num_samples` samples of one split, reproducible from the seed; `meta` has the `depth` of a question.

    `shallow` is the probability that a question must have at most the task's `shallow` depth: short paths, few pieces
    moved, near viewpoints, as in a corpus whose edits somebody had to make. The others are of any depth.

    The scenes of a `val` or `test` set of questions are all different, unless the task has few (`scenes_repeat`); a set
    larger than the task has scenes is refused. `train` sets and instructions may repeat a scene with another target.

    With `lengths`, instructions name paths of these numbers of moves, one after the other, over free cells from the
    start; `meta` has the `path_length`. They share no random draws with instructions of any length.
    """
    wanted = "" if lengths is None else "/lengths"
    if lengths is not None:
        check_lengths(task, lengths)
    rng = random.Random(f"{task.name}/{split}/{kind}/{seed}{wanted}")
    draw = _Draw(task, split, rng, task.scenes_repeat or split == "train" or kind == "instruction", num_samples)
    for index in range(num_samples):
        length = lengths[index % len(lengths)] if lengths else None
        limit = task.shallow if shallow and rng.random() < shallow else None
        while True:
            scene, digest, path = draw.scene(length)
            target = path or (task.target(scene, rng) if kind == "question" else task.any_target(scene, rng))
            if limit is None or task.depth(scene, target) <= limit:
                break
        origin = {"kind": kind, "split": split, "scene": digest}
        mark = "" if length is None else f"l{length:02d}-"
        name = f"{task.name}-{kind}-{split}-s{seed}-{mark}{index:06d}"
        about = {} if length is None else {"path_length": length}
        yield _sample(task, scene, target, origin | about, rng, name, size)


class _Draw:
    """Draws scenes of one split."""

    def __init__(self, task: ProceduralTask, split: str, rng: random.Random, may_repeat: bool, wanted: int) -> None:
        self.task, self.split, self.rng, self.may_repeat, self.wanted = task, split, rng, may_repeat, wanted
        self._seen: set[str] = set()

    def scene(self, length: int | None) -> tuple[Scene, str, Target | None]:
        """A scene, its digest and, where a length is given, the target of a path of that many moves.

        `ValueError` if none comes up within reason.
        """
        for _ in range(MAX_MISSES if length is None else MAX_SHORT):
            scene = self.task.scene(self.rng)
            digest, where = place(self.task, scene)
            if where != self.split or (digest in self._seen and not self.may_repeat):
                continue
            path = None if length is None else self.task.path_target(scene, length, self.rng)
            if length is None or path is not None:
                self._seen.add(digest)
                return scene, digest, path
        task, split = self.task.name, self.split
        if length is not None:
            raise ValueError(
                f"no path of {length} moves came up in {MAX_SHORT:,} scenes of {task}; ask for shorter ones"
            )
        raise ValueError(
            f"task {task} has only {len(self._seen)} different scenes in split {split} within reach, "
            f"{self.wanted} were asked for; ask for fewer"
        )


def _sample(
    task: ProceduralTask,
    scene: Scene,
    target: Target,
    origin: dict[str, Any],
    rng: random.Random,
    sample_id: str,
    size: int,
) -> EditSample:
    is_question = origin["kind"] == "question"
    meta: dict[str, Any] = {
        "source": "procedural",
        "licence": "Apache-2.0",
        **origin,
        "instruction": task.instruction(scene, target),
        "target": target,
    }
    if is_question:
        ask = task.ask(scene, target, rng)
        meta["depth"] = task.depth(scene, target)
    else:  # an instruction has no answer; the field holds what was asked for
        ask = Ask(meta["instruction"], json.dumps(target, sort_keys=True), "text")
    return EditSample(
        id=sample_id,
        family=TASK_FAMILY[task.name],
        task=task.name,
        image=task.source(scene, target, size),
        question=ask.question,
        answer=ask.answer,
        choices=ask.choices,
        edit_image=task.edit(scene, target, size),
        meta={**meta, "answer_type": ask.answer_type, **ask.meta},
    )
