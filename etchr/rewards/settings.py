"""The options of the rewards. Loads without torch."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Interval

from etchr.checks import Count, Natural, OneOf, Share, check
from etchr.mllm.judge import Grader
from etchr.mllm.settings import ModelConfig
from etchr.rewards import REWARDS

Reward = Annotated[str, OneOf(REWARDS)]
View = Annotated[str, OneOf("both", "edit")]
JudgeView = Annotated[str, OneOf("both", "edit", "truth")]


@dataclass
class GuidanceConfig:
    """How the guidance reward asks."""

    kind: Reward = "guidance"  # the reward, by its name in etchr/rewards/__init__.py
    view: View = "both"  # what M sees: both (source and edit) or edit (the edit alone)
    grade: Grader = "auto"  # rules; model (a text-only call); text: it for free text (paper); auto: it where rules fail
    dense: bool = False  # option questions: probability of the right letter instead of a share of decodings

    def __post_init__(self) -> None:
        check(self, "guidance.")


@dataclass
class CorrectnessConfig:
    """How the correctness reward asks."""

    kind: Reward = "correctness"  # the reward, by its name in etchr/rewards/__init__.py
    view: JudgeView = "both"  # what J sees: both (source and edit), edit, or truth (source, edit, ground-truth edit)
    dense: bool = False  # probability of the positive verdict token instead of a share of decodings

    def __post_init__(self) -> None:
        check(self, "correctness.")


@dataclass
class RewardConfig:
    """How edits are rewarded: R = alpha r_guide + (1 - alpha) r_correct, each over K decodings of a model."""

    guidance_weight: Share = 0.5  # alpha; correctness weighs 1 - alpha. A reward of weight 0 is not asked for
    num_decodings: Count = 8  # K, of each reward
    temperature: Annotated[float, Interval(ge=0, le=2)] = 0.7  # of the decodings; a dense reward takes one at 0
    max_tokens: Count = 1024  # of one decoding; a reply that is cut off there counts as not given
    prompts: Annotated[str, OneOf("ours", "released")] = "ours"  # released: short, and the bare reply counts (RL.md)
    retries: Natural = 2  # times that what could not be read is asked for again, with another seed
    overlap: bool = True  # ask while sampling goes on; false: only after it, as the released code does
    max_missing: Share = 0.5  # share of a rollout's edits without a score above which the run stops
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)  # M answers the question from the edit
    correctness: CorrectnessConfig = field(default_factory=CorrectnessConfig)  # J says whether the edit is right
    reasoner: ModelConfig = field(default_factory=ModelConfig)  # M, which answers
    judge: ModelConfig | None = None  # J; null: the reasoner

    def __post_init__(self) -> None:
        check(self)
        if self.temperature == 0 and self.num_decodings > 1:
            raise ValueError(
                f"temperature=0 makes all {self.num_decodings} decodings alike; set num_decodings=1 or a temperature"
            )
        if self.guidance_weight > 0:
            self._check_model("guidance", "reasoner", self.reasoner)
        if self.guidance_weight < 1:
            self._check_model("correctness", "judge" if self.judge else "reasoner", self.judge or self.reasoner)

    def _check_model(self, reward: str, role: str, model: ModelConfig) -> None:
        """`ValueError` if `model` cannot give what the options of `reward` want of it."""
        options: GuidanceConfig | CorrectnessConfig = getattr(self, reward)
        if options.dense and model.kind == "http" and model.top_logprobs is None:
            raise ValueError(f"{reward}.dense=true needs log-probabilities: set {role}.top_logprobs=20 (it is null)")
        if options.view == "edit" and model.kind == "reader":
            raise ValueError(
                f"{reward}.view=edit does not work with {role}.kind=reader, which compares an edit with its source: "
                f"set {reward}.view=both or {role}.kind=http"
            )
