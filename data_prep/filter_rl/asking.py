"""Asking the understanding model M what is not known of the candidates yet.

A question is put as Edit-Verify-Reason puts it (`etchr.evr`) and graded by the one grader (`etchr.mllm.judge`), whose
judge is M itself. A reply without a readable answer is wrong there and here. A call that failed gives no verdict.
"""

import asyncio
import bisect
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from data_prep.filter_rl import FilterConfig
from data_prep.filter_rl.verdicts import VIEWS, Candidate, Verdicts, ViewVerdict, question_prompt, with_source
from etchr.concurrent import for_each
from etchr.families import TaskFamily
from etchr.mllm.answers import answer_type, extract_answer
from etchr.mllm.judge import Judge, grade_all
from etchr.mllm.protocol import MLLM, CallFailed, Sampling, opened, user_message
from etchr.mllm.settings import ModelConfig
from etchr.pages import short
from etchr.sample import EditSample, from_row
from etchr.seeds import server_seed

HOPELESS = 40  # calls in a row that fail for the first time, after which the run stops

BuildModel = Callable[[ModelConfig], MLLM]


def sides(pair: tuple[ViewVerdict, ViewVerdict], config: FilterConfig) -> tuple[bool, bool]:
    """Whether M is right on the raw picture, and with the edit, as the thresholds say."""
    raw, edit = pair
    return raw.share > config.max_raw, edit.share >= config.min_edit


class Quotas:
    """How far the quotas are filled, for `stop_at_quota`: what is kept then does not depend on who answers first."""

    def __init__(self, candidates: Sequence[Candidate], verdicts: Verdicts, config: FilterConfig) -> None:
        self._verdicts, self._config = verdicts, config
        self._places: dict[TaskFamily, list[int]] = {}  # of what may be kept, ascending
        for candidate in candidates:
            self.note(candidate)

    def note(self, candidate: Candidate) -> None:
        """Take in a sample that may have its verdicts."""
        pair = self._verdicts.pair(candidate)
        if pair and sides(pair, self._config) == (False, True):
            bisect.insort(self._places.setdefault(candidate.family, []), candidate.place)

    def has_room(self, candidate: Candidate) -> bool:
        """Whether the sample may be kept: always, or with `stop_at_quota` if those before it do not fill its quota."""
        if not self._config.stop_at_quota or self._config.quota is None:
            return True
        return bisect.bisect_left(self._places.get(candidate.family, []), candidate.place) < self._config.quota


def ask_all(
    candidates: Sequence[Candidate], table: Any, verdicts: Verdicts, config: FilterConfig, build_model: BuildModel
) -> None:
    """Ask M what `verdicts` do not hold about the candidates, in their order; where all is held, M is not even opened.

    `ValueError` if M does not reply to anything, or to `HOPELESS` calls in a row that had never failed before.
    """
    asking = _Asking(table, verdicts, Quotas(candidates, verdicts, config), config)
    left = [each for each in candidates if not verdicts.is_decided(each) and asking.quotas.has_room(each)]
    if left:
        asyncio.run(asking.run(left, len(candidates), build_model))


class _Asking:
    def __init__(self, table: Any, verdicts: Verdicts, quotas: Quotas, config: FilterConfig) -> None:
        self.table, self.verdicts, self.quotas, self.config = table, verdicts, quotas, config
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # of keys: what is shared is asked once
        self.replies = self.silent = 0  # calls that gave a reply; calls in a row that failed for the first time
        self.reason = ""  # of the latest failed call

    async def run(self, left: list[Candidate], total: int, build_model: BuildModel) -> None:
        from tqdm import tqdm

        known = total - len(left)
        async with opened(build_model(self.config.reasoner)) as model:
            with tqdm(total=total, initial=known, desc="ask", unit="sample") as bar:
                for again in range(self.config.retries + 1):
                    before = self.replies
                    left = await self._round(model, left, bar)
                    if not left or (again and self.replies == before):
                        break
                    if not self.replies and not known:  # there is nothing to report on
                        raise self._hopeless()

    async def _round(self, model: MLLM, left: list[Candidate], bar: Any) -> list[Candidate]:
        """Ask about what is left, `concurrency` at a time; the samples that a call failed of, in their order."""
        failed: list[Candidate] = []

        async def ask(candidate: Candidate) -> None:
            if self.quotas.has_room(candidate) and not await self._sample(model, candidate):
                failed.append(candidate)
                bar.set_postfix(failed=len(failed), refresh=False)
                if self.silent >= HOPELESS:
                    raise self._hopeless()
            else:
                self.quotas.note(candidate)
                bar.update()

        await for_each(ask, left, self.config.concurrency)
        return sorted(failed, key=lambda candidate: candidate.place)

    async def _sample(self, model: MLLM, candidate: Candidate) -> bool:
        """Ask for the two views of a sample, side by side; whether no call failed."""
        try:
            sample = await asyncio.to_thread(from_row, self.table[candidate.row])
        except ValueError as error:  # its headers were whole, its pixels are not
            self.verdicts.put(candidate.keys["edit"], candidate.id, refused=short(error))
            return True
        return all(await asyncio.gather(*(self._view(model, candidate, sample, view) for view in VIEWS)))

    async def _view(self, model: MLLM, candidate: Candidate, sample: EditSample, view: str) -> bool:
        """Ask for one view unless its verdict is there; whether it is there now."""
        key = candidate.keys[view]
        async with self.locks[key]:
            if key in self.verdicts:
                return True
            try:
                seed = server_seed(self.config.seed, key)
                answers = await self._answers(model, sample, view, seed)
                judge = Judge(model, self.config.max_tokens, seed)
                grades = await grade_all(answers, sample, judge, self.config.grade)
                for grade in grades.values():
                    if grade.right is None:
                        raise CallFailed(f"an answer could not be graded: {grade.why}")
            except CallFailed as error:
                self.reason = short(error)
                if self.verdicts.lost(key) is None:  # one that failed before may well do so again
                    self.verdicts.put(key, candidate.id, view=view, failed=self.reason)
                    self.silent += 1
                return False
            self.replies, self.silent = self.replies + 1, 0
            right = sum(bool(grades[answer].right) for answer in answers)
            self.verdicts.put(key, candidate.id, view=view, right=right, answers=answers)
            return True

    async def _answers(self, model: MLLM, sample: EditSample, view: str, seed: int) -> list[str | None]:
        """What M answers, once for each decoding; raises `CallFailed`."""
        images = [sample.image] if view == "raw" or with_source(view, self.config) else []
        images += [sample.edit_image] if view == "edit" and sample.edit_image is not None else []
        count, kind = self.config.num_decodings, answer_type(sample)
        sampling = Sampling(self.config.temperature, self.config.max_tokens, seed, count)
        replies = await model.chat([user_message(question_prompt(sample, view, self.config), *images)], sampling)
        if len(replies) < count:
            raise CallFailed(f"{model.name} gave {len(replies)} of {count} replies")
        return [
            extract_answer(reply.text, kind, sample.choices, truncated=reply.finish_reason == "length")
            for reply in replies[:count]
        ]

    def _hopeless(self) -> ValueError:
        return ValueError(
            f"none of the last calls got a reply; the latest: {self.reason}. "
            f"Mend that and start the same command again; the verdicts in {self.config.out} are kept"
        )
