"""DiffusionNFT (arXiv 2509.16117): reinforcement on the forward process. No stochastic sampler, no likelihoods.

A rollout's clean latents x_0 are noised again, and the velocity is regressed towards (good edits) or away from (bad
ones) what would lead to them: the same quantity that Stage I trains, weighted by the advantage.
"""

from typing import NamedTuple

from torch import Tensor


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
