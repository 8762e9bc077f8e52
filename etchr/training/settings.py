"""Options that both stages share, and their checks. Loads without torch."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Gt

from etchr.checks import BelowOne, Count, Natural, OneOf, Positive, check

Device = Annotated[str, OneOf("auto", "cpu")]
Prompt = Annotated[str, OneOf("question", "instruction")]
Dtype = Annotated[str, OneOf("bfloat16", "float32")]
BaseDtype = Annotated[str, OneOf("auto", "bfloat16", "float32")]
Product = Annotated[str, OneOf("peft", "fused", "weight")]
Schedule = Annotated[str, OneOf("constant", "linear", "cosine", "released")]
Mode = Annotated[str, OneOf("disabled", "offline", "online")]


@dataclass
class EditorConfig:
    """The editor that is trained, and how it is held in memory."""

    base: str = "nano"  # a klein-base folder, a hub id, or nano: the base editor kept in the repository
    dtype: BaseDtype = "auto"  # of the frozen base: bfloat16, float32; auto: bfloat16 on a GPU, float32 on a CPU
    quantisation: str | None = None  # of the frozen base: int8, fp8 (torchao) or nf4 (bitsandbytes)
    gradient_checkpointing: Natural = 0  # 0: none, 1: every block, n: every n-th block
    compile: str | None = None  # torch.compile backend for the blocks, such as inductor
    attention: str | None = None  # attention backend of diffusers, such as native or _native_cudnn; null: its default
    max_pixels: Annotated[int, Gt(0)] | None = None  # area of a picture; null: the base's setting


@dataclass
class AdapterConfig:
    """The LoRA on all linear layers of the transformer's blocks."""

    rank: Count = 32  # of every layer
    alpha: float | None = None  # scale is alpha / rank; null: rank
    dropout: BelowOne = 0.0  # of the adapter's input
    dtype: Dtype = "float32"  # of weights and optimizer states; bfloat16 loses small updates
    init: str | None = None  # an adapter folder to start from; null: a fresh one
    product: Product = "peft"  # peft; fused: in the base's dtype, for full size; weight: W + BA first, for small models

    @property
    def needs_autocast(self) -> bool:
        """Whether its products must be rounded to a bfloat16 base's dtype from outside."""
        return self.product != "fused" and self.dtype == "float32"


@dataclass
class OptimConfig:
    """The optimizer and its schedule."""

    name: Annotated[str, OneOf("adamw", "muon")] = "adamw"  # adamw, or muon (orthogonalised momentum; not with FSDP)
    lr: Positive = 1e-4  # learning rate, at its highest
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # adamw
    eps: float = 1e-8  # adamw
    momentum: float = 0.95  # of muon
    weight_decay: float = 0.0  # decoupled
    schedule: Schedule = "constant"  # after the warm-up: constant, linear or cosine to 0; released: lr/3 for 5 ticks
    warmup_steps: Natural = 0  # linear from 0
    clip: Annotated[float, Gt(0)] | None = None  # gradient norm; null: none
    ema: BelowOne | None = None  # decay of an average of the weights, which is then what is saved; null: none


@dataclass
class WandbConfig:
    """Weights & Biases; metrics.jsonl is always written."""

    mode: Mode = "disabled"  # disabled, offline, online (WANDB_API_KEY from the environment)
    project: str = "etchr"  # name of the project there


def check_common(config: Any) -> None:
    """`ValueError` for what cannot be among the options of a training of either stage."""
    check(config)
    if len(config.optim.betas) != 2 or not all(0 <= beta < 1 for beta in config.optim.betas):
        raise ValueError(f"optim.betas={config.optim.betas} must be two numbers from 0 to below 1")
    if config.optim.ema and config.adapter.dtype == "bfloat16":
        raise ValueError("optim.ema averages in the adapter's dtype, and bfloat16 loses it; use adapter.dtype=float32")
    if not config.data.paths and config.data.mixture is None:
        raise ValueError("data.paths is empty; name a Parquet file or folder")
