"""Fakes with the real interfaces: questions about plain pictures, a model that replies from a table, an editor that
draws what a table says."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from etchr.families import TASK_FAMILY
from etchr.mllm.prompts import answer_prompt, verify_prompt
from etchr.mllm.protocol import GREEDY, Reply
from etchr.sample import EditSample, write_parquet

ACCEPT, REJECT, MUMBLE = "Good. \\boxed{1}", "Bad. \\boxed{0}", "Hm."


@dataclass(frozen=True)
class Case:
    """A question and all that happens to it; a reply that is an exception is raised."""

    task: str
    key: str
    source: str | Exception = "\\boxed{7}"  # what the model answers from the source; 7 is right
    edited: str | Exception = "\\boxed{7}"  # and from source and edit
    verdict: str | Exception = ACCEPT
    draws: str | Exception = "right"  # right: the ground truth; wrong: the source

    @property
    def question(self) -> str:
        return f"What is the number of {self.task} {self.key}?"

    @property
    def id(self) -> str:
        return f"{self.task}-{self.key}"

    def sample(self) -> EditSample:
        image = Image.new("RGB", (64, 64), "white")
        edit = image.copy()
        edit.paste("red", (8, 8, 40, 40))
        return EditSample(
            self.id, TASK_FAMILY[self.task], self.task, image, self.question, "7", None, edit, {"answer_type": "number"}
        )


def write_data(cases: Iterable[Case], folder: Path) -> Path:
    """The cases' samples as `<folder>/<task>/test.parquet`."""
    by_task: dict[str, list[EditSample]] = {}
    for case in cases:
        by_task.setdefault(case.task, []).append(case.sample())
    for task, samples in by_task.items():
        write_parquet(samples, folder / task / "test.parquet")
    return folder


def write_editor(folder: Path) -> Path:
    """A folder that passes for a klein until somebody loads it."""
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Flux2KleinPipeline"}))
    return folder


class TableModel:
    """A model that knows the cases' prompts word for word and remembers what it was asked."""

    name = "table"

    def __init__(self, cases: Iterable[Case]) -> None:
        self.asked: list[tuple[str, str]] = []  # (step, sample id)
        self.replies: dict[str, tuple[str, str, str | Exception]] = {}
        for case in cases:
            for step, prompt, reply in (
                ("verify", verify_prompt(case.question, None), case.verdict),
                ("source", answer_prompt(case.question, None, "number", with_edit=False), case.source),
                ("edited", answer_prompt(case.question, None, "number", with_edit=True), case.edited),
            ):
                self.replies[prompt] = step, case.id, reply

    async def chat(self, messages, sampling=GREEDY):
        parts = messages[0]["content"]
        step, key, reply = self.replies[next(part["text"] for part in parts if part["type"] == "text")]
        assert sum(part["type"] == "image" for part in parts) == (1 if step == "source" else 2)
        self.asked.append((step, key))
        await self.think(key)
        if isinstance(reply, Exception):
            raise reply
        return [Reply(reply)]

    async def think(self, key: str) -> None:
        """What a call waits for."""
        await asyncio.sleep(0)


class TableEditor:
    """An editor that draws what the cases say."""

    name = "table-editor"

    def __init__(self, cases: Iterable[Case]) -> None:
        self.cases = list(cases)
        self.drawn: list[str] = []

    def fitted_size(self, image):
        return image.size

    def edit(self, images, prompts, seeds):
        edits = []
        for image, prompt in zip(images, prompts, strict=True):
            case = next(case for case in self.cases if prompt.endswith(case.question))
            self.drawn.append(case.id)
            if isinstance(case.draws, Exception):
                raise case.draws
            edits.append(case.sample().edit_image if case.draws == "right" else image)
        return edits
