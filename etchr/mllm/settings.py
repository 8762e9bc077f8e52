"""Which understanding model a command talks to: its options, and the model that they describe. Loads without torch."""

import hashlib
import inspect
import math
from dataclasses import dataclass, field
from typing import Any

from etchr.mllm.protocol import MLLM


@dataclass
class ModelConfig:
    """An understanding model, as options name it."""

    kind: str = "reader"  # reader: the embedded one; http: an OpenAI-compatible endpoint
    model: str = ""  # http: name of the served model
    base_urls: list[str] = field(default_factory=list)  # http: one or more endpoints, such as http://host:8000/v1
    api_key_env: str = "OPENAI_API_KEY"  # http: NAME of the environment variable that holds the key
    timeout_s: float = 300.0  # http: of one attempt
    max_retries: int = 6  # http: rounds over all endpoints before a sample is unscored
    max_concurrency: int = 32  # http: calls in flight
    max_image_pixels: int | None = None  # http: images are sent whole unless this cap is set
    top_logprobs: int | None = None  # http: candidates per token, for dense rewards; null: no log-probabilities
    extra_body: dict[str, Any] = field(default_factory=dict)  # http: sent too: {top_p: 0.8}; {seed: null} leaves it out
    error_rate: float = 0.0  # reader: share of wrong decodings at temperature > 0
    seed: int = 0  # reader: of those errors
    latency_s: float = 0.0  # reader: seconds before each reply, to imitate a server

    def __post_init__(self) -> None:
        if self.kind not in ("reader", "http"):
            raise ValueError(f"model kind {self.kind!r} must be reader or http")
        if not 0 <= self.error_rate <= 1:
            raise ValueError(f"error_rate={self.error_rate} must lie between 0 and 1")
        if not 0 <= self.latency_s < math.inf:
            raise ValueError(f"latency_s={self.latency_s} must be a number from 0 up")
        if self.kind == "http" and not (self.model and self.base_urls):
            raise ValueError("a model of kind http needs model=NAME and base_urls=[http://...]")


def build_model(config: ModelConfig, jitter_seed: int = 0) -> MLLM:
    """The understanding model that `config` describes; processes that run together give a `jitter_seed` each."""
    if config.kind == "reader":
        from etchr.mllm.reader import Reader

        return Reader(config.error_rate, config.seed, latency_s=config.latency_s)
    from etchr.mllm.chat import ChatClient, ChatSettings

    return ChatClient(
        ChatSettings(
            base_urls=tuple(config.base_urls),
            model=config.model,
            api_key_env=config.api_key_env,
            timeout_s=config.timeout_s,
            max_retries=config.max_retries,
            max_concurrency=config.max_concurrency,
            max_image_pixels=config.max_image_pixels,
            top_logprobs=config.top_logprobs,
            extra_body=dict(config.extra_body),
            jitter_seed=jitter_seed,
        )
    )


def model_fingerprint(config: ModelConfig) -> dict[str, Any]:
    """What decides a model's replies, as JSON: not where it is served; for the reader a digest of its source."""
    keys = ("kind", "model", "error_rate", "seed", "max_image_pixels", "extra_body")
    values = {key: getattr(config, key) for key in keys}
    if config.top_logprobs is not None:  # a reply without them is another one
        values["top_logprobs"] = config.top_logprobs
    if config.kind == "reader":
        from etchr.mllm import reader, sight, skills, wishes

        source = "".join(inspect.getsource(module) for module in (reader, sight, skills, wishes))
        values["version"] = hashlib.sha256(source.encode()).hexdigest()[:16]
    return values
