"""Options of `python -m etchr.editor.nano`. Loads without torch."""

from dataclasses import dataclass, field, replace

# How often a task's samples come in an epoch. First words are bound to things; then what has to be drawn exactly.
FIRST = {"perception": 2, "chart": 2, "maze": 3, "jigsaw": 3, "view3d": 3}
SECOND = {"maze": 2, "frozen_lake": 3, "jigsaw": 5, "view3d": 7}


@dataclass
class NanoConfig:
    """Options of `python -m etchr.editor.nano`."""

    data: str = "outputs/nano/instructions"  # folder with <task>/train.parquet of explicit instructions
    questions: str = "outputs/nano/questions"  # the same of questions: the tokenizer learns their words, nothing else
    out: str = "outputs/nano/base"  # the finished klein folder
    seed: int = 0
    vae_steps: int = 4000
    decoder_steps: int = 3000  # further ones of the VAE's decoder alone
    vae_batch_size: int = 32
    vae_lr: float = 4e-3
    steps: int = 25000  # of the transformer, in a first course
    second_steps: int = 8000  # in a second course, its learning rate from the start again; 0: none
    batch_size: int = 16
    muon_lr: float = 0.02  # block matrices
    adamw_lr: float = 2e-3  # all other weights
    warmup_steps: int = 50
    prompt_dropout: float = 0.05  # share of samples that train the unconditional velocity, for guidance
    ema: float = 0.998
    emphasis: dict[str, int] = field(default_factory=FIRST.copy)  # how often a task's samples come in an epoch
    second_emphasis: dict[str, int] = field(default_factory=SECOND.copy)  # the same in the second course
    compile: str | None = None  # backend for the blocks; inductor is a third faster and needs a C++ compiler
    checkpoint_every: int = 500  # steps; the same command goes on from the last checkpoint
    threads: int = 0  # of a process; 0: torch's choice

    def __post_init__(self) -> None:
        for name in ("vae_steps", "vae_batch_size", "steps", "batch_size", "warmup_steps", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("decoder_steps", "second_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0")
        for name in ("prompt_dropout", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0 and below 1")
        for name in ("emphasis", "second_emphasis"):
            if bad := {task: count for task, count in getattr(self, name).items() if count < 1}:
                raise ValueError(f"{name}={bad} must be at least 1 for every task")

    def courses(self) -> list["NanoConfig"]:
        """The options of each course of the transformer's training."""
        if not self.second_steps:
            return [self]
        return [self, replace(self, steps=self.second_steps, emphasis=self.second_emphasis, seed=self.seed + 1)]
