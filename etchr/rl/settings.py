"""Options of `python -m etchr.rl`. Loads without torch."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Interval

from etchr.checks import Count, Natural, NotNegative, OneOf, Positive, Share, one_of
from etchr.flow import SDES
from etchr.rewards.settings import RewardConfig
from etchr.rl import ADVANTAGES
from etchr.rl.algorithms import ALGORITHMS
from etchr.training.settings import (
    AdapterConfig,
    Device,
    EditorConfig,
    OptimConfig,
    Prompt,
    WandbConfig,
    check_common,
)

Trained = Annotated[str, OneOf("all", "fraction", "window")]


@dataclass
class PromptConfig:
    """The training prompts: samples with a question and an answer; a ground-truth edit only where the judge sees it."""

    paths: list[str] = field(default_factory=lambda: ["outputs/data/rl"])  # Parquet files or folders of them
    split: str = "train"  # of a folder, the files <split>*.parquet in it and one level below
    mixture: str | None = None  # YAML of data sets with weights and caps, which replaces paths and split
    weights: dict[str, float] = field(default_factory=dict)  # how often a task's prompts come in an epoch; default 1
    prompt: Prompt = "question"  # question: meta-prompt and question; instruction: the sample's explicit instruction
    router: str | None = None  # YAML of meta-prompts; null: configs/router/default.yaml


@dataclass
class RolloutConfig:
    """How edits are sampled; null takes the setting of inference. SDE steps are for kind=grpo."""

    num_steps: Annotated[int, Ge(2)] | None = None  # denoising steps
    guidance_scale: NotNegative | None = None  # classifier-free guidance; 1 is none
    shift: Positive | None = None  # of the noise levels; null: the scheduler's, which depends on the picture's size
    sde: Annotated[str, OneOf(*SDES)] = "flow"  # grpo: stochastic step: flow, dance or cps
    eta: Positive = 0.7  # its noise
    trained: Trained = "window"  # grpo: steps that are trained: all, fraction, window
    fraction: Annotated[float, Interval(gt=0, le=1)] = 0.6  # trained=fraction: share of the steps, drawn for every edit
    window: Count = 2  # trained=window: consecutive steps, the same for a whole group; the others are ODE steps
    window_range: list[float] = field(default_factory=lambda: [0.0, 0.6])  # part of the walk that windows lie in
    same_noise: bool = False  # all edits of a prompt start from the same noise
    released_rounding: bool = False  # grpo: bfloat16 latents after the log-probability, times cut to 1/1000


@dataclass
class ObjectiveConfig:
    """The policy objective."""

    kind: str = "grpo"  # grpo: clipped ratio over the steps of an SDE sampler; nft: DiffusionNFT, with an ODE sampler
    advantage: Annotated[str, OneOf(*ADVANTAGES)] = "win_rate"  # win_rate (paper), gdpo (released code), zscore
    ties: Share = 0.5  # win_rate: what a tie counts
    margin: Share = 0.0  # win_rate: rewards that differ by no more are a tie; above 0 for dense rewards
    clip: Annotated[float, Interval(gt=0, lt=1)] = 1e-4  # of the importance ratio, below 1
    clip_high: Positive | None = None  # above 1; null: as below
    normalise_ratio: bool = True  # ratio normalisation of GRPO-Guard
    max_advantage: Positive = 5.0  # advantages are cut to this
    num_levels: Count = 2  # nft: noise levels at which an edit is trained
    beta: Positive = 1.0  # nft: how far v+ and v- lie from the old velocity
    kl: NotNegative = 0.0  # weight of the KL to the policy at the start


@dataclass
class RlValidationConfig:
    """Evidence while it runs: held-out prompts, edited with the settings of inference."""

    every: Natural = 50  # iterations; 0: never
    paths: list[str] = field(default_factory=list)  # held-out prompts; empty: data.paths
    split: str = "val"  # of a folder
    num_samples: Count = 64  # evenly over the tasks
    num_pictures: Natural = 8  # source and edit with their scores, evenly over the tasks
    seed: int = 1234  # of the noise, the same at every validation


@dataclass
class RlConfig:
    """Options of `python -m etchr.rl`."""

    out: str = "outputs/rl"  # run folder; the same command goes on where it stopped
    seed: int = 0  # of adapter, order of the prompts, noise, the models' sampling
    iterations: Count | None = None  # rollouts; null: epochs
    epochs: Positive = 1.0  # passes over the prompts; ignored if iterations is set
    prompts_per_iteration: Count = 8  # P, over all processes
    group_size: Annotated[int, Ge(2)] = 8  # G, edits of a prompt
    updates_per_iteration: Count = 2  # optimizer steps on one rollout
    batch_size: Count = 8  # edits in one forward, of one group
    sft: str | None = None  # Stage I adapter that is merged into the base; the new LoRA is trained over it
    model: EditorConfig = field(default_factory=EditorConfig)  # the editor
    adapter: AdapterConfig = field(default_factory=lambda: AdapterConfig(rank=64, alpha=128))  # the LoRA
    data: PromptConfig = field(default_factory=PromptConfig)  # the prompts
    rollout: RolloutConfig = field(default_factory=RolloutConfig)  # the sampler
    reward: RewardConfig = field(default_factory=RewardConfig)  # guidance and correctness
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)  # advantage, ratio, clip
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-5, weight_decay=1e-4, clip=1.0))  # optimizer
    validation: RlValidationConfig = field(default_factory=RlValidationConfig)  # rewards of held-out prompts
    wandb: WandbConfig = field(default_factory=WandbConfig)  # tracking beside metrics.jsonl
    pictures_every: Natural = 50  # iterations per sheet of sampled edits with their scores; 0: never
    save_every: Count = 50  # iterations per checkpoint; the last one is always saved
    keep_checkpoints: Count = 2  # older ones are removed
    device: Device = "auto"  # auto: a GPU where there is one; cpu
    threads: Natural = 0  # CPU threads of a process; 0: torch's choice

    def __post_init__(self) -> None:
        check_common(self)
        one_of("objective.kind", self.objective.kind, tuple(ALGORITHMS))
        if self.rollout.sde == "cps" and self.rollout.eta >= 1:
            raise ValueError(
                f"rollout.eta={self.rollout.eta} must be below 1 for cps, where 1 leaves nothing but noise"
            )
        begin, end = [*self.rollout.window_range, 0, 0][:2]
        if len(self.rollout.window_range) != 2 or not 0 <= begin < end <= 1:
            raise ValueError(
                f"rollout.window_range={self.rollout.window_range} must be two numbers, 0 <= from < to <= 1"
            )
        if self.adapter.dropout:
            raise ValueError("adapter.dropout must be 0: with dropout the policy that samples is not the one trained")
        if self.sft is not None and self.adapter.init is not None:
            raise ValueError(
                "sft=... trains a new LoRA over the merged Stage I adapter and adapter.init=... goes on with that "
                "adapter itself; give one of the two"
            )
        pieces = -(-self.group_size // self.batch_size) * self.prompts_per_iteration
        if pieces % self.updates_per_iteration:
            raise ValueError(
                f"a rollout of {pieces} batches does not split into updates_per_iteration="
                f"{self.updates_per_iteration} equal parts; change prompts_per_iteration or batch_size"
            )
