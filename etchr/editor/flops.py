"""How much arithmetic a training step needs, to hold its measured time against: counted by torch, not by a formula.

`FlopCounterMode` counts every matrix product of a copy of the transformer that has no weights (meta device). Two exact
laws save running it at the true size, which would take half a minute with klein 9B: for a fixed text length the FLOPs
are a quadratic polynomial of the number of image tokens, and they grow by the same amount with every double or single
block after the first. So nine counts of up to three blocks, a few tokens each, give every size to the last digit. A
model of few blocks is counted as it is.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from etchr.editor import lora
from etchr.editor.efficiency import checkpoint_blocks

LENGTH_STEP = 16  # image tokens; the counts are made at 1, 2 and 3 times this
FEW_BLOCKS = 8  # up to here one count at the true size is quicker than nine small ones


class StepFlops:
    """FLOPs of a FLUX.2 transformer on one pair; those of a batch are that many times as many.

    `config` is a `Flux2Transformer2DModel` config with at least one block of each kind, `rank` that of the adapter on
    all linear layers of the blocks, None for no adapter. A multiplication and an addition are two FLOPs; attention is
    counted as its two products, whatever kernel computes it. The first answer of a kind for a text length takes a
    few seconds, further ones nothing; of a model of few blocks every size takes about one.
    """

    def __init__(self, config: Mapping[str, Any], rank: int | None) -> None:
        doubles, singles = config["num_layers"], config["num_single_layers"]
        if min(doubles, singles) < 1:
            raise ValueError(f"FLOPs are known from one block of each kind on, not {doubles} + {singles}")
        known = {key: value for key, value in config.items() if not key.startswith("_")}
        known.pop("quantization_config", None)  # a quantised layer computes the same product
        self._config = json.dumps(known, sort_keys=True)
        self._rank = rank
        self._few_blocks = doubles + singles <= FEW_BLOCKS

    def forward(self, num_target: int, num_condition: int, num_text: int) -> float:
        """Of one forward pass without gradients."""
        return self._evaluate("forward", num_target + num_condition, num_text)

    def per_pair(self, num_target: int, num_condition: int, num_text: int) -> float:
        """Model FLOPs of one training step on one pair: forward, and backward to the adapter through a frozen base.

        What is recomputed to save memory is not work done for the model and is left out; see `recompute`.
        """
        return self._evaluate("step", num_target + num_condition, num_text)

    def recompute(self, num_target: int, num_condition: int, num_text: int) -> float:
        """What a step computes a second time if every block is checkpointed."""
        whole = self._evaluate("checkpointed", num_target + num_condition, num_text)
        return whole - self.per_pair(num_target, num_condition, num_text)

    def _evaluate(self, kind: str, num_image: int, num_text: int) -> float:
        if kind != "forward" and self._rank is None:
            raise ValueError("a training step needs an adapter to train; give its rank")
        if num_image < 1 or num_text < 1:
            raise ValueError(f"a pair needs image and text tokens, got {num_image} and {num_text}")
        if self._few_blocks:
            return _whole_count(self._config, self._rank, kind, num_image, num_text)
        first, second, third = _counts(self._config, self._rank, kind, num_text)
        x = num_image / LENGTH_STEP - 1  # Newton's form of the parabola through the counts at x = 0, 1, 2
        return first + x * (second - first) + x * (x - 1) / 2 * (third - 2 * second + first)


@functools.cache
def _whole_count(config: str, rank: int | None, kind: str, num_image: int, num_text: int) -> int:
    return _count(_meta_model(json.loads(config), rank), kind, num_image, num_text)


@functools.cache
def _counts(config: str, rank: int | None, kind: str, num_text: int) -> list[int]:
    """FLOPs at the three lengths, extrapolated from one and two blocks of each kind to the true depth."""
    values = json.loads(config)
    counts = []
    for doubles, singles in ((1, 1), (2, 1), (1, 2)):
        model = _meta_model(values | {"num_layers": doubles, "num_single_layers": singles}, rank)
        counts.append([_count(model, kind, LENGTH_STEP * k, num_text) for k in (1, 2, 3)])
    return [
        one + (values["num_layers"] - 1) * (more_double - one) + (values["num_single_layers"] - 1) * (more_single - one)
        for one, more_double, more_single in zip(*counts, strict=True)
    ]


def _meta_model(config: dict[str, Any], rank: int | None) -> Any:
    from diffusers import Flux2Transformer2DModel

    with torch.device("meta"):  # the adapter too: peft would draw two billion numbers on the CPU first
        model = Flux2Transformer2DModel(**config)
        model.requires_grad_(False)
        if rank is not None:
            lora.attach(model, rank)
    return model


def _count(model: Any, kind: str, num_image: int, num_text: int) -> int:
    """FLOPs of one run of `model` on the meta device; `kind` forward, step or checkpointed."""
    checkpoint_blocks(model, 1 if kind == "checkpointed" else 0)
    model.zero_grad(set_to_none=True)
    # Attention written out as two products: fused kernels recompute in their backward pass and would count it.
    with torch.device("meta"), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        with torch.set_grad_enabled(kind != "forward"):
            output: Tensor = model(
                hidden_states=torch.empty(1, num_image, model.config.in_channels),
                timestep=torch.empty(1),
                encoder_hidden_states=torch.empty(1, num_text, model.config.joint_attention_dim),
                txt_ids=torch.empty(num_text, 4),
                img_ids=torch.empty(num_image, 4),
                guidance=torch.empty(1) if model.config.guidance_embeds else None,
                return_dict=False,
            )[0]
        if kind != "forward":
            output.sum().backward()
    return counter.get_total_flops()
