"""Which remote editor a command talks to: its options. Loads without torch."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge

from etchr.checks import Count, Natural, check
from etchr.http.endpoints import MAX_RETRIES, EndpointSettings

EDIT_ARGUMENTS = frozenset({"model", "image", "image[]", "prompt", "n", "stream"})


@dataclass
class RemoteConfig:
    """An OpenAI-style images-edit endpoint, as options name it."""

    model: str = ""  # name of the served model
    base_urls: list[str] = field(default_factory=list)  # one or more equal servers, such as http://host:8092/v1
    api_key_env: str = "OPENAI_API_KEY"  # NAME of the environment variable that holds the key
    timeout_s: Annotated[float, Ge(0)] = 600.0  # of one attempt
    max_retries: Natural = MAX_RETRIES  # rounds over all endpoints before an edit fails; 16: some 3 minutes
    max_concurrency: Count = 4  # edits in flight
    max_pixels: Annotated[int, Ge(256)] = 1024 * 1024  # larger sources are scaled down before they are sent
    extra_body: dict[str, Any] = field(default_factory=dict)  # sent along as it is; {seed: null} leaves a field out

    def __post_init__(self) -> None:
        check(self)
        if not (self.model and self.base_urls):
            raise ValueError("a remote editor needs model=NAME and base_urls=[http://...]")
        self.endpoints()  # refuses what is no URL, and a key in the place of its variable's name
        if taken := EDIT_ARGUMENTS & set(self.extra_body):
            raise ValueError(f"extra_body may not set {sorted(taken)}: each edit sets these itself")
        if self.extra_body.get("seed") is not None:
            raise ValueError("extra_body may not set seed, except to null: each edit has a seed of its own")

    def endpoints(self, **changes: Any) -> EndpointSettings:
        """Where and how the servers are called; `changes` replace single settings."""
        names = ("model", "api_key_env", "timeout_s", "max_retries", "max_concurrency")
        return EndpointSettings(tuple(self.base_urls), **{name: getattr(self, name) for name in names} | changes)
