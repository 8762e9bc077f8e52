"""Options of `python -m etchr.nano.train`. Loads without torch."""

from dataclasses import dataclass, field

from etchr.checks import BelowOne, Count, Natural, check

# How often a task's samples come in an epoch: views are the hardest to draw, paths the easiest.
EMPHASIS = {"perception": 2, "chart": 3, "maze": 2, "frozen_lake": 2, "jigsaw": 3, "view3d": 5}


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
    compile: str | None = None  # backend for the blocks; inductor is a third faster and needs a C++ compiler
    checkpoint_every: Count = 500  # steps; the same command goes on from the last checkpoint
    threads: int = 0  # of a process; 0: torch's choice

    def __post_init__(self) -> None:
        check(self)
        if bad := {task: count for task, count in self.emphasis.items() if count < 1}:
            raise ValueError(f"emphasis={bad} must be at least 1 for every task")
