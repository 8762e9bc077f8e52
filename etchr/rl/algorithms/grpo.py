"""Flow-GRPO: the clipped importance ratio over the steps of a stochastic sampler.

Which steps are stochastic and trained is `rollout.trained`; what the released code and GRPO-Guard do otherwise are
options.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from etchr.flow.steps import Transition, transition
from etchr.rl.algorithms.base import Algorithm, Means
from etchr.rl.policy import start_policy
from etchr.rl.rollout import Batch, StepPlan
from etchr.rl.settings import RolloutConfig
from etchr.runtime import Runtime


class Grpo(Algorithm):
    """The clipped objective of single denoising steps."""

    def plan(self, num_steps: int, seed: int) -> StepPlan:
        """See `plan_steps`."""
        return plan_steps(self.config.rollout, num_steps, self.config.group_size, seed)

    def prepare(self) -> None:
        """Nothing but the statistics: what the old policy did is kept with the rollout."""
        self._means = Means("kl", "ratio", "clip_share")
        self._least = self._most = 1.0
        self._first_error = 0.0  # largest |ratio - 1| before the first update: 0, or sampling and training disagree

    def num_turns(self, batch: Batch) -> int:
        """The trained steps of an edit."""
        return batch.trained.shape[1]

    def loss(self, batch: Batch, turn: int, advantage: Tensor, iteration: int, is_first: bool) -> Tensor:
        """Of one denoising step."""
        options, rollout, step = self.config.objective, self.config.rollout, batch.step(turn)

        def policy() -> Transition:
            velocity = self.sampler.velocity(step.x, step.sigma, batch.prompt)
            first = batch.prompt.sigmas[1]
            return transition(rollout.sde, step.x, velocity, step.sigma, step.next_sigma, first, rollout.eta)

        reference = None
        if options.kl:
            with torch.no_grad(), start_policy(self.sampler.editor.transformer):
                reference = policy().mean
        dt = (step.next_sigma - step.sigma).to(step.x.device)
        parts = grpo_loss(
            policy(),
            step.old_mean,
            step.x_next,
            advantage,
            clip=options.clip,
            clip_high=options.clip_high,
            normalise=options.normalise_ratio,
            dt=dt,
            reference_mean=reference,
            log_prob_error=step.log_prob_error if rollout.released_rounding else None,
        )
        self._note(parts, advantage != 0, is_first)
        kl = parts.kl / dt.abs() if options.normalise_ratio else parts.kl  # as the policy's part is
        return parts.policy + options.kl * kl

    def _note(self, parts: "GrpoLoss", counts: Tensor, is_first: bool) -> None:
        self._means.note(counts, kl=parts.kl, ratio=parts.ratio, clip_share=parts.clipped)
        if counts.any():
            ratio = parts.ratio[counts]
            self._least, self._most = min(self._least, float(ratio.min())), max(self._most, float(ratio.max()))
            if is_first:
                self._first_error = max(self._first_error, float((ratio - 1).abs().max()))

    def stats(self, runtime: Runtime) -> dict[str, float]:
        """Means of KL, ratio and clip, and the extremes of the ratio."""
        means = self._means.values(runtime)
        least, most, error = runtime.max(-self._least, self._most, self._first_error)
        return means | ({"ratio_min": -least, "ratio_max": most, "ratio_error_first": error} if means else {})

    def about(self) -> dict[str, Any]:
        """Objective and sampler."""
        objective, rollout = self.config.objective, self.config.rollout
        return {
            "objective": f"GRPO, clip {objective.clip:g}, ratio normalisation {objective.normalise_ratio}",
            "sampler": f"{rollout.sde}, eta {rollout.eta:g}, trained {rollout.trained}",
        }


# ------------------------------------------------------------------------------------------------------- formulas


class GrpoLoss(NamedTuple):
    """Each (B,), one value per edit of one denoising step."""

    policy: Tensor
    kl: Tensor
    ratio: Tensor
    clipped: Tensor  # bool: the clip took the gradient away


def log_ratio(new: Transition, old_mean: Tensor, x_next: Tensor, normalise: bool) -> Tensor:
    """log p_new(x') - log p_old(x') per element (B,), for two policies that differ in the mean only.

    With d = new mean - old mean it is mean((x' - old mean) d - d^2 / 2) / std^2, which is exactly 0 for d = 0 and loses
    no digits, unlike a difference of two log-probabilities. `normalise` is the ratio normalisation of GRPO-Guard
    (arXiv 2510.22319): (log ratio + mean(d^2) / (2 std^2)) * std, which leaves mean((x' - old mean) / std * d), for
    cps too.
    """
    shift = new.mean - old_mean
    surprise = x_next.float() - old_mean
    if normalise:
        return (surprise / new.std * shift).flatten(1).mean(1)
    products = (surprise * shift - shift**2 / 2).flatten(1).mean(1)
    return products / new.std.flatten() ** 2 if new.is_normal else 2 * products


def grpo_loss(
    new: Transition,
    old_mean: Tensor,
    x_next: Tensor,
    advantage: Tensor,
    *,
    clip: float,
    clip_high: float | None = None,
    normalise: bool = False,
    dt: Tensor | None = None,
    reference_mean: Tensor | None = None,
    log_prob_error: Tensor | None = None,
) -> GrpoLoss:
    """The clipped GRPO loss of one denoising step, x -> `x_next` (B, N, C), for `advantage` (B,).

    loss = max(-A ratio, -A clip(ratio, 1 - clip, 1 + clip_high)); with `normalise` divided by |dt| (B,), as GRPO-Guard
    does. KL to the reference policy: mean((new mean - reference mean)^2) / (2 std^2). `log_prob_error` (B,) is what
    rounding x' after its log-probability added to it, as the released code does; the first ratio then is not 1.
    """
    change = log_ratio(new, old_mean, x_next, normalise)
    if log_prob_error is not None:
        std = new.std.flatten()
        change = change + log_prob_error * ((std if new.is_normal else 1 / (2 * std)) if normalise else 1.0)
    ratio = torch.exp(change)
    bounded = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    free, held = -advantage * ratio, -advantage * bounded
    policy = torch.maximum(free, held)
    if normalise:
        assert dt is not None
        policy = policy / dt.abs()
    kl = torch.zeros_like(ratio)
    if reference_mean is not None:
        kl = ((new.mean - reference_mean) ** 2).flatten(1).mean(1) / (2 * new.std.flatten() ** 2)
    return GrpoLoss(policy, kl, ratio.detach(), (held > free).detach())


def plan_steps(config: RolloutConfig, num_steps: int, group_size: int, seed: int) -> StepPlan:
    """The steps of one group by `config.trained`; the last of the walk is never trained, and goes to the predicted x_0.

    The released code draws its last step with noise too, but decodes and scores the x_0 that this step predicts: what
    an ODE step to 0 gives.

    - `all`: every step but the last.
    - `fraction`: a random share of them, drawn for every edit, while all of them are stochastic (Pref-GRPO's released
      code).
    - `window`: consecutive ones within `window_range`, the same for the whole group; the others follow the ODE
      (MixGRPO, arXiv 2507.21802; Flow-GRPO-Fast).
    """
    generator = torch.Generator().manual_seed(seed)
    count = num_steps - 1
    if config.trained == "window":
        first = int(config.window_range[0] * count)
        last = min(max(int(config.window_range[1] * count), first + config.window), count)
        start = int(torch.randint(first, max(last - config.window, first) + 1, (1,), generator=generator))
        steps = torch.arange(start, min(start + config.window, count))
        return StepPlan([number in steps for number in range(num_steps)], steps.expand(group_size, -1))
    stochastic = [True] * count + [False]
    if config.trained == "all":
        return StepPlan(stochastic, torch.arange(count).expand(group_size, -1))
    drawn = [
        torch.randperm(count, generator=generator)[: max(int(count * config.fraction), 1)] for _ in range(group_size)
    ]
    return StepPlan(stochastic, torch.stack(drawn))
