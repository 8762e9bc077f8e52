"""The training objective of Stage I on one screen: noise levels, noise, and flow matching on the target tokens."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from etchr.editor.klein import velocity
from etchr.editor.tokens import Grid
from etchr.flow.matching import flow_error, interpolate, target_velocity
from etchr.flow.schedule import NoiseLevels, noise_levels, stratified_sigmas, uniform_levels
from etchr.seeds import hash_seed
from etchr.sft.settings import FlowConfig


@dataclass
class Pairs:
    """A micro-batch as the transformer sees it, on its device."""

    target: Tensor  # (B, N, C) clean latent tokens x_0 of the edits
    condition: Tensor  # (B, M, C) clean latent tokens of the sources
    text: Tensor  # (B, L, D) prompt embeddings
    grid: Grid  # of the target
    condition_grid: Grid


@dataclass(frozen=True)
class Draws:
    """What chance decides about a global batch of G pairs; depends on (seed, step) alone."""

    levels: NoiseLevels  # (G,)
    dropped: Tensor  # (G,) bool: trained without a prompt


def draw(flow: FlowConfig, prompt_dropout: float, mu: Tensor, seed: int, step: int) -> Draws:
    """The draws of a step; `mu` (G,) is each pair's inference shift (`schedule.inference_mu`)."""
    generator = torch.Generator().manual_seed(hash_seed(seed, step))
    even = stratified_sigmas if flow.stratified else uniform_levels
    levels = noise_levels(even(len(mu), generator), flow.draw, mu, flow.released_rounding)
    return Draws(levels, torch.rand(len(mu), generator=generator) < prompt_dropout)


def pair_noise(shape: torch.Size, positions: list[int], seed: int, step: int) -> Tensor:
    """Noise (B, N, C) of the pairs at these positions of a step's global batch, equal on every device and process."""
    rows = [
        torch.randn(shape[1:], generator=torch.Generator().manual_seed(hash_seed(seed, step, position)))
        for position in positions
    ]
    return torch.stack(rows)


def sft_loss(transformer: Any, pairs: Pairs, noise: Tensor, levels: NoiseLevels, bf16: bool = False) -> Tensor:
    """The weighted squared velocity error of each pair (B,), in fp32.

    Method, section 3: x_s = (1 - s) x_0 + s e, v = e - x_0, on target tokens alone. `bf16` rounds x_0, e, x_s and v to
    bfloat16, as the released code does; without it they are fp32 until the transformer's own dtype.
    """
    dtype = torch.bfloat16 if bf16 else torch.float32
    x0, noise = pairs.target.to(dtype), noise.to(pairs.target.device, dtype)
    x_sigma = interpolate(x0, noise, levels.sigma)
    predicted = velocity(
        transformer, x_sigma, levels.time, pairs.text, pairs.condition, pairs.grid, pairs.condition_grid
    )
    return levels.weight.to(predicted.device) * flow_error(predicted, target_velocity(x0, noise))
