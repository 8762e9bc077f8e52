"""The scores of a rollout as they come in, and what is learned from them: the advantages."""

import logging
import time
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from etchr.rewards.score import Score
from etchr.rl.advantage import advantages, combined_reward, varied, win_rates
from etchr.rl.rollout import Batch, Group
from etchr.rl.settings import RlConfig
from etchr.runtime import Runtime

log = logging.getLogger(__name__)


@dataclass
class Scores:
    """The two rewards (P, G) of a rollout, fp64; NaN where missing. Each process knows its own groups until `share`."""

    config: RlConfig
    runtime: Runtime
    groups: list[Group]
    seconds: float = 0.0  # spent waiting
    reasons: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        shape = (2, self.config.prompts_per_iteration, self.config.group_size)
        self._values = torch.zeros(shape, dtype=torch.float64)
        self._known: dict[int, Tensor] = {}  # advantages (G,) by the group's place
        self._come: set[int] = set()  # places of the groups whose scores are in `_values`
        self._by_prompt = {id(group.prompt): group for group in self.groups}
        self._shared = self.runtime.num_processes == 1

    def advantage(self, batch: Batch) -> Tensor:
        """The advantage (B,) of a batch's edits, 0 where an edit has none; waits for the scores that it needs."""
        group = self._by_prompt[id(batch.prompt)]
        if group.place not in self._known:
            if self.config.objective.advantage == "gdpo":  # normalised over the whole batch
                self.share()
                self._know(range(self._values.shape[1]))
            else:
                self._wait(group)
                self._know([group.place])
        return self._known[group.place][batch.members]

    def share(self) -> None:
        """Wait for all scores and exchange them between the processes."""
        for group in self.groups:
            self._wait(group)
        if not self._shared:  # once: what is shared must not be summed again
            self._values = torch.tensor(self.runtime.sum(*self._values.flatten().tolist())).view_as(self._values)
            self._shared = True

    def _know(self, places: "range | list[int]") -> None:
        objective = self.config.objective
        guidance, correctness = self._values[:, list(places)]
        alpha, name = self.config.reward.guidance_weight, objective.advantage
        rows = advantages(name, guidance, correctness, alpha, objective.ties, objective.margin)
        rows = rows.nan_to_num(0.0).clamp(-objective.max_advantage, objective.max_advantage).float()
        self._known.update(zip(places, rows, strict=True))

    def _wait(self, group: Group) -> None:
        if group.place in self._come:
            return
        self._come.add(group.place)
        begin = time.perf_counter()
        scores = [future.result() for future in group.scores]
        self.seconds += time.perf_counter() - begin
        for member, score in enumerate(scores):
            if score.missing is not None:
                self.reasons[score.missing] += 1
                log.warning("an edit of %s has no score: %s", group.prompt.sample.id, score.missing)
            self._values[:, group.place, member] = torch.tensor(_parts(score), dtype=torch.float64)

    def missing_at_most(self) -> float:
        """The share of the rollout's edits that are without a score if all that are on their way do not come."""
        come = [score.result() for group in self.groups for score in group.scores if score.done()]
        (present,) = self.runtime.sum(float(sum(score.missing is None for score in come)))
        return 1 - present / self._values[0].numel()

    def missing_share(self) -> float:
        """The share of the rollout's edits without a score; call after `share`."""
        return float(self._values.isnan().any(0).double().mean())

    def reason(self) -> str:
        """The most frequent reason for a missing score in this process."""
        return self.reasons.most_common(1)[0][0] if self.reasons else "see the log of the other processes"

    def words(self, group: Group) -> str:
        """The rewards of a group's edits for a caption: R, and in brackets guidance and correctness."""
        alpha = self.config.reward.guidance_weight
        pairs = self._values[:, group.place].T.tolist()
        return "  ".join(
            "missing" if g != g else f"{alpha * g + (1 - alpha) * c:.2g} ({g:.2g}+{c:.2g})" for g, c in pairs
        )

    def summary(self) -> dict[str, float]:
        """What the log says of a rollout's scores; call after `share`."""
        guidance, correctness = self._values
        alpha, objective = self.config.reward.guidance_weight, self.config.objective
        reward = combined_reward(guidance, correctness, alpha)
        rates = win_rates(reward, objective.ties, objective.margin)
        present = ~reward.isnan()
        usable = present.sum(1) > 1
        values = {"missing_share": 1 - float(present.double().mean()), "dropped_groups": float((~usable).sum())}
        if present.any():
            values |= {
                "reward": float(reward[present].mean()),
                "reward_std": float(reward[present].std(unbiased=False)),
                "best_of_group": float(reward.nan_to_num(-1.0).amax(1)[present.any(1)].mean()),
                "zero_variance_share": float((~varied(rates))[usable].double().mean()) if usable.any() else 1.0,
            }
            for name, part, weight in (("guidance", guidance, alpha), ("correctness", correctness, 1 - alpha)):
                if weight:  # one that has none was not asked for
                    values[name] = float(part[present].mean())
                    values[f"{name}_std"] = float(part[present].std(unbiased=False))
        if usable.any():
            values["win_rate_std"] = float(rates[usable].nan_to_num(0.5).std(1).mean())
        return values


def _parts(score: Score) -> tuple[float, float]:
    """(guidance, correctness); a reward that is not asked for has no weight, so its value does not matter."""
    if score.missing is not None:
        return float("nan"), float("nan")
    return score.guidance or 0.0, score.correctness or 0.0
