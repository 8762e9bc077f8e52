"""Flow matching: the straight path from data to noise and the velocity along it."""

from torch import Tensor


def interpolate(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_sigma = (1 - sigma) x_0 + sigma e, for tokens (B, N, C) and levels (B,)."""
    s = sigma.view(-1, *[1] * (x0.ndim - 1)).to(x0)
    return (1 - s) * x0 + s * noise


def target_velocity(x0: Tensor, noise: Tensor) -> Tensor:
    """v = e - x_0, the derivative of x_sigma by sigma."""
    return noise - x0
