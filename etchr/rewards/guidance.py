"""The guidance reward: the share of M's decodings that answer the question right when M is given the edit."""

import asyncio
from collections.abc import Sequence

from PIL import Image

from etchr.mllm.answers import answer_type, extract_answer, ground_truth, is_correct
from etchr.mllm.prompts import answer_prompt, grade_prompt
from etchr.mllm.protocol import MLLM, CallFailed, Reply, Sampling, user_message
from etchr.rewards.correctness import verdict_value
from etchr.rewards.decodings import SEED_LIMIT, dense_value, mean_value, tail
from etchr.rewards.settings import RewardConfig
from etchr.sample import EditSample
from etchr.seeds import hash_seed


async def guidance(reasoner: MLLM, sample: EditSample, edit: Image.Image, config: RewardConfig, seed: int) -> float:
    """r_guide in 0..1. `CallFailed` if the edit has no score, `ValueError` if the sample's own answer is unreadable."""
    kind = answer_type(sample)
    truth = ground_truth(sample)
    both = config.guidance.view == "both"
    prompt = answer_prompt(sample.question, sample.choices, kind, with_edit=both)
    message = user_message(prompt, *([sample.image, edit] if both else [edit]))
    if config.guidance.dense and kind == "option" and sample.choices:
        letters = {chr(ord("A") + index) for index in range(len(sample.choices))}
        return await dense_value(reasoner, message, {truth}, letters - {truth}, config, seed)
    grader = _Grader(reasoner, sample, truth, config, seed)

    async def read(replies: Sequence[Reply]) -> list[float | str]:
        return await asyncio.gather(*(grader.grade(reply) for reply in replies))

    return await mean_value(reasoner, message, read, config, seed)


class _Grader:
    """Says of the replies to one edit whether they are right; of equal answers it asks the model once."""

    def __init__(self, reasoner: MLLM, sample: EditSample, truth: str, config: RewardConfig, seed: int) -> None:
        self.reasoner, self.sample, self.truth, self.config, self.seed = reasoner, sample, truth, config, seed
        self.kind = answer_type(sample)
        how = config.guidance.grade
        self.by_model = how == "model" or (how == "auto" and self.kind == "text")
        self._asked: dict[str, asyncio.Task[float | str]] = {}

    async def grade(self, reply: Reply) -> float | str:
        """1 or 0, or why the reply is neither: it holds no answer, or its answer could not be graded."""
        answer = extract_answer(reply.text, self.kind, self.sample.choices)
        if answer is None:
            return f"no {self.kind} answer in {tail(reply)}"
        if not self.by_model:
            return float(is_correct(answer, self.sample))
        if answer not in self._asked:
            self._asked[answer] = asyncio.create_task(self._ask(answer))
        return await self._asked[answer]

    async def _ask(self, answer: str) -> float | str:
        prompt = grade_prompt(self.sample.question, self.sample.choices, self.truth, answer)
        seed, limit = hash_seed(self.seed) % SEED_LIMIT, self.config.max_tokens
        try:
            replies = await self.reasoner.chat([user_message(prompt)], Sampling(max_tokens=limit, seed=seed))
        except CallFailed as error:
            return f"an answer could not be graded: {error}"
        if replies[0].finish_reason == "length":
            return f"a grade was cut off at max_tokens={limit}"
        return verdict_value(replies[0])
