"""From the scores of a rollout to the advantage of every edit: pure functions of tensors (P, G), fp64.

P prompts with a group of G edits each. NaN marks a missing score: the edit leaves its group, and a group with fewer
than two edits left has no advantage at all.
"""

import torch
from torch import Tensor

from etchr.rl import ADVANTAGES

NAN = float("nan")
DIGITS = 12  # to which sums are rounded
REWARD_DIGITS = 6  # rewards that differ by less are equal: shares of at most 128 decodings, or dense probabilities


def win_rates(reward: Tensor, ties: float = 0.5, margin: float = 0.0) -> Tensor:
    """The share (P, G) of the other edits of its group that an edit beats; a tie counts `ties` of a win.

    Paper, Pref-GRPO: win_k = 1/(G-1) sum over j != k of [R_k > R_j] (+ ties [R_k = R_j]). Rewards that differ by no
    more than `margin` are a tie (not in the paper): of dense rewards the last digits say nothing.
    """
    ahead = reward[:, :, None] - reward[:, None, :]
    won = (ahead > margin).double() + ties * (ahead.abs() <= margin).double()
    present = ~reward.isnan()
    pairs = present[:, :, None] & present[:, None, :] & ~torch.eye(reward.shape[1], dtype=torch.bool)
    rates = (won * pairs).sum(2) / pairs.sum(2).clamp(min=1)
    return torch.where(present & (present.sum(1, keepdim=True) > 1), rates, NAN)


def z_scores(values: Tensor) -> Tensor:
    """(x - mean) / std within each group (P, G), unbiased std; 0 where all are equal, NaN where fewer than two are."""
    present = ~values.isnan()
    count = present.sum(1, keepdim=True)
    mean = torch.where(present, values, 0.0).sum(1, keepdim=True) / count
    centred = values - mean
    std = torch.sqrt(torch.where(present, centred**2, 0.0).sum(1, keepdim=True) / (count - 1))
    equal = ~varied(values)[:, None]
    scores = torch.where(equal & present, 0.0, centred / std)
    return torch.where(count > 1, scores, NAN)


def varied(values: Tensor) -> Tensor:
    """Which groups (P,) hold two different values."""
    present = ~values.isnan()
    most = torch.where(present, values, -torch.inf).amax(1)
    least = torch.where(present, values, torch.inf).amin(1)
    return present.any(1) & (most > least)


def combined_reward(guidance: Tensor, correctness: Tensor, alpha: float) -> Tensor:
    """R = alpha r_guide + (1 - alpha) r_correct (P, G), rounded: the last bit of a sum must not break a tie."""
    return (alpha * guidance + (1 - alpha) * correctness).round(decimals=DIGITS)


def advantages(
    name: str, guidance: Tensor, correctness: Tensor, alpha: float, ties: float = 0.5, margin: float = 0.0
) -> Tensor:
    """The advantage (P, G) of every edit by one of `ADVANTAGES`, from the two rewards (P, G).

    - `win_rate` (paper): win rates under R = alpha r_guide + (1 - alpha) r_correct, normalised within the group.
    - `gdpo` (released code): each reward normalised within the group, weighted sum, normalised over the whole batch.
    - `zscore`: R normalised within the group.

    Rewards count to `REWARD_DIGITS` decimals: what lies behind is rounding, and would be blown up to whole deviations.
    """
    guidance, correctness = (values.double().round(decimals=REWARD_DIGITS) for values in (guidance, correctness))
    reward = combined_reward(guidance, correctness, alpha)
    if name == "win_rate":
        return z_scores(win_rates(reward, ties, margin))
    if name == "zscore":
        return z_scores(reward)
    if name == "gdpo":
        parts = (alpha * z_scores(guidance) + (1 - alpha) * z_scores(correctness)).round(decimals=DIGITS)
        present = parts[~parts.isnan()]
        if len(present) < 2 or present.max() == present.min():
            return parts * 0.0
        return parts / present.std()  # the mean is 0 within each group already
    raise ValueError(f"advantage={name!r} must be one of {', '.join(ADVANTAGES)}")
