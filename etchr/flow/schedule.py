"""Noise levels of rectified flow: x_sigma = (1 - sigma) x_0 + sigma e, with sigma = 1 pure noise.

The grid that inference walks down is the scheduler's own (diffusers); the draws that training uses live here.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor

from etchr.flow import DRAWS

RELEASED_MU = 0.8  # shift e^0.8 = 2.2255 at every picture size
RELEASED_STEPS = 1000


# ------------------------------------------------------------------------------------------------------- inference


def inference_sigmas(scheduler: FlowMatchEulerDiscreteScheduler, num_tokens: int, num_steps: int) -> Tensor:
    """The `num_steps + 1` noise levels of `Flux2KleinPipeline`, from 1 to 0, for `num_tokens` target tokens.

    With dynamic shifting the grid depends on the picture's size; without it the scheduler's fixed shift applies.
    """
    grid = torch.linspace(1.0, 1.0 / num_steps, num_steps).tolist()
    scheduler.set_timesteps(sigmas=grid, mu=compute_empirical_mu(num_tokens, num_steps))
    sigmas: Tensor = scheduler.sigmas
    return sigmas.to(torch.float32).cpu()


def inference_mu(scheduler: FlowMatchEulerDiscreteScheduler, num_tokens: int, num_steps: int) -> float:
    """The mu with which `shift_sigmas` turns evenly spaced levels into those of `inference_sigmas`."""
    if scheduler.config.use_dynamic_shifting:
        return float(compute_empirical_mu(num_tokens, num_steps))
    return math.log(scheduler.config.shift)


def shift_sigmas(sigmas: Tensor, mu: float) -> Tensor:
    """Levels in (0, 1] moved towards the noise for mu > 0: e^mu / (e^mu + 1/sigma - 1), the shift of Flux."""
    return math.exp(mu) / (math.exp(mu) + 1 / sigmas - 1)


# -------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class NoiseLevels:
    """What one batch is trained at, each (B,) in fp32."""

    sigma: Tensor  # the level of x_sigma
    time: Tensor  # the level that the model is told; differs from sigma in the released recipe only
    weight: Tensor  # of a sample's squared error

    def __getitem__(self, index: Tensor | list[int]) -> "NoiseLevels":
        return NoiseLevels(self.sigma[index], self.time[index], self.weight[index])


def uniform_levels(batch_size: int, generator: torch.Generator) -> Tensor:
    """One independent level (B,) per sample, uniform on [0, 1)."""
    return torch.rand(batch_size, generator=generator)


def stratified_sigmas(batch_size: int, generator: torch.Generator) -> Tensor:
    """One noise level (B,) per sample, uniform on (0, 1), one in each of B equal slices and in random order.

    Lower variance than independent draws: every batch covers the whole range.
    """
    slices = torch.randperm(batch_size, generator=generator)
    return (slices + torch.rand(batch_size, generator=generator)) / batch_size


def noise_levels(uniform: Tensor, draw: str, mu: Tensor | float = 0.0, bf16_time: bool = False) -> NoiseLevels:
    """Numbers (B,) uniform on [0, 1) to noise levels, by one of `DRAWS`.

    - `inference`: the density of the levels that inference visits; `mu` from `inference_mu`, per sample or one.
    - `uniform`: as they are.
    - `logit_normal`: sigmoid of a standard normal (SD3, arXiv 2403.03206).
    - `released`: an even draw from the released 1000-step grid with its weights; `bf16_time` rounds t to bfloat16
      before the grid is looked up, as the released code does, which leaves 384 of the 1000 levels.
    """
    if draw == "released":
        return _released_levels((uniform * RELEASED_STEPS).long().clamp(max=RELEASED_STEPS - 1), bf16_time)
    if bf16_time:
        raise ValueError(f"bf16_time belongs to draw=released; it has no meaning for draw={draw}")
    uniform = uniform.clamp(1e-6, 1.0)
    if draw == "inference":
        shift = torch.exp(torch.as_tensor(mu, dtype=torch.float32))
        sigma = shift / (shift + 1 / uniform - 1)
    elif draw == "logit_normal":
        sigma = torch.sigmoid(torch.special.ndtri(uniform.double().clamp(max=1 - 1e-6))).float()
    elif draw == "uniform":
        sigma = uniform
    else:
        raise ValueError(f"draw={draw!r} must be one of {', '.join(DRAWS)}")
    return NoiseLevels(sigma, sigma, torch.ones_like(sigma))


def _released_levels(index: Tensor, bf16_time: bool) -> NoiseLevels:
    sigmas, weights = released_grid()
    if not bf16_time:
        return NoiseLevels(sigmas[index], sigmas[index], weights[index])
    time = (sigmas * RELEASED_STEPS)[index].bfloat16().float()  # t in 0..1000
    nearest = (time[:, None] - sigmas * RELEASED_STEPS).abs().argmin(1)
    return NoiseLevels(sigmas[nearest], time / RELEASED_STEPS, weights[nearest])


@cache
def released_grid() -> tuple[Tensor, Tensor]:
    """The released training grid: 1000 levels from 1 down, shifted by mu = 0.8, and their loss weights ("bsmntw").

    With t = 1000 sigma: w = exp(-2 ((t - 500) / 1000)^2), minus its minimum, scaled to a mean of 1 over the grid.
    """
    sigmas = shift_sigmas(torch.linspace(1.0, 1.0 / RELEASED_STEPS, RELEASED_STEPS), RELEASED_MU)
    bell = torch.exp(-2 * (sigmas - 0.5) ** 2)
    bell = bell - bell.min()
    return sigmas, bell / bell.mean()
