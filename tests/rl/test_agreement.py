"""How far gradients agree: the cosine of what rollouts left, and what Muon makes of it."""

import pytest
import torch

from etchr.rl.agreement import AgreementConfig, agreement, gradients, orthogonalised
from tests.rl.runs import options


def test_equal_gradients_agree_and_opposite_ones_do_not():
    matrix = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert agreement([[matrix], [2 * matrix]], torch.clone) == pytest.approx((1.0, 0.0), abs=1e-6)
    mean, error = agreement([[matrix], [matrix], [-matrix]], torch.clone)
    assert mean == pytest.approx(-1 / 3, abs=1e-6)
    assert error > 0


def test_orthogonalised_matrices_have_singular_values_of_one():
    matrix = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.linalg.svdvals(orthogonalised(matrix)).tolist() == pytest.approx([1.0] * 3, abs=1e-5)


def test_rollouts_on_the_same_prompts_differ_in_their_noise_alone(tiny, pairs, tmp_path):
    config = options(tiny, pairs, tmp_path, "updates_per_iteration=1", "validation.every=0", "objective.kind=nft")
    first, second = gradients(config, 2)
    again, _ = gradients(config, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_one_rollout_agrees_with_nothing():
    with pytest.raises(ValueError, match=r"rollouts=1 must be at least 2"):
        AgreementConfig(rollouts=1)
