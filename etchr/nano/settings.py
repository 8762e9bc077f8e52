"""Options of `python -m etchr.nano.train`. Loads without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from etchr.checks import BelowOne, Count, Natural, Share, check

# How often a task's samples come in an epoch: views are the hardest to draw, paths the easiest.
EMPHASIS = {"perception": 2, "chart": 3, "maze": 2, "frozen_lake": 2, "jigsaw": 3, "view3d": 5}
LAST_EMPHASIS = {"jigsaw": 6, "view3d": 2}  # what is still drawn wrong


class Course(NamedTuple):
    """A part of the transformer's training, with optimizers, a warm-up and an average of the weights of its own."""

    first: int  # number of its first step in the whole training
    steps: int
    rate: float  # what the learning rates are multiplied by
    emphasis: Mapping[str, int]


@dataclass
class NanoConfig:
    """Options of `python -m etchr.nano.train`."""

    data: str = "outputs/nano/instructions"  # folder with <task>/train.parquet of explicit instructions
    questions: str = "outputs/nano/questions"  # the same of questions: the tokenizer learns their words, nothing else
    out: str = "outputs/nano/base"  # the finished klein folder
    seed: int = 0  # of the weights, the data order, the noise
    vae_steps: Count = 4000  # of the VAE, first of all
    decoder_steps: Natural = 3000  # further ones of the VAE's decoder alone
    vae_batch_size: Count = 32  # pictures a step of it
    vae_lr: float = 4e-3  # its learning rate
    steps: Count = 13000  # of the transformer
    batch_size: Count = 16  # samples a step of the transformer, over all processes
    muon_lr: float = 0.02  # block matrices
    adamw_lr: float = 2e-3  # all other weights
    warmup_steps: Count = 50  # of the learning rates, linear from 0
    prompt_dropout: BelowOne = 0.05  # share of samples that train the unconditional velocity, for guidance
    ema: BelowOne = 0.998  # decay of the average of the weights, which is what is saved
    emphasis: dict[str, int] = field(default_factory=EMPHASIS.copy)  # how often a task's samples come in an epoch
    last_steps: Natural = 3000  # of the transformer, a second course after the first
    last_rate: Share = 0.75  # its learning rates as a share of the first course's
    last_emphasis: dict[str, int] = field(default_factory=LAST_EMPHASIS.copy)  # how often a task's samples come in it
    compile: str | None = None  # backend for the blocks; inductor is a third faster and needs a C++ compiler
    checkpoint_every: Count = 500  # steps; the same command goes on from the last checkpoint
    threads: int = 0  # of a process; 0: torch's choice

    def __post_init__(self) -> None:
        check(self)
        for name in ("emphasis", "last_emphasis"):
            if bad := {task: count for task, count in getattr(self, name).items() if count < 1}:
                raise ValueError(f"{name}={bad} must be at least 1 for every task")

    def courses(self) -> list[Course]:
        """What the transformer's training consists of."""
        last = Course(self.steps, self.last_steps, self.last_rate, self.last_emphasis)
        return [Course(0, self.steps, 1.0, self.emphasis), *([last] if self.last_steps else [])]
