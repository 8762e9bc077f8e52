"""From a trace to a record: scored, as JSON, with its pictures in files of their own."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from PIL import Image

from etchr.evr import Trace, Usage
from etchr.images import open_image
from etchr.mllm.judge import Judge
from etchr.mllm.prompts import judge_prompt
from etchr.mllm.protocol import GREEDY, MLLM, CallFailed, Message, Reply, Sampling, user_message
from etchr.mllm.verdict import accepts
from etchr.sample import EditSample
from evaluation.benchmarks.benchmark import Benchmark
from evaluation.edit_check import edit_matches
from evaluation.records import EvalFolder, Record
from evaluation.systems.base import FullTrace

STEPS = {field.name for field in fields(Trace)} - {
    "proposal",
    "attempts",
    "usage",
    "unscored",
}  # that a record has as they are


@dataclass(frozen=True)
class Recorder:
    """What makes the records of a run."""

    folder: EvalFolder
    digests: dict[str, str]  # of the samples, by id
    judge: Judge | None  # of answers
    edit_judge: MLLM | None
    seed: int
    max_tokens: int = 4096  # of a reply of the edit judge

    async def record(
        self, system: str, benchmark: Benchmark, sample: EditSample, repeat: int, trace: FullTrace
    ) -> Record:
        """The record of one sample's way through a system."""
        name = f"{sample.id}/{repeat}" if repeat else sample.id
        grading: dict[str, Usage] = {}  # what the judges take, by their names; no part of the system
        edit, more = await asyncio.to_thread(self._pictures, system, name, sample, trace)
        if edit is not None and trace.proposal is not None:
            edit |= await self._judged(sample, trace.proposal.image, grading)
        correct, parts, said, unscored = None, {}, None, trace.unscored
        if unscored is None:
            judge = self.judge and replace(self.judge, model=_Metered(self.judge.model, grading))
            grade = await benchmark.score(sample, trace.answer, judge, trace.answer_text)
            correct, parts, said, unscored = grade.right, grade.parts, grade.said, grade.why
        return {
            "system": system,
            "task": benchmark.name,
            "repeat": repeat,
            "sample": self.digests[sample.id],
            **{key: sample.meta.get(key) for key in ("cluster", "category", "path_length", "depth")},
            "chance": benchmark.chance(sample),
            **{name: getattr(trace, name) for name in sorted(STEPS)},
            "usage": {model: asdict(usage) for model, usage in trace.usage.items()},
            "judge_usage": {model: asdict(usage) for model, usage in grading.items()},
            "edit": edit,
            **more,
            "correct": correct,
            "parts": parts,
            "judged": said,
            "unscored": unscored,
        }

    async def judge_again(self, record: Record, sample: EditSample) -> Record:
        """A scored record whose edit is put to the edit judge again, because the call failed; nothing else is asked."""
        grading = {model: Usage(**counts) for model, counts in record["judge_usage"].items()}
        image = await asyncio.to_thread(open_image, self.folder.path / record["edit"]["file"])
        edit = record["edit"] | await self._judged(sample, image, grading)
        return record | {"edit": edit, "judge_usage": {model: asdict(usage) for model, usage in grading.items()}}

    async def _judged(self, sample: EditSample, edit: Image.Image, grading: dict[str, Usage]) -> dict[str, Any]:
        """Whether the edit judge finds an edit right (None without a judge or a verdict), and why its call failed."""
        if self.edit_judge is None:
            return {"judged": None, "judge_failed": None}
        asked, sources = (sample.task, sample.family, sample.question, sample.choices), sample.sources
        prompt = judge_prompt(*asked, "both", num_sources=len(sources))
        message, judge = user_message(prompt, *sources, edit), _Metered(self.edit_judge, grading)
        try:
            replies = await judge.chat([message], Sampling(max_tokens=self.max_tokens, seed=self.seed))
        except CallFailed as error:
            return {"judged": None, "judge_failed": str(error)}
        return {"judged": accepts(replies[0].text), "judge_failed": None}

    def _pictures(
        self, system: str, name: str, sample: EditSample, trace: FullTrace
    ) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The trace's edit; and what only some systems have: attempts, turns, the routed family."""
        save, proposal, edit = self.folder.save_picture, trace.proposal, None
        if proposal is not None:
            edit = {
                "editor": proposal.editor,
                "prompt": proposal.prompt,
                "seed": proposal.seed,
                "size": list(proposal.image.size),
                "file": save(system, name, proposal.image, proposal.file),
                "matches": None if sample.edit_image is None else edit_matches(proposal.image, sample.edit_image),
            }
        more: dict[str, Any] = {}
        for number, attempt in enumerate(trace.attempts):
            tried = attempt.proposal
            file = save(system, f"{name}/attempt {number}", tried.image, tried.file)
            said = {key: getattr(attempt, key) for key in ("verdict", "verdict_text", "score")}
            more.setdefault("attempts", []).append({"prompt": tried.prompt, "seed": tried.seed, **said, "file": file})
        for number, turn in enumerate(trace.turns):
            drawn = {} if turn.image is None else {"file": save(system, f"{name}/turn {number}", turn.image)}
            more.setdefault("turns", []).append({"role": turn.role, "text": turn.text, **drawn})
        if trace.routed is not None:
            family = trace.routed.family
            more["routed"] = {"family": family and str(family), "confidence": round(trace.routed.confidence, 4)}
        return edit, more


class _Metered:
    """A model whose calls are counted, by its name."""

    def __init__(self, model: MLLM, usage: dict[str, Usage]) -> None:
        self.name, self._model, self._usage = model.name, model, usage

    async def chat(self, messages: Sequence[Message], sampling: Sampling = GREEDY) -> list[Reply]:
        """See `protocol.MLLM`."""
        replies = await self._model.chat(messages, sampling)
        self._usage.setdefault(self.name, Usage()).add(replies)
        return replies
