"""The options of the rewards. Loads without torch."""

from dataclasses import dataclass, field

from etchr.checks import one_of
from etchr.mllm.judge import GRADERS
from etchr.mllm.settings import ModelConfig
from etchr.rewards import REWARDS


@dataclass
class GuidanceConfig:
    """How the guidance reward asks."""

    kind: str = "guidance"  # the reward, by its name in etchr/rewards/__init__.py
    view: str = "both"  # what M sees: both (source and edit) or edit (the edit alone)
    grade: str = "auto"  # auto: rules, and free text that they find wrong by a second, text-only call; text: all free
    # text by that call (paper); model: all answers by it (released); rules: rules alone
    dense: bool = False  # option questions: probability of the right letter instead of a share of decodings

    def __post_init__(self) -> None:
        one_of("guidance.kind", self.kind, tuple(REWARDS))
        one_of("guidance.view", self.view, ("both", "edit"))
        one_of("guidance.grade", self.grade, GRADERS)


@dataclass
class CorrectnessConfig:
    """How the correctness reward asks."""

    kind: str = "correctness"  # likewise
    view: str = "both"  # what J sees: both (source and edit), edit (alone) or truth (source, edit, ground-truth edit)
    dense: bool = False  # probability of the positive verdict token instead of a share of decodings

    def __post_init__(self) -> None:
        one_of("correctness.kind", self.kind, tuple(REWARDS))
        one_of("correctness.view", self.view, ("both", "edit", "truth"))


@dataclass
class RewardConfig:
    """How edits are rewarded: R = alpha r_guide + (1 - alpha) r_correct, each over K decodings of a model."""

    guidance_weight: float = 0.5  # alpha; correctness weighs 1 - alpha. A reward of weight 0 is not asked for
    num_decodings: int = 8  # K, of each reward
    temperature: float = 0.7  # of the decodings; dense rewards take one decoding at temperature 0
    max_tokens: int = 1024  # of one decoding; a reply that is cut off there counts as not given
    retries: int = 2  # times that what could not be read is asked for again, with another seed
    overlap: bool = True  # ask while sampling goes on; false: only after it, as the released code does
    max_missing: float = 0.5  # share of a rollout's edits without a score above which the run stops
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)  # M answers the question from the edit
    correctness: CorrectnessConfig = field(default_factory=CorrectnessConfig)  # J says whether the edit is right
    reasoner: ModelConfig = field(default_factory=ModelConfig)  # M, which answers
    judge: ModelConfig | None = None  # J; null: the reasoner

    def __post_init__(self) -> None:
        for name in ("guidance_weight", "max_missing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie between 0 and 1")
        for name, least in (("num_decodings", 1), ("max_tokens", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be {least} or more")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature={self.temperature} must lie between 0 and 2")
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
