"""The one grader of answers: rules first, a model's word where they cannot decide, missing where neither can.

The guidance reward, the filter of the RL set and the tables of the evaluation all grade here. A judge that fails, is
cut off or says nothing readable leaves the answer *without a grade*: that is never the same as a wrong answer.
"""

import asyncio
import hashlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated

from etchr.checks import OneOf
from etchr.mllm.answers import answer_type, ground_truth, is_correct
from etchr.mllm.prompts import grade_prompt
from etchr.mllm.protocol import MLLM, CallFailed, Sampling, user_message
from etchr.mllm.verdict import accepts
from etchr.sample import EditSample

Grader = Annotated[str, OneOf("auto", "rules", "text", "model")]  # see `grade`
RETRIES = 2  # times that a reply without a verdict is asked for again, at a temperature
RETRY_TEMPERATURE = 0.7
JUDGE_TOKENS = 1024  # of a judge's reply, unless an option says otherwise


@dataclass(frozen=True)
class Grade:
    """What an answer is worth."""

    right: bool | None  # None: missing, it could not be graded
    parts: dict[str, bool] = field(default_factory=dict)  # by the other rules of a benchmark
    said: str | None = None  # by a judge
    why: str | None = None  # it is missing


def grader_version() -> str:
    """A digest of all code that reads and grades replies: a run notes it, for another grader gives other scores."""
    from etchr import choices
    from etchr.mllm import answers, judge, markup, numerals, verdict

    modules = (answers, choices, judge, markup, numerals, verdict)
    return hashlib.sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Judge:
    """A model that grades texts, without pictures."""

    model: MLLM
    max_tokens: int = JUDGE_TOKENS  # of a reply; one that is cut off there was not given
    seed: int | None = None
    option: str = "max_tokens"  # as the user calls it

    async def verdict(self, prompt: str, read: Callable[[str], bool | None] = accepts) -> Grade:
        """The grade that a prompt asks for with \\boxed{1} or \\boxed{0}, or by what `read` finds in a reply.

        At temperature 0 first; a reply that `read` cannot use is asked for again up to `RETRIES` times at another. A
        failed call is not repeated, for the client has done its own retrying.
        """
        for attempt in range(RETRIES + 1):
            seed = None if self.seed is None else self.seed + attempt
            sampling = Sampling(RETRY_TEMPERATURE if attempt else 0.0, self.max_tokens, seed)
            try:
                reply, *_ = await self.model.chat([user_message(prompt)], sampling)
            except CallFailed as error:
                return Grade(None, why=f"the judge failed: {error}")
            is_cut = reply.finish_reason == "length"
            if not is_cut and (right := read(reply.text)) is not None:
                return Grade(right, said=reply.text)
        cut = f", cut off at {self.option}={self.max_tokens}" if is_cut else ""
        why = f"the judge {self.model.name} gave no verdict in {reply.text[-60:]!a}{cut}"
        return Grade(None, said=reply.text, why=why)


async def grade(answer: str | None, sample: EditSample, judge: Judge | None, how: str = "auto") -> Grade:
    """What an extracted answer is worth, None being an answer that could not be found: it is wrong.

    `how` names who decides: `auto` the rules, and the judge of free text that they find different from the truth;
    `rules` they alone; `text` the judge of all free text, the rules of the rest (the paper's guidance reward); `model`
    the judge of everything (the released one). Without a judge the rules decide. `ValueError` if the sample's own
    answer cannot be read.
    """
    if answer is None or judge is None or not may_ask(sample, how):
        return Grade(is_correct(answer, sample))
    if how == "auto" and is_correct(answer, sample):
        return Grade(True)
    return await judge.verdict(grade_prompt(sample.question, sample.choices, ground_truth(sample), answer))


def may_ask(sample: EditSample, how: str) -> bool:
    """Whether `grade` may call the judge about answers to a sample."""
    return how == "model" or (how != "rules" and answer_type(sample) == "text")


async def grade_all(
    answers: Iterable[str | None], sample: EditSample, judge: Judge | None, how: str = "auto"
) -> dict[str | None, Grade]:
    """Of every different answer its grade; the judge is asked side by side, of equal ones once."""
    different = list(dict.fromkeys(answers))
    grades = await asyncio.gather(*(grade(answer, sample, judge, how) for answer in different))
    return dict(zip(different, grades, strict=True))
