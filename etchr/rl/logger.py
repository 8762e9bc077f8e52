"""What Stage II says about itself while it runs: rewards, ratios, times, and pictures with their scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from etchr.rl.rollout import Group
from etchr.rl.scores import Scores
from etchr.run_folder import write_atomically
from etchr.runtime import Runtime
from etchr.training.metrics_logger import MetricsLogger
from etchr.training.pictures import chart, even, sheet
from etchr.training.run import Run

NUM_GROUPS_SHOWN = 6


@dataclass
class Moments:
    """What the updates of one iteration did, in this process."""

    num: int = 0  # edits with an advantage, times the parts of their loss
    norms: list[float] = field(default_factory=list)
    lr: float = 0.0

    def update(self, norm: float, lr: float) -> None:
        """Take note of an optimizer step."""
        self.norms.append(norm)
        self.lr = lr

    def values(self, runtime: Runtime) -> dict[str, float]:
        """Over all processes."""
        (num,) = runtime.sum(self.num)
        values = {"num_updates": float(len(self.norms)), "edit_steps_trained": num}
        if self.norms:
            values |= {"grad_norm": sum(self.norms) / len(self.norms), "lr": self.lr}
        return values


class RlLogger(MetricsLogger):
    """The lines of Stage II, one per iteration."""

    def __init__(self, run: Run, start: int) -> None:
        super().__init__(run, start)
        self.config, self.runtime = run.config, run.runtime

    def has_validation(self, step: int) -> bool:
        """Whether a run that goes on has already looked at the held-out prompts after `step` iterations."""
        return any(line["step"] == step and "val_reward" in line for line in self.kept)

    def best(self) -> float:
        """The best validation reward so far, among those of enough scored edits."""
        limit = self.config.reward.max_missing
        seen = [line for line in self.kept if "val_reward" in line and line["val_missing_share"] <= limit]
        return max((line["val_reward"] for line in seen), default=float("-inf"))

    def write(self, step: int, values: dict[str, float], page: Image.Image | None = None, name: str = "") -> None:
        """See `MetricsLogger.write`; the line counts for `best` from now on."""
        super().write(step, values, page, name)
        self.kept.append({"step": step, **values})

    def close(self) -> None:
        """Draw the curves of the whole run, then close."""
        page = reward_chart(self.kept) if self.is_main else None
        if page is not None:
            write_atomically(self.folder / "rewards.png", page)
        super().close()

    def iteration(self, step: int, scores: Scores, values: dict[str, float], groups: Sequence[Group]) -> None:
        """One line, and at intervals a sheet of sampled edits; `values` holds the parts of the time as seconds_*."""
        values = scores.summary() | values
        values["seconds"] = sum(value for name, value in values.items() if name.startswith("seconds_"))
        values["peak_memory_gb"] = self.runtime.peak_memory_gb()
        page = None
        every = self.config.pictures_every
        if every and (step % every == 0 or step == 1) and self.is_main:
            page = rollout_sheet(groups, scores)
        self.write(step, values, page, "rollout")


def reward_chart(lines: Sequence[dict[str, float]]) -> bytes | None:
    """PNG: the training reward as a mean over a tenth of the run, and the validation's measures; None before any."""
    rewards = [(line["step"], line["reward"]) for line in lines if "reward" in line]
    width = max(len(rewards) // 10, 1)
    blocks = [rewards[start : start + width] for start in range(0, len(rewards), width)]
    curves = {"training reward": [(block[-1][0], sum(y for _, y in block) / len(block)) for block in blocks]}
    for name in ("val_reward", "val_pass_at_1", "val_correctness"):
        curves[name] = [(line["step"], line[name]) for line in lines if name in line]
    curves = {name: curve for name, curve in curves.items() if curve}
    return chart("over iterations", curves) if curves else None


def rollout_sheet(groups: Sequence[Group], scores: Scores) -> Image.Image:
    """Source and sampled edits of a few groups, with reward, guidance and correctness of every edit."""
    order = even([group.prompt.sample.task for group in groups], NUM_GROUPS_SHOWN)
    rows = []
    for group in (groups[index] for index in order):
        sample = group.prompt.sample
        rows.append((f"{sample.question}   {scores.words(group)}", [group.prompt.source, *group.edits]))
    return sheet(["source", *(f"edit {number}" for number in range(len(groups[0].edits)))], rows)
