"""Steps of the sampler from one noise level to the next: pure functions of tensors.

Convention: sigma falls from 1 (noise) to 0 (data), v = noise - x_0, dt = next_sigma - sigma < 0. A stochastic step
draws x' = mean + std * noise; its log-probability is averaged over tokens and channels, as in the field, not summed.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from etchr.flow import SDES


def euler_step(x: Tensor, velocity: Tensor, sigma: float, next_sigma: float) -> Tensor:
    """One Euler step of dx/dsigma = v, in fp32, returned in the velocity's dtype."""
    return (x.float() + (next_sigma - sigma) * velocity.float()).to(velocity.dtype)


@dataclass(frozen=True)
class Transition:
    """The distribution of x' after a stochastic step, in fp32."""

    mean: Tensor  # (B, N, C)
    std: Tensor  # (B, 1, 1)
    is_normal: bool = True  # False: cps, whose log-probability in the field is the bare squared distance

    def draw(self, noise: Tensor) -> Tensor:
        """x' (B, N, C) for standard normal noise of the same shape."""
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """The mean log-probability (B,) of x' (B, N, C) per element; for cps -mean (x' - mean)^2, without constants."""
        squared = (x.float() - self.mean) ** 2
        if not self.is_normal:
            return -squared.flatten(1).mean(1)
        var = self.std**2
        return (-squared / (2 * var) - 0.5 * torch.log(2 * math.pi * var)).flatten(1).mean(1)


def transition(
    sde: str, x: Tensor, velocity: Tensor, sigma: Tensor, next_sigma: Tensor, first_sigma: Tensor | float, eta: float
) -> Transition:
    """The step of `x` (B, N, C) from `sigma` to `next_sigma`, each (B,), under one of `SDES`.

    `first_sigma` is the level after the first step: it stands in for sigma = 1 where 1 - sigma is a divisor.

    - `flow`: Flow-GRPO (arXiv 2505.05470), std = s sqrt(-dt) with s = eta sqrt(sigma / (1 - sigma)).
    - `dance`: DanceGRPO (arXiv 2505.07818), std = eta sqrt(-dt), the same at every level.
    - `cps`: coefficients-preserving sampling (arXiv 2509.05952), std = next_sigma sin(eta pi / 2): x' holds as much
      signal and noise as the ODE's. It has no noise where next_sigma is 0. Unlike the others it does not keep the
      marginals of x, however fine the grid: a Gaussian of spread below 1 comes out narrower.
    """
    x, v = x.float(), velocity.float()
    s, s_next = (level.to(x.device, torch.float32).view(-1, 1, 1) for level in (sigma, next_sigma))
    dt = s_next - s
    if sde == "flow":
        first = torch.as_tensor(first_sigma, dtype=torch.float32, device=x.device)
        below_one = torch.where(s == 1, first.reshape(-1, 1, 1) if first.ndim else first, s)
        spread = eta * torch.sqrt(s / (1 - below_one))
        drift = spread**2 / (2 * s)
        return Transition(x * (1 + drift * dt) + v * (1 + drift * (1 - s)) * dt, spread * torch.sqrt(-dt))
    if sde == "dance":
        score = -(x - (1 - s) * (x - s * v)) / s**2
        return Transition(x + dt * v - 0.5 * eta**2 * score * dt, eta * torch.sqrt(-dt))
    if sde == "cps":
        std = s_next * math.sin(eta * math.pi / 2)
        x0, x1 = x - s * v, x + (1 - s) * v
        return Transition(x0 * (1 - s_next) + x1 * s_next * math.cos(eta * math.pi / 2), std, is_normal=False)
    raise ValueError(f"sde={sde!r} must be one of {', '.join(SDES)}")
