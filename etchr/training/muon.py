"""Muon (https://kellerjordan.github.io/posts/muon): momentum whose matrices are orthogonalised before the step.

`torch.optim.Muon` multiplies in bfloat16, one matrix after the other; on a CPU without bfloat16 instructions that takes
more than twice the rest of a step of the nano base (0.5 s). Here it is float32, and matrices of one shape go together.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd polynomial that takes every singular value towards 1
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` with Nesterov's momentum and adjust_lr_fn="original", but in float32; matrices only."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step along the orthogonalised momentum; parameters without a gradient stay as they are."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for (rows, columns), parameters in alike.items():
                directions = orthogonal(torch.stack([self._momentum(each, group["momentum"]) for each in parameters]))
                lr = group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(direction.to(parameter.dtype), alpha=-lr)
        return loss

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov's: the gradient on its way to the running mean, which it is part of."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (..., m, n) with singular values near 1 (0.7 to 1.2) in the place of their own, as float32.

    Newton and Schulz's iteration: what it does to X = U S V^T, it does to S, and no decomposition is needed.
    """
    a, b, c = COEFFICIENTS
    x = matrices.float()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # the products below are of the shorter side
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
