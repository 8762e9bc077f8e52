"""From a trace to a record: scored, as JSON, with its pictures in files of their own."""

import asyncio
from dataclasses import asdict, dataclass, fields
from typing import Any

from etchr.evr import Trace
from etchr.mllm.prompts import judge_prompt
from etchr.mllm.protocol import MLLM, CallFailed, user_message
from etchr.mllm.verdict import Verdict, parse_verdict
from etchr.sample import EditSample
from evaluation.benchmarks.benchmark import Benchmark
from evaluation.edit_check import edit_matches
from evaluation.records import Record, RunFolder
from evaluation.scoring import Judge
from evaluation.systems import FullTrace

STEPS = {field.name for field in fields(Trace)} - {"proposal", "usage", "unscored"}  # that a record has as they are


@dataclass(frozen=True)
class Recorder:
    """What makes the records of a run."""

    folder: RunFolder
    digests: dict[str, str]  # of the samples, by id
    judge: Judge | None  # of answers
    edit_judge: MLLM | None
    seed: int

    async def record(
        self, system: str, benchmark: Benchmark, sample: EditSample, repeat: int, trace: FullTrace
    ) -> Record:
        """The record of one sample's way through a system."""
        name = f"{sample.id}/{repeat}" if repeat else sample.id
        judged = await self._judged(sample, trace)
        edit, more = await asyncio.to_thread(self._pictures, system, name, sample, trace)
        if edit is not None:
            edit["judged"] = judged
        correct, parts, said, unscored = None, {}, None, trace.unscored
        if unscored is None:
            outcome = await benchmark.score(sample, trace.answer, self.judge, trace.answer_text)
            correct, parts, said, unscored = outcome.correct, outcome.parts, outcome.judged, outcome.why
        return {
            "system": system,
            "task": benchmark.name,
            "repeat": repeat,
            "sample": self.digests[sample.id],
            **{key: sample.meta.get(key) for key in ("cluster", "category", "path_length")},
            "chance": benchmark.chance(sample),
            **{name: getattr(trace, name) for name in sorted(STEPS)},
            "usage": {model: asdict(usage) for model, usage in trace.usage.items()},
            "edit": edit,
            **more,
            "correct": correct,
            "parts": parts,
            "judged": said,
            "unscored": unscored,
        }

    async def _judged(self, sample: EditSample, trace: FullTrace) -> bool | None:
        """Whether the edit judge finds the edit right; None without one, or where it gives no verdict."""
        if self.edit_judge is None or trace.proposal is None:
            return None
        prompt = judge_prompt(sample.task, sample.family, sample.question, sample.choices, "both")
        try:
            message = user_message(prompt, sample.image, trace.proposal.image)
            replies = await self.edit_judge.chat([message], seed=self.seed)
        except CallFailed:
            return None
        verdict = parse_verdict(replies[0].text)
        return None if verdict is Verdict.UNPARSABLE else verdict is Verdict.ACCEPTED

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
