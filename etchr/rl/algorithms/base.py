"""What an RL algorithm is: how the edits of a rollout are sampled, and the loss of those that were."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from etchr.rl.rollout import Batch, Sampler, StepPlan
from etchr.rl.settings import RlConfig
from etchr.runtime import Runtime


class Algorithm(ABC):
    """One way to learn from rewarded edits; `Trainer.accumulate` is the loop that calls it."""

    def __init__(self, config: RlConfig, sampler: Sampler, parameters: Sequence[nn.Parameter]) -> None:
        self.config, self.sampler, self.parameters = config, sampler, parameters

    @abstractmethod
    def plan(self, num_steps: int, seed: int) -> StepPlan:
        """How the edits of one group are sampled in `num_steps` denoising steps."""

    @abstractmethod
    def prepare(self) -> None:
        """What is needed before an iteration's rollout; statistics start anew."""

    @abstractmethod
    def num_turns(self, batch: Batch) -> int:
        """How many parts the loss of a batch has, each with a backward pass of its own."""

    @abstractmethod
    def loss(self, batch: Batch, turn: int, advantage: Tensor, iteration: int, is_first: bool) -> Tensor:
        """The loss (B,) of each edit in one part; `is_first`: no update was made since the rollout.

        Edits without an advantage (0) are left out by the caller, of the loss and of the counts alike.
        """

    @abstractmethod
    def stats(self, runtime: Runtime) -> dict[str, float]:
        """What the losses since `prepare` say, over all processes; every process must ask."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """The options in use, for the model card."""


class Means:
    """Means of some quantities over the edits that count."""

    def __init__(self, *names: str) -> None:
        self._num, self._sums = 0, dict.fromkeys(names, 0.0)

    def note(self, counts: Tensor, **values: Tensor) -> None:
        """Take note of a quantity's values (B,), where `counts` (B,) is true."""
        self._num += int(counts.sum())
        for name, value in values.items():
            self._sums[name] += float(value[counts].detach().sum())

    def values(self, runtime: Runtime) -> dict[str, float]:
        """The means over all processes; none where nothing counted."""
        num, *sums = runtime.sum(self._num, *self._sums.values())
        return {name: total / num for name, total in zip(self._sums, sums, strict=True)} if num else {}
