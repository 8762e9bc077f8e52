"""Noise levels of rectified flow: x_sigma = (1 - sigma) x_0 + sigma e, with sigma = 1 pure noise.

The grid that inference walks down is the scheduler's own (diffusers); the draws that training uses live here.
"""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor


def inference_sigmas(scheduler: FlowMatchEulerDiscreteScheduler, num_tokens: int, num_steps: int) -> Tensor:
    """The `num_steps + 1` noise levels of `Flux2KleinPipeline`, from 1 to 0, for `num_tokens` target tokens.

    With dynamic shifting the grid depends on the picture's size; without it the scheduler's fixed shift applies.
    """
    grid = torch.linspace(1.0, 1.0 / num_steps, num_steps).tolist()
    scheduler.set_timesteps(sigmas=grid, mu=compute_empirical_mu(num_tokens, num_steps))
    return scheduler.sigmas.to(torch.float32).cpu()


def stratified_sigmas(batch_size: int, generator: torch.Generator) -> Tensor:
    """One noise level (B,) per sample, uniform on (0, 1), one in each of B equal slices and in random order.

    Lower variance than independent draws: every batch covers the whole range.
    """
    slices = torch.randperm(batch_size, generator=generator)
    return (slices + torch.rand(batch_size, generator=generator)) / batch_size
