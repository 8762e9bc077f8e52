"""The guidance reward: the share of M's decodings that answer the question right when M is given the edit."""

from collections.abc import Sequence

from PIL import Image

from etchr.mllm.answers import answer_type, extract_answer, ground_truth
from etchr.mllm.judge import Grade, Judge, grade_all
from etchr.mllm.prompts import answer_prompt, short_answer_prompt
from etchr.mllm.protocol import MLLM, Reply, user_message
from etchr.rewards.decodings import dense_value, mean_value, tail
from etchr.rewards.settings import RewardConfig
from etchr.sample import EditSample
from etchr.seeds import server_seed


async def guidance(reasoner: MLLM, sample: EditSample, edit: Image.Image, config: RewardConfig, seed: int) -> float:
    """r_guide in 0..1. `CallFailed` if the edit has no score, `ValueError` if the sample's own answer is unreadable."""
    kind = answer_type(sample)
    truth = ground_truth(sample)
    both = config.guidance.view == "both"
    is_short = config.prompts == "released"
    prompt = (
        short_answer_prompt(sample.question, sample.choices)
        if is_short
        else answer_prompt(sample.question, sample.choices, kind, with_edit=both)
    )
    message = user_message(prompt, *([sample.image, edit] if both else [edit]))
    if config.guidance.dense and kind == "option" and sample.choices:
        letters = {chr(ord("A") + index) for index in range(len(sample.choices))}
        return await dense_value(reasoner, message, {truth}, letters - {truth}, config, seed)
    judge = Judge(reasoner, config.max_tokens, server_seed(seed))
    grades: dict[
        str | None, Grade
    ] = {}  # of what was answered before: decodings that are asked for again may repeat it

    async def read(replies: Sequence[Reply]) -> list[float | str]:
        answers = [
            reply.text.strip() or None if is_short else extract_answer(reply.text, kind, sample.choices)
            for reply in replies
        ]
        new = [answer for answer in answers if answer is not None and answer not in grades]
        grades.update(await grade_all(new, sample, judge, config.guidance.grade))
        return [
            f"no {kind} answer in {tail(reply)}" if answer is None else _value(grades[answer])
            for reply, answer in zip(replies, answers, strict=True)
        ]

    return await mean_value(reasoner, message, read, config, seed)


def _value(grade: Grade) -> float | str:
    return f"an answer could not be graded: {grade.why}" if grade.right is None else float(grade.right)
