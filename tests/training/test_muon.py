"""Muon against a singular value decomposition in float64, and against PyTorch's own, whose products are bfloat16."""

import numpy as np
import pytest
import torch

from etchr.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (1, 9)])
def test_singular_values_go_through_the_polynomial_and_vectors_stay(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    for matrix, found in zip(matrices.double().numpy(), orthogonal(matrices), strict=True):
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        values = values / np.sqrt((values**2).sum())
        for _ in range(5):
            values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
        np.testing.assert_allclose(found, left * values @ right, atol=1e-4)


def test_no_gradient_no_direction():
    assert not orthogonal(torch.zeros(2, 3, 4)).any()


def test_steps_are_those_of_pytorch_as_far_as_bfloat16_tells():
    generator = torch.Generator().manual_seed(1)
    shapes = [(16, 64), (64, 16), (16, 64), (32, 32)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(6)]
    ended = []
    for kind, more in ((Muon, {}), (torch.optim.Muon, {"adjust_lr_fn": "original"})):
        parameters = [torch.nn.Parameter(value.clone()) for value in start]
        optimizer = kind(parameters, lr=0.1, momentum=0.9, weight_decay=0.2, **more)
        for step in gradients:
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
        ended.append(parameters)
    for ours, theirs, began in zip(*ended, start, strict=True):
        assert (ours - theirs).norm() < 0.02 * (theirs - began).norm()


def test_what_has_no_gradient_stays():
    moved, still = (torch.nn.Parameter(torch.eye(3)) for _ in range(2))
    moved.grad = torch.eye(3)
    Muon([moved, still], lr=0.1, momentum=0.9, weight_decay=0.1).step()
    assert torch.equal(still, torch.eye(3))
    assert not torch.equal(moved, torch.eye(3))
