"""DiffusionNFT (arXiv 2509.16117): reinforcement on the forward process. No stochastic sampler, no likelihoods.

A rollout's clean latents x_0 are noised again, and the velocity is regressed towards (good edits) or away from (bad
ones) what would lead to them: the same quantity that Stage I trains, weighted by the advantage.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from etchr.flow.matching import interpolate, target_velocity
from etchr.flow.schedule import inference_mu, noise_levels
from etchr.rl.algorithms.base import Algorithm, Means
from etchr.rl.policy import copied, old_policy, start_policy
from etchr.rl.rollout import Batch, StepPlan, normal_noise
from etchr.runtime import Runtime
from etchr.seeds import hash_seed


class Nft(Algorithm):
    """Edits are sampled as at inference, and trained at `objective.num_levels` noise levels."""

    def plan(self, num_steps: int, seed: int) -> StepPlan:
        """The ODE; no step is kept."""
        return StepPlan([False] * num_steps, torch.zeros(self.config.group_size, 0, dtype=torch.long))

    def prepare(self) -> None:
        """Keep the policy that samples, where a later update is held against it; the first one is made from it."""
        self._means = Means("kl")
        self._old = copied(self.parameters) if self.config.updates_per_iteration > 1 else []

    def num_turns(self, batch: Batch) -> int:
        """The noise levels."""
        return self.config.objective.num_levels

    def loss(self, batch: Batch, turn: int, advantage: Tensor, iteration: int, is_first: bool) -> Tensor:
        """At one noise level."""
        options, sampler = self.config.objective, self.sampler
        sigma, x, target = self.noised(batch, turn, iteration)

        def policy() -> Tensor:
            return sampler.conditional_velocity(x, sigma, batch.prompt)

        reference = old = None
        with torch.no_grad():
            if not is_first:
                with old_policy(self.parameters, self._old):
                    old = policy()
            if options.kl:
                with start_policy(sampler.editor.transformer):
                    reference = policy()
        velocity = policy()
        parts = nft_loss(
            velocity,
            velocity.detach() if old is None else old,  # before the first update the old policy is this one
            target,
            sigma,
            advantage,
            beta=options.beta,
            max_advantage=options.max_advantage,
            reference_velocity=reference,
        )
        self._means.note(advantage != 0, kl=parts.kl)
        return parts.policy + options.kl * parts.kl

    def noised(self, batch: Batch, turn: int, iteration: int) -> tuple[Tensor, Tensor, Tensor]:
        """The batch's clean latents noised again: levels (B,), x_sigma and the velocity towards it (B, N, C).

        Levels follow the density of those that inference visits, spread evenly over the turns. All edits of a group
        get the same noise and levels: advantages add up to 0, so what noise alone does to the gradient cancels.
        """
        assert batch.clean is not None
        prompt, shift, sampler = batch.prompt, self.config.rollout.shift, self.sampler
        num_tokens = prompt.grid.num_tokens
        mu = math.log(shift) if shift else inference_mu(sampler.editor.scheduler, num_tokens, sampler.num_steps)
        seed = hash_seed(self.config.seed, iteration, prompt.sample.id, "noised", turn)
        noise = normal_noise([seed], batch.clean).expand_as(batch.clean)
        even = torch.rand(1, generator=torch.Generator().manual_seed(hash_seed(seed, "level")))
        even = (even + turn) / self.config.objective.num_levels
        sigma = noise_levels(even, "inference", mu).sigma.expand(len(batch.clean))
        return sigma, interpolate(batch.clean, noise, sigma), target_velocity(batch.clean, noise)

    def stats(self, runtime: Runtime) -> dict[str, float]:
        """The mean KL."""
        return self._means.values(runtime)

    def about(self) -> dict[str, Any]:
        """Objective and noise levels."""
        options = self.config.objective
        return {"objective": f"DiffusionNFT, beta {options.beta:g}, {options.num_levels} noise levels"}


# ------------------------------------------------------------------------------------------------------- formulas


class NftLoss(NamedTuple):
    """Each (B,), one value per edit at one noise level."""

    policy: Tensor
    kl: Tensor


def nft_loss(
    velocity: Tensor,
    old_velocity: Tensor,
    target: Tensor,
    sigma: Tensor,
    advantage: Tensor,
    *,
    beta: float = 1.0,
    max_advantage: float = 5.0,
    reference_velocity: Tensor | None = None,
) -> NftLoss:
    """The loss of edits noised to `sigma` (B,), with velocities and target e - x_0 (B, N, C) and `advantage` (B,).

    With r = A / (2 max_advantage) + 1/2, v+ = beta v + (1 - beta) v_old and v- = (1 + beta) v_old - beta v:
    loss = max_advantage / beta (r |x_0(v+) - x_0|^2 / w+ + (1 - r) |x_0(v-) - x_0|^2 / w-), where x_0(v) = x_sigma -
    sigma v, |.|^2 is a mean over tokens and channels, and w the mean of |x_0(v) - x_0|, without gradient. At v = v_old
    its gradient is that of the advantage times the error. KL: mean (v - v_reference)^2.
    """
    positive = beta * velocity + (1 - beta) * old_velocity
    negative = (1 + beta) * old_velocity - beta * velocity
    share = (advantage / max_advantage).clamp(-1, 1) / 2 + 0.5
    s = sigma.to(velocity.device).view(-1, 1, 1)

    def error(v: Tensor) -> Tensor:
        distance = s * (target - v)  # x_0(v) - x_0
        weight = distance.detach().abs().flatten(1).mean(1).clamp(min=1e-5)
        return (distance**2).flatten(1).mean(1) / weight

    policy = max_advantage / beta * (share * error(positive) + (1 - share) * error(negative))
    kl = (velocity - (velocity if reference_velocity is None else reference_velocity)) ** 2
    return NftLoss(policy, kl.flatten(1).mean(1))
