"""Flow matching: the straight path from data to noise, the velocity along it, and the loss on it."""

import torch.nn.functional as F
from torch import Tensor


def interpolate(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_sigma = (1 - sigma) x_0 + sigma e, for tokens (B, N, C) and levels (B,), in x_0's dtype.

    Sigma stays fp32; both products and the sum are rounded to that dtype, as where sigma is a number.
    """
    s = sigma.view(-1, *[1] * (x0.ndim - 1)).to(x0.device).float()
    return ((1 - s) * x0).to(x0.dtype) + (s * noise).to(x0.dtype)


def target_velocity(x0: Tensor, noise: Tensor) -> Tensor:
    """v = e - x_0, the derivative of x_sigma by sigma."""
    return noise - x0


def flow_error(velocity: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample (B,) over its tokens and channels, in fp32."""
    return F.mse_loss(velocity.float(), target.float(), reduction="none").flatten(1).mean(1)
