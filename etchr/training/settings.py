"""Options that both stages share, and their checks. Loads without torch."""

import math
from dataclasses import dataclass, field
from typing import Any

from etchr.checks import at_least, lookup, one_of

SCHEDULES = ("constant", "linear", "cosine", "released")


@dataclass
class ModelConfig:
    """The editor that is trained, and how it is held in memory."""

    base: str = "nano"  # a klein-base folder, a hub id, or nano: the base editor kept in the repository
    dtype: str = "auto"  # of the frozen base: bfloat16, float32; auto: bfloat16 on a GPU, float32 on a CPU
    quantisation: str | None = None  # of the frozen base: int8, fp8 (torchao) or nf4 (bitsandbytes)
    gradient_checkpointing: int = 0  # 0: none, 1: every block, n: every n-th block
    compile: str | None = None  # torch.compile backend for the blocks, such as inductor
    attention: str | None = None  # attention backend of diffusers, such as native or _native_cudnn; null: its default
    max_pixels: int | None = None  # area of a picture; null: the base's setting


@dataclass
class AdapterConfig:
    """The LoRA on all linear layers of the transformer's blocks."""

    rank: int = 32  # of every layer
    alpha: float | None = None  # scale is alpha / rank; null: rank
    dropout: float = 0.0  # of the adapter's input
    dtype: str = "float32"  # of weights and optimizer states; bfloat16 loses small updates
    init: str | None = None  # an adapter folder to start from; null: a fresh one
    one_product: bool = False  # add the adapter to the weight before the product: faster for small models, more memory


@dataclass
class OptimConfig:
    """The optimizer and its schedule."""

    name: str = "adamw"  # adamw, or muon (orthogonalised momentum; not with FSDP)
    lr: float = 1e-4  # learning rate, at its highest
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # adamw
    eps: float = 1e-8  # adamw
    momentum: float = 0.95  # of muon
    weight_decay: float = 0.0  # decoupled
    schedule: str = "constant"  # after the warm-up: constant, linear or cosine to 0; released: lr/3 for 5 ticks
    warmup_steps: int = 0  # linear from 0
    clip: float | None = None  # gradient norm; null: none
    ema: float | None = None  # decay of an average of the weights, which is then what is saved; null: none


@dataclass
class WandbConfig:
    """Weights & Biases; metrics.jsonl is always written."""

    mode: str = "disabled"  # disabled, offline, online (WANDB_API_KEY from the environment)
    project: str = "etchr"  # name of the project there


def check_common(config: Any) -> None:
    """`ValueError` for a value out of range among the options that a training of either stage has."""
    one_of("optim.name", config.optim.name, ("adamw", "muon"))
    one_of("optim.schedule", config.optim.schedule, SCHEDULES)
    one_of("model.dtype", config.model.dtype, ("auto", "bfloat16", "float32"))
    one_of("adapter.dtype", config.adapter.dtype, ("bfloat16", "float32"))
    one_of("wandb.mode", config.wandb.mode, ("disabled", "offline", "online"))
    one_of("device", config.device, ("auto", "cpu"))
    at_least(
        config,
        {
            "save_every": 1,
            "keep_checkpoints": 1,
            "threads": 0,
            "adapter.rank": 1,
            "optim.warmup_steps": 0,
            "model.gradient_checkpointing": 0,
        },
    )
    if not 0 < config.optim.lr < math.inf:
        raise ValueError(f"optim.lr={config.optim.lr} must be above 0")
    if len(config.optim.betas) != 2 or not all(0 <= beta < 1 for beta in config.optim.betas):
        raise ValueError(f"optim.betas={config.optim.betas} must be two numbers from 0 to below 1")
    for name in ("optim.clip", "model.max_pixels"):
        if (value := lookup(config, name)) is not None and value <= 0:
            raise ValueError(f"{name}={value} must be above 0, or null")
    for name in ("adapter.dropout", "optim.ema"):
        if not 0 <= (lookup(config, name) or 0) < 1:
            raise ValueError(f"{name}={lookup(config, name)} must be at least 0 and below 1")
    if config.optim.ema and config.adapter.dtype == "bfloat16":
        raise ValueError("optim.ema averages in the adapter's dtype, and bfloat16 loses it; use adapter.dtype=float32")
