"""Which understanding model a command talks to: its options, and the model that they describe. Loads without torch."""

import hashlib
import inspect
import math
from dataclasses import dataclass, field
from typing import Any

from etchr.http.endpoints import MAX_RETRIES
from etchr.mllm.protocol import MLLM

LEAST_RESOLUTION = 16  # px; below, no picture of the tasks shows anything


@dataclass
class ModelConfig:
    """An understanding model, as options name it."""

    kind: str = "reader"  # reader: the embedded one; http: an OpenAI-compatible endpoint
    model: str = ""  # http: name of the served model
    base_urls: list[str] = field(default_factory=list)  # http: one or more endpoints, such as http://host:8000/v1
    api_key_env: str = "OPENAI_API_KEY"  # http: NAME of the environment variable that holds the key
    timeout_s: float = 300.0  # http: of one attempt
    max_retries: int = MAX_RETRIES  # http: rounds over all endpoints before a sample is unscored; 16: some 3 minutes
    max_concurrency: int = 32  # http: calls in flight
    max_image_pixels: int | None = None  # http: images are sent whole unless this cap is set
    top_logprobs: int | None = None  # http: candidates per token, for dense rewards; null: no log-probabilities
    token_limit_field: str | None = None  # http: max_tokens, or max_completion_tokens of newer models; null: found out
    extra_body: dict[str, Any] = field(default_factory=dict)  # http: sent too: {top_p: 0.8}; {seed: null} leaves it out
    error_rate: float = 0.0  # reader: share of wrong decodings at temperature > 0
    seed: int = 0  # reader: of its errors
    misread_rate: float = 0.0  # reader: share of wrong readings, at any temperature
    resolution: int | None = None  # reader: px a side that are seen of a larger picture; null: all
    threshold: float | None = None  # reader: confidence from which an edit is accepted; null: that of a blind guess
    latency_s: float = 0.0  # reader: seconds before each reply, to imitate a server

    def __post_init__(self) -> None:
        if self.kind not in ("reader", "http"):
            raise ValueError(f"model kind {self.kind!r} must be reader or http")
        check_reader(self.error_rate, self.resolution, self.misread_rate, self.threshold)
        if not 0 <= self.latency_s < math.inf:
            raise ValueError(f"latency_s={self.latency_s} must be a number from 0 up")
        if self.kind == "http" and not (self.model and self.base_urls):
            raise ValueError("a model of kind http needs model=NAME and base_urls=[http://...]")


def check_reader(error_rate: float, resolution: int | None, misread_rate: float, threshold: float | None) -> None:
    """`ValueError` unless a reader can be so."""
    for name, value in (("error_rate", error_rate), ("misread_rate", misread_rate)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value} must lie between 0 and 1")
    if threshold is not None:
        check_threshold(threshold, "threshold")
    if resolution is not None and resolution < LEAST_RESOLUTION:
        raise ValueError(f"resolution={resolution} must be at least {LEAST_RESOLUTION} px, or null")


def check_threshold(value: float, name: str) -> None:
    """`ValueError` unless a confidence can lie on either side of `value`."""
    if not 0 < value < 1:
        raise ValueError(f"{name}={value} must lie above 0 and below 1")


def build_model(config: ModelConfig, jitter_seed: int = 0) -> MLLM:
    """The understanding model that `config` describes; processes that run together give a `jitter_seed` each."""
    if config.kind == "reader":
        from etchr.nano.reader import Reader

        return Reader(
            config.error_rate,
            config.seed,
            resolution=config.resolution,
            misread_rate=config.misread_rate,
            threshold=config.threshold,
            latency_s=config.latency_s,
        )
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
            token_limit_field=config.token_limit_field,
            extra_body=dict(config.extra_body),
            jitter_seed=jitter_seed,
        )
    )


def model_fingerprint(config: ModelConfig) -> dict[str, Any]:
    """What decides a model's replies, as JSON: not where it is served; of the reader a digest of source and weights."""
    keys = ("kind", "model", "error_rate", "seed", "max_image_pixels", "extra_body")
    values = {key: getattr(config, key) for key in keys}
    if config.top_logprobs is not None:  # a reply without them is another one
        values["top_logprobs"] = config.top_logprobs
    if config.kind == "reader":
        from etchr.nano import confidence, reader, sight, skills, wishes

        values |= {key: getattr(config, key) for key in ("misread_rate", "resolution", "threshold")}
        source = "".join(inspect.getsource(module) for module in (confidence, reader, sight, skills, wishes))
        source += confidence.RULES_FILE.read_text(encoding="utf-8")
        values["version"] = hashlib.sha256(source.encode()).hexdigest()[:16]
    return values
