"""What an edit can be rewarded for: each reward under the name that `kind=` takes. Loads without torch.

R = alpha r_guide + (1 - alpha) r_correct has two places, `guidance` and `correctness`; `guidance.kind` and
`correctness.kind` say which reward stands in each.
"""

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from etchr.mllm.protocol import MLLM
    from etchr.rewards.settings import RewardConfig
    from etchr.sample import EditSample

    # (model, sample, edit, config, seed) -> a value in 0..1; `CallFailed` leaves the edit without a score
    Reward = Callable[[MLLM, EditSample, Image, RewardConfig, int], Awaitable[float]]

REWARDS = {  # kind: module and function
    "guidance": "etchr.rewards.guidance:guidance",
    "correctness": "etchr.rewards.correctness:correctness",
}


def find(kind: str) -> "Reward":
    """The reward of that name."""
    module, name = REWARDS[kind].split(":")
    found: Reward = getattr(import_module(module), name)
    return found
