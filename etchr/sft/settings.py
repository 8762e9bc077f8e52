"""Options of `python -m etchr.sft`. Loads without torch."""

import math
from dataclasses import dataclass, field
from typing import Any

from etchr.flow import DRAWS

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


@dataclass
class DataConfig:
    """The training pairs."""

    paths: list[str] = field(default_factory=lambda: ["outputs/data/sft"])  # Parquet files or folders of them
    split: str = "train"  # of a folder, the files <split>*.parquet in it and one level below
    weights: dict[str, float] = field(default_factory=dict)  # how often a task's pairs come in an epoch; default 1
    prompt: str = "question"  # question: meta-prompt and question; instruction: the sample's explicit instruction
    router: str | None = None  # YAML of meta-prompts; null: configs/router/default.yaml
    prompt_dropout: float = 0.0  # share of samples trained without a prompt, for classifier-free guidance
    geometry: str = "native"  # native: pairs at their own size, as at inference; released: as the released code
    bucketing: bool = True  # fill global batches with one size wherever possible; false: sizes mix, as released
    bucket_step: int = 16  # sides are floored to multiples of this: larger means fewer, fuller size buckets
    bad_rows: str = "stop"  # stop, or skip: leave unreadable rows out and count them
    cache: str = "none"  # of latents and text embeddings: none, memory, disk
    cache_dir: str = "outputs/cache"  # of cache=disk
    precompute: bool = False  # fill the cache before the first step, then free the text encoder's memory
    num_workers: int = 0  # processes that read and decode; 0: the main one


@dataclass
class FlowConfig:
    """The flow matching objective."""

    draw: str = "inference"  # of noise levels: inference, uniform, logit_normal, released
    stratified: bool = True  # spread the draws of a global batch evenly
    released_rounding: bool = False  # round t, noise and target to bfloat16, as the released code does


@dataclass
class OptimConfig:
    """The optimizer and its schedule."""

    name: str = "adamw"  # adamw, or muon (orthogonalised momentum; not with FSDP)
    lr: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # adamw
    eps: float = 1e-8  # adamw
    momentum: float = 0.95  # muon
    weight_decay: float = 0.0  # decoupled
    schedule: str = "constant"  # after the warm-up: constant, linear or cosine to 0; released: lr/3 for 5 ticks
    warmup_steps: int = 0  # linear from 0
    clip: float | None = None  # gradient norm; null: none
    ema: float | None = None  # decay of an average of the weights, which is then what is saved; null: none


@dataclass
class ValidationConfig:
    """Evidence while it runs."""

    every: int = 500  # steps; 0: never
    paths: list[str] = field(default_factory=list)  # held-out pairs; empty: data.paths
    split: str = "val"  # of a folder
    num_samples: int = 64  # evenly over the tasks
    sigmas: list[float] = field(default_factory=lambda: [0.1, 0.3, 0.5, 0.7, 0.9])  # fixed noise levels of the loss
    num_pictures: int = 8  # source | edit | ground truth, evenly over the tasks
    seed: int = 1234  # of the noise, the same at every validation


@dataclass
class WandbConfig:
    """Weights & Biases; metrics.jsonl is always written."""

    mode: str = "disabled"  # disabled, offline, online (WANDB_API_KEY from the environment)
    project: str = "etchr"


@dataclass
class SftConfig:
    """Options of `python -m etchr.sft`."""

    out: str = "outputs/sft"  # run folder; the same command goes on where it stopped
    seed: int = 0  # of adapter, data order, noise
    epochs: float = 1.0  # passes over the data; ignored if steps is set
    steps: int | None = None  # optimizer steps
    global_batch_size: int = 8  # pairs per optimizer step, over all processes
    batch_size: int = 1  # pairs in one forward; the rest of a process's share is accumulated
    model: ModelConfig = field(default_factory=ModelConfig)  # the editor
    adapter: AdapterConfig = field(default_factory=AdapterConfig)  # the LoRA
    data: DataConfig = field(default_factory=DataConfig)  # the pairs
    flow: FlowConfig = field(default_factory=FlowConfig)  # the objective
    optim: OptimConfig = field(default_factory=OptimConfig)  # the optimizer
    validation: ValidationConfig = field(default_factory=ValidationConfig)  # loss and pictures on held-out pairs
    wandb: WandbConfig = field(default_factory=WandbConfig)  # tracking beside metrics.jsonl
    log_every: int = 10  # steps per line of metrics.jsonl
    save_every: int = 500  # steps per checkpoint; the last step is always saved
    keep_checkpoints: int = 2  # older ones are removed
    device: str = "auto"  # auto: a GPU where there is one; cpu
    threads: int = 0  # CPU threads of a process; 0: torch's choice

    def __post_init__(self) -> None:
        _one_of("data.prompt", self.data.prompt, ("question", "instruction"))
        _one_of("data.geometry", self.data.geometry, ("native", "released"))
        _one_of("data.bad_rows", self.data.bad_rows, ("stop", "skip"))
        _one_of("data.cache", self.data.cache, ("none", "memory", "disk"))
        _one_of("flow.draw", self.flow.draw, DRAWS)
        _one_of("optim.name", self.optim.name, ("adamw", "muon"))
        _one_of("optim.schedule", self.optim.schedule, SCHEDULES)
        _one_of("model.dtype", self.model.dtype, ("auto", "bfloat16", "float32"))
        _one_of("adapter.dtype", self.adapter.dtype, ("bfloat16", "float32"))
        _one_of("wandb.mode", self.wandb.mode, ("disabled", "offline", "online"))
        _one_of("device", self.device, ("auto", "cpu"))
        for name, least in (
            ("global_batch_size", 1),
            ("batch_size", 1),
            ("log_every", 1),
            ("save_every", 1),
            ("keep_checkpoints", 1),
            ("threads", 0),
            ("adapter.rank", 1),
            ("data.num_workers", 0),
            ("optim.warmup_steps", 0),
            ("model.gradient_checkpointing", 0),
            ("validation.every", 0),
            ("validation.num_samples", 1),
            ("validation.num_pictures", 0),
        ):
            value = _lookup(self, name)
            if value < least:
                raise ValueError(f"{name}={value} must be at least {least}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1")
        if not 0 < self.epochs < math.inf:
            raise ValueError(f"epochs={self.epochs} must be above 0")
        if not 0 < self.optim.lr < math.inf:
            raise ValueError(f"optim.lr={self.optim.lr} must be above 0")
        if len(self.optim.betas) != 2 or not all(0 <= beta < 1 for beta in self.optim.betas):
            raise ValueError(f"optim.betas={self.optim.betas} must be two numbers from 0 to below 1")
        for name in ("optim.clip", "model.max_pixels"):
            if (value := _lookup(self, name)) is not None and value <= 0:
                raise ValueError(f"{name}={value} must be above 0, or null")
        for name in ("data.prompt_dropout", "adapter.dropout", "optim.ema"):
            if not 0 <= (_lookup(self, name) or 0) < 1:
                raise ValueError(f"{name}={_lookup(self, name)} must be at least 0 and below 1")
        if not self.data.paths:
            raise ValueError("data.paths is empty; name a Parquet file or folder")
        if self.data.bucket_step < 16 or self.data.bucket_step % 16:
            raise ValueError(f"data.bucket_step={self.data.bucket_step} must be a multiple of 16")
        if bad := {task: weight for task, weight in self.data.weights.items() if not 0 <= weight < 1000}:
            raise ValueError(f"data.weights={bad} must be from 0 (leave out) to 1000")
        if bad_sigmas := [sigma for sigma in self.validation.sigmas if not 0 < sigma <= 1]:
            raise ValueError(f"validation.sigmas={bad_sigmas} must be above 0 and at most 1")
        if self.data.precompute and self.data.cache == "none":
            raise ValueError("data.precompute=true fills a cache; choose data.cache=memory or disk")
        if self.data.cache == "memory" and self.data.num_workers:
            raise ValueError("data.cache=memory lives in the main process; set data.num_workers=0 or data.cache=disk")
        if self.optim.ema and self.adapter.dtype == "bfloat16":
            raise ValueError(
                "optim.ema averages in the adapter's dtype, and bfloat16 loses it; use adapter.dtype=float32"
            )
        if self.flow.released_rounding and self.flow.draw != "released":
            raise ValueError("flow.released_rounding=true belongs to flow.draw=released")


def _lookup(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(known)}")
