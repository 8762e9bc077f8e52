"""`ChatClient`: the understanding model behind any OpenAI-compatible chat endpoint, or behind several equal ones.

Retries, health, keys and errors are `etchr.http.endpoints`' business; this file says what a chat request holds and what
is read of its answer. A call without a reply ends in `CallFailed`, so that its sample is missing and not wrong. Images
travel as lossless PNG. No torch; `openai` is imported on first use.
"""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from etchr.http.endpoints import CallFailed, CallStats, Endpoints, EndpointSettings, Failure
from etchr.mllm.protocol import GREEDY, Message, Reply, Sampling
from etchr.mllm.wire import read_content, read_finish_reason, read_logprobs, token_count, wire_messages

CALL_ARGUMENTS = frozenset(
    {"model", "messages", "n", "temperature", "max_tokens", "max_completion_tokens", "seed", "stream"}
)
TOKEN_LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
DISPENSABLE = frozenset({"n", "temperature", "seed"})  # that some services refuse


@dataclass(frozen=True)
class ChatSettings(EndpointSettings):
    """Where the model is and how to call it. Holds no secret: safe to log and to store with a run."""

    max_image_pixels: int | None = None  # none: full size; else larger images are scaled down, aspect ratio kept
    top_logprobs: int | None = None  # candidates per token in `Reply.logprobs`; none: no log-probabilities
    token_limit_field: str | None = None  # max_tokens, or max_completion_tokens of newer models; none: found out
    extra_body: dict[str, Any] = field(default_factory=dict)  # sent along: top_p, ...; {seed: null} leaves seed out

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_image_pixels", "top_logprobs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, or null for none, got {value}")
        if self.token_limit_field not in (None, *TOKEN_LIMIT_FIELDS):
            raise ValueError(f"token_limit_field={self.token_limit_field!r} must be of {', '.join(TOKEN_LIMIT_FIELDS)}")
        if taken := CALL_ARGUMENTS & set(self.extra_body) - self.left_out:
            raise ValueError(f"extra_body may not set {sorted(taken)}: each call sets these itself")

    @property
    def left_out(self) -> set[str]:
        """What no request holds, because the service refuses it."""
        return {name for name, value in self.extra_body.items() if name in DISPENSABLE and value is None}


@dataclass
class ChatStats(CallStats):
    """What a client has done so far; a run logs it."""

    prompt_tokens: int = 0  # as the servers count them, discarded replies included
    completion_tokens: int = 0


class ChatClient:
    """An `MLLM` over HTTP. Usable from several event loops one after the other; `async with` closes its connections.

    Token counts: a server reports them per request, so the first reply of a request carries them and its other
    replies have none; the sum over all replies is what the servers counted.
    """

    def __init__(self, settings: ChatSettings) -> None:
        self.settings = settings
        self.name = settings.short_name
        self.stats = ChatStats()
        self._endpoints = Endpoints(settings, self.stats)
        self._limit_field = settings.token_limit_field or TOKEN_LIMIT_FIELDS[0]
        self._counting = threading.Lock()  # a long reply is read in a thread of its own

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close this event loop's connections; a later call opens new ones."""
        await self._endpoints.aclose()

    async def check(self) -> None:
        """Ask every endpoint whether it serves the model, before any expensive work; raises as `Endpoints.check`."""
        body = self._body([{"role": "user", "content": "Say yes."}], 1, 0.0, 16)
        await self._endpoints.check(lambda client: client.chat.completions.with_raw_response.create(**body))

    async def chat(self, messages: Sequence[Message], sampling: Sampling = GREEDY) -> list[Reply]:
        """`sampling.n` completions of the conversation; `CallFailed` when they are not to be had.

        What a server leaves out is asked for again, with its seed plus the number of replies so far. At temperature 0
        each completion is a request of its own, because vLLM refuses n > 1 there.
        """
        n, temperature, max_tokens, seed = sampling.n, sampling.temperature, sampling.max_tokens, sampling.seed
        if n < 1 or max_tokens < 1:
            raise ValueError(f"n and max_tokens must be 1 or more, got n={n}, max_tokens={max_tokens}")
        async with self._endpoints.slots:  # held while encoding and waiting too: that bounds the images in memory
            wire = await asyncio.to_thread(wire_messages, messages, self.settings.max_image_pixels)
            replies: list[Reply] = []
            while len(replies) < n:
                wanted = 1 if temperature == 0 else n - len(replies)
                body = self._body(wire, wanted, temperature, max_tokens)
                if seed is not None and "seed" not in self.settings.left_out:
                    body["seed"] = seed + len(replies)
                replies += await self._complete(body, wanted)
            return replies

    async def _complete(self, body: dict[str, Any], wanted: int) -> list[Reply]:
        """One request's replies, from one to `wanted`."""

        def send(client: Any) -> Any:
            return client.chat.completions.with_raw_response.create(**body)

        def read(answer: Any) -> list[Reply] | Failure:
            return self._replies(answer, wanted)

        try:
            return await self._endpoints.call(send, read)
        except CallFailed as error:
            first, other = TOKEN_LIMIT_FIELDS
            if self.settings.token_limit_field or first not in body or error.status != 400 or other not in str(error):
                raise
        self.stats.failures -= 1  # it was a question, not a failure
        self._limit_field = other
        body[other] = body.pop(first)
        return await self._endpoints.call(send, read)

    def _replies(self, answer: Any, wanted: int) -> list[Reply] | Failure:
        """The first choices with text or pictures, or cut off before any, in an answer; `Failure` if there are none."""
        answer = answer if isinstance(answer, dict) else {}
        usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
        prompt_tokens, completion_tokens = token_count(usage, "prompt_tokens"), token_count(usage, "completion_tokens")
        with self._counting:
            self.stats.prompt_tokens += prompt_tokens or 0
            self.stats.completion_tokens += completion_tokens or 0
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices:
            return Failure("sent a reply without choices", down=False)
        replies: list[Reply] = []
        reasons: list[str] = []
        for choice in choices[:wanted]:
            choice = choice if isinstance(choice, dict) else {}
            try:
                text, images = read_content(choice.get("message"))
            except ValueError as error:
                return Failure(f"sent a picture that cannot be used: {self._endpoints.quote(str(error))}", down=False)
            reasons.append(str(choice.get("finish_reason")))
            reason = read_finish_reason(choice.get("finish_reason"))
            # A model that spends all its tokens on thoughts it does not show has replied: to ask again changes nothing.
            if reason == "length" or (reason is not None and (text.strip() or images)):
                counts = (None, None) if replies else (prompt_tokens, completion_tokens)
                text = self._endpoints.clean(text)
                replies.append(Reply(text, reason, *counts, read_logprobs(choice), images))
        if not replies:
            reason = self._endpoints.quote(reasons[0])
            return Failure(f"sent an empty reply or broke it off (finish_reason {reason!r})", down=False)
        return replies

    def _body(self, wire: list[dict[str, Any]], n: int, temperature: float, max_tokens: int) -> dict[str, Any]:
        settings = self.settings
        body: dict[str, Any] = {"model": settings.model, "messages": wire, "n": n, "temperature": temperature}
        body[self._limit_field] = max_tokens
        if settings.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": settings.top_logprobs}
        if extra := {name: value for name, value in settings.extra_body.items() if name not in settings.left_out}:
            body["extra_body"] = extra
        return {name: value for name, value in body.items() if name not in settings.left_out}
