"""Steps of the sampler from one noise level to the next: pure functions of tensors."""

from torch import Tensor


def euler_step(x: Tensor, velocity: Tensor, sigma: float, next_sigma: float) -> Tensor:
    """One Euler step of dx/dsigma = v, in fp32, returned in the velocity's dtype."""
    return (x.float() + (next_sigma - sigma) * velocity.float()).to(velocity.dtype)
