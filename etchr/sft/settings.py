"""Options of `python -m etchr.sft`. Loads without torch."""

from dataclasses import dataclass, field
from typing import Annotated

from etchr.checks import BelowOne, Count, Natural, OneOf, Positive
from etchr.flow import DRAWS
from etchr.training.settings import (
    AdapterConfig,
    Device,
    EditorConfig,
    OptimConfig,
    Prompt,
    WandbConfig,
    check_common,
)

Geometry = Annotated[str, OneOf("native", "released")]
Cache = Annotated[str, OneOf("none", "memory", "disk")]
LastBatch = Annotated[str, OneOf("drop", "wrap")]


@dataclass
class PairsConfig:
    """The training pairs."""

    paths: list[str] = field(default_factory=lambda: ["outputs/data/sft"])  # Parquet files or folders of them
    split: str = "train"  # of a folder, the files <split>*.parquet in it and one level below
    mixture: str | None = None  # YAML of data sets with weights and caps, which replaces paths and split
    weights: dict[str, float] = field(default_factory=dict)  # how often a task's pairs come in an epoch; default 1
    prompt: Prompt = "question"  # question: meta-prompt and question; instruction: the sample's explicit instruction
    router: str | None = None  # YAML of meta-prompts; null: configs/router/default.yaml
    prompt_dropout: BelowOne = 0.0  # share of samples trained without a prompt, for classifier-free guidance
    geometry: Geometry = "native"  # native: pairs at their own size, as at inference; released: as the released code
    bucketing: bool = True  # fill global batches with one size wherever possible; false: sizes mix, as released
    bucket_step: int = 16  # sides are floored to multiples of this: larger means fewer, fuller size buckets
    last_batch: LastBatch = "drop"  # of an epoch, if not full: drop it, or wrap: fill it from the front (released)
    bad_rows: Annotated[str, OneOf("stop", "skip")] = "stop"  # stop, or skip: leave unreadable rows out and count them
    cache: Cache = "none"  # of latents and text embeddings: none, memory, disk
    cache_dir: str = "outputs/cache"  # of cache=disk
    precompute: bool = False  # fill the cache before the first step, then free the text encoder's memory
    num_workers: Natural = 0  # processes that read and decode; 0: the main one


@dataclass
class FlowConfig:
    """The flow matching objective."""

    draw: Annotated[str, OneOf(*DRAWS)] = "inference"  # of noise levels: inference, uniform, logit_normal, released
    stratified: bool = True  # spread the draws of a global batch evenly
    released_rounding: bool = False  # bfloat16 t, noise, target and pixels, as the released code has them


@dataclass
class SftValidationConfig:
    """Evidence while it runs."""

    every: Natural = 500  # steps; 0: never
    paths: list[str] = field(default_factory=list)  # held-out pairs; empty: data.paths
    split: str = "val"  # of a folder
    num_samples: Count = 64  # evenly over the tasks
    sigmas: list[float] = field(default_factory=lambda: [0.1, 0.3, 0.5, 0.7, 0.9])  # fixed noise levels of the loss
    num_pictures: Natural = 8  # source | edit | ground truth, evenly over the tasks
    seed: int = 1234  # of the noise, the same at every validation


@dataclass
class SftConfig:
    """Options of `python -m etchr.sft`."""

    out: str = "outputs/sft"  # run folder; the same command goes on where it stopped
    seed: int = 0  # of adapter, data order, noise
    epochs: Positive = 1.0  # passes over the data; ignored if steps is set
    steps: Count | None = None  # optimizer steps
    global_batch_size: Count = 8  # pairs per optimizer step, over all processes
    batch_size: Count = 1  # pairs in one forward; the rest of a process's share is accumulated
    model: EditorConfig = field(default_factory=EditorConfig)  # the editor
    adapter: AdapterConfig = field(default_factory=AdapterConfig)  # the LoRA
    data: PairsConfig = field(default_factory=PairsConfig)  # the pairs
    flow: FlowConfig = field(default_factory=FlowConfig)  # the objective
    optim: OptimConfig = field(default_factory=OptimConfig)  # the optimizer
    validation: SftValidationConfig = field(default_factory=SftValidationConfig)  # loss and pictures on held-out pairs
    wandb: WandbConfig = field(default_factory=WandbConfig)  # tracking beside metrics.jsonl
    log_every: Count = 10  # steps per line of metrics.jsonl
    save_every: Count = 500  # steps per checkpoint; the last step is always saved
    keep_checkpoints: Count = 2  # older ones are removed
    device: Device = "auto"  # auto: a GPU where there is one; cpu
    threads: Natural = 0  # CPU threads of a process; 0: torch's choice

    def __post_init__(self) -> None:
        check_common(self)
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
        if self.flow.released_rounding and self.flow.draw != "released":
            raise ValueError("flow.released_rounding=true belongs to flow.draw=released")
