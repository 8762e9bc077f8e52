"""What an answer is worth, and the model that says so where rules cannot.

A judge that fails or says nothing readable leaves the sample *unscored*. That is never the same as a wrong answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from etchr.mllm.answers import ground_truth
from etchr.mllm.prompts import grade_prompt
from etchr.mllm.protocol import MLLM, CallFailed, Reply, Sampling, user_message
from etchr.mllm.verdict import Verdict, parse_verdict
from etchr.sample import EditSample
from evaluation.settings import JUDGE_TOKENS

RETRIES = 2  # times that a reply without a verdict is asked for again, at a temperature
RETRY_TEMPERATURE = 0.7


@dataclass(frozen=True)
class Outcome:
    """What an answer is worth."""

    correct: bool | None  # by the benchmark's main rule; None: it could not be scored
    parts: dict[str, bool] = field(default_factory=dict)  # by its other rules
    judged: str | None = None  # what a judge said
    why: str | None = None  # it could not be scored


def boxed(reply: str) -> bool | None:
    """The verdict in a reply, as for edits; None without one."""
    verdict = parse_verdict(reply)
    return None if verdict is Verdict.UNPARSABLE else verdict is Verdict.ACCEPTED


@dataclass(frozen=True)
class Judge:
    """A model that grades texts, through the same protocol as every other model."""

    model: MLLM
    max_tokens: int = JUDGE_TOKENS
    seed: int | None = None

    async def compare(self, sample: EditSample, answer: str) -> Outcome:
        """Whether an answer means the same as the sample's own."""
        return await self.verdict(grade_prompt(sample.question, sample.choices, ground_truth(sample), answer))

    async def verdict(self, prompt: str, read: Callable[[str], bool | None] = boxed) -> Outcome:
        """The outcome of a prompt that asks for \\boxed{1} or \\boxed{0}, or for what `read` finds in a reply."""
        for attempt in range(RETRIES + 1):
            try:
                reply = await self._reply(prompt, attempt)
            except CallFailed as error:
                return Outcome(None, why=f"the judge failed: {error}")
            right = read(reply.text)
            if right is not None:
                return Outcome(right, judged=reply.text)
        cut = f", cut off at judge_max_tokens={self.max_tokens}" if reply.finish_reason == "length" else ""
        why = f"the judge {self.model.name} gave no verdict in {reply.text[-60:]!a}{cut}"
        return Outcome(None, judged=reply.text, why=why)

    async def _reply(self, prompt: str, attempt: int) -> Reply:
        """What the judge says: at temperature 0 first, and when it is asked again at another; raises `CallFailed`."""
        temperature, seed = RETRY_TEMPERATURE if attempt else 0.0, None if self.seed is None else self.seed + attempt
        replies = await self.model.chat([user_message(prompt)], Sampling(temperature, self.max_tokens, seed))
        return replies[0]
