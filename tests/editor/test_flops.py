"""FLOPs of a training step: exact against torch's counter on a real run, and the derived numbers of klein."""

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from etchr.editor import lora
from etchr.editor.efficiency import checkpoint_blocks
from etchr.editor.flops import StepFlops
from etchr.editor.klein import Grid, velocity
from etchr.editor.shapes import random_transformer, transformer_config

GRID, CONDITION_GRID, NUM_TEXT, RANK = Grid(5, 7), Grid(3, 4), 9, 4


@pytest.fixture(params=[(2, 3), (4, 5)], ids=["counted as it is", "extrapolated in depth"])
def deep(transformer, request):
    doubles, singles = request.param
    blocks = {"num_layers": doubles, "num_single_layers": singles}
    return Flux2Transformer2DModel.from_config(dict(transformer.config) | blocks)


def counted(transformer, batch=1, backward=True):
    """What torch counts in a real run on the CPU with real pictures' worth of tokens."""
    channels, width = transformer.config.in_channels, transformer.config.joint_attention_dim
    target = torch.randn(batch, GRID.num_tokens, channels)
    condition = torch.randn(batch, CONDITION_GRID.num_tokens, channels)
    text = torch.randn(batch, NUM_TEXT, width)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.set_grad_enabled(backward):
        sigma = torch.full((batch,), 0.5)
        predicted = velocity(transformer, target, sigma, text, condition, GRID, CONDITION_GRID)
        if backward:
            (predicted - target).square().mean().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_step_costs_what_torch_counts_in_a_real_one(deep, batch):
    flops = StepFlops(deep.config, RANK)
    step = flops.per_pair(GRID.num_tokens, CONDITION_GRID.num_tokens, NUM_TEXT)
    recomputed = flops.recompute(GRID.num_tokens, CONDITION_GRID.num_tokens, NUM_TEXT)
    lora.attach(deep, RANK)
    assert batch * step == counted(deep, batch)
    checkpoint_blocks(deep, 1)
    assert batch * (step + recomputed) == counted(deep, batch)


@pytest.mark.parametrize("rank", [None, RANK])
def test_a_forward_costs_what_torch_counts_in_a_real_one(deep, rank):
    flops = StepFlops(deep.config, rank).forward(GRID.num_tokens, CONDITION_GRID.num_tokens, NUM_TEXT)
    if rank:
        lora.attach(deep, rank)
    assert flops == counted(deep, backward=False)


@pytest.mark.parametrize(
    ("num_condition", "forward", "step", "checkpointed"),  # TFLOPs at 1024x1024, rank 768, by formula
    [(4096, 189, 446, 636), (0, 90, 207, 297)],
)
def test_klein_9b_costs_what_its_shapes_say(num_condition, forward, step, checkpointed):
    flops, tokens = StepFlops(transformer_config("9b"), 768), (4096, num_condition, 512)
    assert flops.forward(*tokens) / 1e12 == pytest.approx(forward, rel=0.01)
    assert flops.per_pair(*tokens) / 1e12 == pytest.approx(step, rel=0.01)
    assert (flops.per_pair(*tokens) + flops.recompute(*tokens)) / 1e12 == pytest.approx(checkpointed, rel=0.01)


def test_klein_4b_costs_half():
    assert StepFlops(transformer_config("4b"), 768).per_pair(4096, 4096, 512) / 1e12 == pytest.approx(225, rel=0.01)


def test_counting_leaves_the_model_and_the_random_numbers_alone(deep):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    StepFlops(deep.config, RANK + 1).per_pair(8, 8, NUM_TEXT)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(".lora_" in name for name, _ in deep.named_parameters())


def test_what_cannot_be_counted_is_said(deep):
    with pytest.raises(ValueError, match="needs an adapter"):
        StepFlops(deep.config, None).per_pair(8, 8, NUM_TEXT)
    with pytest.raises(ValueError, match="got 0 and 9"):
        StepFlops(deep.config, RANK).forward(0, 0, NUM_TEXT)
    with pytest.raises(ValueError, match=r"not 0 \+ "):
        StepFlops(dict(deep.config) | {"num_layers": 0}, RANK)
    with pytest.raises(ValueError, match="must be one of nano, 9b, 4b"):
        transformer_config("12b")


def test_a_random_transformer_is_made_in_its_dtype_and_frozen():
    made = random_transformer("nano", "cpu", torch.bfloat16)
    assert {parameter.dtype for parameter in made.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in made.parameters())
    assert made.x_embedder.weight.std() > 0
    assert torch.get_default_dtype() is torch.float32
    nine = random_transformer("9b", "meta", torch.bfloat16)
    assert sum(parameter.numel() for parameter in nine.parameters()) / 1e9 == pytest.approx(9.08, abs=0.005)
