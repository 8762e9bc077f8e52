"""The correctness reward: the share of the judge J's decodings that find the edit right, without solving the task."""

from collections.abc import Sequence

from PIL import Image

from etchr.mllm.prompts import judge_prompt, short_judge_prompt
from etchr.mllm.protocol import MLLM, Reply, user_message
from etchr.mllm.verdict import NEGATIVE, POSITIVE, accepts
from etchr.rewards.decodings import dense_value, mean_value, tail
from etchr.rewards.settings import RewardConfig
from etchr.sample import EditSample


async def correctness(judge: MLLM, sample: EditSample, edit: Image.Image, config: RewardConfig, seed: int) -> float:
    """r_correct in 0..1. `CallFailed` if the edit has no score, `ValueError` if the view lacks a ground-truth edit."""
    view = config.correctness.view
    images = [edit] if view == "edit" else [sample.image, edit]
    if view == "truth":
        if sample.edit_image is None:
            raise ValueError(f"sample {sample.id!r} has no ground-truth edit to show; set correctness.view=both")
        images.append(sample.edit_image)
    if config.prompts == "released":
        message = user_message(short_judge_prompt(sample.family, sample.question), *images)
        return await mean_value(judge, message, _bare_verdicts, config, seed)
    prompt = judge_prompt(sample.task, sample.family, sample.question, sample.choices, view)
    message = user_message(prompt, *images)
    if config.correctness.dense:
        return await dense_value(judge, message, POSITIVE, NEGATIVE, config, seed)
    return await mean_value(judge, message, _verdicts, config, seed)


async def _bare_verdicts(replies: Sequence[Reply]) -> list[float | str]:
    """1 for a reply that is exactly `1`; whatever else it says is 0, as in the released code."""
    return [float(reply.text.strip() == "1") for reply in replies]


async def _verdicts(replies: Sequence[Reply]) -> list[float | str]:
    return [verdict_value(reply) for reply in replies]


def verdict_value(reply: Reply) -> float | str:
    """1 or 0, or why the reply is neither."""
    accepted = accepts(reply.text)
    return f"no verdict in {tail(reply)}" if accepted is None else float(accepted)
