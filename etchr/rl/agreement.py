"""How far independent rollouts on the same prompts agree on the gradient: `python -m etchr.rl.agreement`.

The signal-to-noise ratio of an objective, before any training: the cosine between the first gradients of several
rollouts that differ in their noise alone. Near 0 an update is mostly chance.
"""

import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from etchr.config import compose, parse_command
from etchr.rewards.pool import RewardPool
from etchr.rewards.score import EditRewards
from etchr.rl.inputs import read_inputs
from etchr.rl.logger import Moments
from etchr.rl.policy import build_policy
from etchr.rl.scores import Scores
from etchr.rl.settings import RlConfig
from etchr.rl.trainer import RlTrainer
from etchr.runtime import Runtime
from etchr.training.run import Run


@dataclass
class AgreementConfig:
    """Options of `python -m etchr.rl.agreement`."""

    preset: str = "nano_rl"  # experiment of python -m etchr.rl whose objective is measured
    change: list[str] = field(default_factory=list)  # options of python -m etchr.rl that replace its own
    rollouts: int = 4  # on the prompts of the first iteration

    def __post_init__(self) -> None:
        if self.rollouts < 2:
            raise ValueError(f"rollouts={self.rollouts} must be at least 2")


def gradients(options: RlConfig, rollouts: int) -> list[list[Tensor]]:
    """The gradients of every adapter matrix that has one, for each rollout on one set of prompts."""
    runtime = Runtime(options.device, options.model.dtype, options.adapter.needs_autocast, options.threads)
    inputs = read_inputs(options, runtime)
    found = []
    with RewardPool(EditRewards.from_config(options.reward)) as pool, tempfile.TemporaryDirectory() as folder:
        state = build_policy(options, runtime, inputs.base)
        state.editor.transformer.eval()
        trainer = RlTrainer(options, Run(options, runtime, inputs, Path(folder)), state, pool)
        for number in range(rollouts):
            state.optimizer.zero_grad()
            trainer.algorithm.prepare()
            groups = trainer.sample(number, inputs.plan.batch(0))
            trainer.accumulate(number, 0, groups, Scores(options, runtime, groups), Moments())
            found.append([p.grad.clone() for p in state.parameters if p.grad is not None and p.grad.any()])
    return found


def agreement(found: Sequence[Sequence[Tensor]], view: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """The mean cosine over all pairs of rollouts, and its standard error."""
    flat = [torch.cat([view(part).flatten() for part in parts]) for parts in found]
    cosines = [float(torch.cosine_similarity(a, b, 0)) for a, b in itertools.combinations(flat, 2)]
    spread = statistics.pstdev(cosines) / len(cosines) ** 0.5
    return statistics.mean(cosines), spread


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix with singular values 1, which is what Muon steps along."""
    left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    nearest: Tensor = left @ right
    return nearest.float()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; exits with one sentence when something is wrong."""
    config = parse_command(
        AgreementConfig,
        config_name=None,
        argv=sys.argv[1:] if argv is None else argv,
        prog="python -m etchr.rl.agreement",
        description="The cosine between the first gradients of rollouts that differ in their noise alone.",
    )
    words = [f"experiment={config.preset}", "updates_per_iteration=1", "validation.every=0", *config.change]
    try:
        found = gradients(compose(RlConfig, "rl", words), config.rollouts)
        print("gradients as they are: cosine {:.3f} +- {:.3f}".format(*agreement(found, Tensor.clone)))
        print("orthogonalised: cosine {:.3f} +- {:.3f}".format(*agreement(found, orthogonalised)))
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
