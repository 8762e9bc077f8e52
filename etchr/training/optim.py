"""The optimizer and its learning rate schedule."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from etchr.training.muon import Muon
from etchr.training.settings import OptimConfig


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW, or Muon on the LoRA factors, all of which are matrices; states take the dtype of the parameters.

    On a GPU AdamW is one fused kernel: a third of the memory traffic, and no copy of a whole state on the way.
    """
    parameters = list(parameters)
    if config.name == "muon":
        return Muon(parameters, config.lr, config.momentum, config.weight_decay)
    first, second = config.betas
    fused = all(parameter.is_cuda for parameter in parameters) or None  # None: torch chooses
    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=(first, second), eps=config.eps, weight_decay=config.weight_decay, fused=fused
    )


def lr_factor(config: OptimConfig, total_steps: int, ticks_per_step: int) -> Callable[[int], float]:
    """What the learning rate of a step is multiplied with.

    `released` is what the released code does without saying so: PyTorch's ConstantLR holds lr/3 for its first five
    ticks, and accelerate ticks it once per process, so with 8 processes only the first step is at lr/3.
    """
    warmup = config.warmup_steps

    def factor(step: int) -> float:
        if config.schedule == "released":
            return 1 / 3 if step * ticks_per_step < 5 else 1.0
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(total_steps - warmup, 1)
        if config.schedule == "linear":
            return max(1 - done, 0.0)
        if config.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return 1.0

    return factor
