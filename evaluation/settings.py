"""Options of `python -m evaluation`: what is compared, on what, with which models."""

import math
from dataclasses import dataclass, field

from etchr.mllm.settings import ModelConfig

KINDS = ("direct", "evr", "always_edit", "oracle_edit")
PROMPTS = ("question", "instruction")


@dataclass
class SystemConfig:
    """One row of the table."""

    kind: str = "direct"  # direct, evr, always_edit or oracle_edit (the ground-truth edit: the ceiling)
    editor: str | None = None  # a klein folder, a hub id, or nano: the base editor kept in the repository
    lora: str | None = None  # an adapter file or folder for the editor
    prompt: str = "question"  # question: meta-prompt and question; instruction: the sample's explicit instruction
    group: str | None = None  # systems of one group are seeds of one method: the report adds a row of their mean

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"system kind {self.kind!r} must be one of {', '.join(KINDS)}")
        if self.prompt not in PROMPTS:
            raise ValueError(f"system prompt {self.prompt!r} must be one of {', '.join(PROMPTS)}")
        if (self.kind in ("evr", "always_edit")) != (self.editor is not None):
            raise ValueError(f"a system of kind {self.kind} {'has no' if self.editor else 'needs an'} editor")


@dataclass
class EditingConfig:
    """How editors are run; null takes the setting of the editor's folder."""

    seed: int = 126  # with a sample's id it gives that sample's noise; also the models' sampling seed
    batch_size: int = 16  # edits that run together
    num_inference_steps: int | None = None  # denoising steps
    guidance_scale: float | None = None  # classifier-free guidance; 1 is none
    max_pixels: int | None = None  # larger sources are scaled down

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("num_inference_steps", 1), ("max_pixels", 256)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"editing.{name}={value} must be at least {least}")
        if self.guidance_scale is not None and not 0 <= self.guidance_scale < math.inf:
            raise ValueError(f"editing.guidance_scale={self.guidance_scale} must be a number from 0 up")


@dataclass
class EvalConfig:
    """Options of `python -m evaluation`."""

    systems: dict[str, SystemConfig] = field(default_factory=dict)  # rows of the table
    reference: str = "direct"  # the row that the others are compared with, sample by sample
    data: str = "outputs/data"  # folder with <task>/test.parquet, made by python -m data_prep
    tasks: list[str] = field(default_factory=list)  # folders below data; empty: all six procedural tasks
    num_samples: int | None = None  # per task, the first ones; null: all
    out: str = "outputs/evaluation"  # run folder; the same command goes on where it stopped
    reasoner: ModelConfig = field(default_factory=ModelConfig)  # the model M that answers
    verifier: ModelConfig | None = None  # the model that verifies; null: the reasoner
    temperature: float = 0.0  # of both
    max_tokens: int = 4096  # of a reply
    router: str | None = None  # YAML of meta-prompts; null: configs/router/default.yaml
    editing: EditingConfig = field(default_factory=EditingConfig)  # how editors are run
    concurrency: int = 32  # samples in flight
    gallery_per_task: int = 40  # samples of each task in report.html

    def __post_init__(self) -> None:
        if "all" in self.systems:
            raise ValueError("a system may not be called all: the report gives that name to all of them together")
        if not self.systems:
            raise ValueError("no systems to compare; choose an experiment=NAME or set systems")
        if self.reference not in (*self.systems, "direct"):
            raise ValueError(f"reference={self.reference!r} is no system; there are: {', '.join(self.systems)}")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature={self.temperature} must lie between 0 and 2")
        for name in ("concurrency", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.num_samples is not None and self.num_samples < 1:
            raise ValueError(f"num_samples={self.num_samples} must be at least 1")
