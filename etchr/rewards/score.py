"""The score of an edit: both rewards, asked for together, and what they come to."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Self

from PIL import Image

from etchr.mllm.journal import CallJournal, JournaledModel
from etchr.mllm.protocol import MLLM, CallFailed
from etchr.mllm.settings import ModelConfig, build_model, model_fingerprint
from etchr.rewards import find
from etchr.rewards.decodings import NoLogprobsError
from etchr.rewards.settings import RewardConfig
from etchr.sample import EditSample
from etchr.seeds import hash_seed


@dataclass(frozen=True)
class Score:
    """What the rewards say of one edit. An edit without a score is *missing*, which is never the same as 0."""

    guidance: float | None  # r_guide in 0..1; None: not asked for, or missing
    correctness: float | None  # r_correct in 0..1; None likewise
    missing: str | None = None  # why this edit has no score; None: it has one

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """The score in a JSON object; `ValueError` if it holds none."""
        values = {name: record.get(name) for name in ("guidance", "correctness")}
        for name, value in values.items():
            if value is not None and not (type(value) in (int, float) and 0 <= value <= 1):
                raise ValueError(f"a score's {name} must be null or a number between 0 and 1, got {value!r}")
        missing = record.get("missing")
        if missing is not None and not isinstance(missing, str):
            raise ValueError(f"a score's missing must be null or a text, got {missing!r}")
        return cls(**values, missing=missing)


class EditRewards:
    """The rewards of a run: its models and its options."""

    def __init__(self, reasoner: MLLM, judge: MLLM, config: RewardConfig, journal: CallJournal | None = None) -> None:
        self.reasoner, self.judge, self.config, self.journal = reasoner, judge, config, journal
        self._is_dense: set[str] = set()  # rewards whose model has given log-probabilities

    @classmethod
    def from_config(cls, config: RewardConfig, jitter_seed: int = 0, journal: CallJournal | None = None) -> Self:
        """With the models that `config` names, asked for what `journal` does not hold.

        Processes that run together give a `jitter_seed` each.
        """

        def made(settings: ModelConfig) -> MLLM:
            model = build_model(settings, jitter_seed)
            return model if journal is None else JournaledModel(model, model_fingerprint(settings), journal)

        reasoner = made(config.reasoner)
        return cls(reasoner, made(config.judge) if config.judge else reasoner, config, journal)

    def models(self) -> list[MLLM]:
        """The models to open, each once: the reasoner, whom validation asks too, and a judge that is asked at all."""
        apart = self.judge is not self.reasoner and self.config.guidance_weight < 1
        return [self.reasoner, self.judge] if apart else [self.reasoner]

    async def score(self, sample: EditSample, edit: Image.Image, seed: int) -> Score:
        """The score of `edit`, both rewards asked for at once; replies that are not to be had make it missing.

        `ValueError` for what no reply can mend: a sample without a readable answer, a model without log-probabilities.
        """
        config, alpha = self.config, self.config.guidance_weight
        first, second = hash_seed(seed, 1), hash_seed(seed, 2)  # unrelated draws where M and J are one model
        guidance, correctness = find(config.guidance.kind), find(config.correctness.kind)
        guided, correct = await asyncio.gather(
            self._attempt("guidance", alpha, lambda: guidance(self.reasoner, sample, edit, config, first)),
            self._attempt("correctness", 1 - alpha, lambda: correctness(self.judge, sample, edit, config, second)),
        )
        reasons = "; ".join(reason for _, reason in (guided, correct) if reason)
        return Score(guided[0], correct[0], reasons or None)

    async def _attempt(
        self, name: str, weight: float, reward: Callable[[], Awaitable[float]]
    ) -> tuple[float | None, str]:
        """The value of a reward, or why there is none; one without weight is not asked for.

        That a reply lacks log-probabilities is an error while none has had them, for then no reply can mend it.
        """
        if weight == 0:
            return None, ""
        try:
            value = await reward()
        except NoLogprobsError as error:
            if name not in self._is_dense:
                raise
            return None, f"{name}: {error}"
        except CallFailed as error:
            return None, f"{name}: {error}"
        self._is_dense.add(name)
        return value, ""
