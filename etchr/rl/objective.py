"""The training objective of Stage II on one screen: importance ratio, clipped policy loss, KL. Functions of tensors."""

from typing import NamedTuple

import torch
from torch import Tensor

from etchr.flow.steps import Transition


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
