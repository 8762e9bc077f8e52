"""Equal servers of one model behind an OpenAI-style API: which one is called, when again, and when to give up.

The official `openai` package does the HTTP, one attempt at a time (`max_retries=0`). All retrying lives in one place,
`Endpoints.call`: a round tries each healthy endpoint once, least loaded first; between rounds it waits with
exponential backoff and full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter), and
never calls an endpoint before the end of the Retry-After that it sent. A call without an answer ends in `CallFailed`,
so that its sample is missing and not wrong. `mllm.chat` and `editor.remote` are what is called this way. No torch;
`openai` is imported on first use.

The key is read from an environment variable when a connection is made. It is kept in no field of this file's classes,
and what a server says is cleaned of it before it enters a message: some servers repeat the key in their errors.
"""

import asyncio
import json
import logging
import os
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from etchr.pages import short

if TYPE_CHECKING:
    from openai import AsyncOpenAI

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRIED_STATUS = frozenset({408, 409, 429, *range(500, 600)})  # any other error status is the request's own fault
CHECK_TIMEOUT_S = 30.0
POSITIVE = ("timeout_s", "max_concurrency", "max_reply_bytes", "backoff_base_s", "backoff_max_s", "retry_after_max_s")
MAX_RETRIES = 16  # some three minutes of waiting by default: a server that is started anew is back by then
LONG_REPLY = 64 * 2**10  # bytes; a longer one is read beside the event loop
MAX_REPLY_BYTES = 64 * 2**20  # of one reply; eight pictures of a megapixel as base64 are half of that


class CallFailed(RuntimeError):  # noqa: N818 - a fact about a call, not a defect of the program
    """A model call that gave no answer after all retries. The sample it belongs to is *missing*, never wrong."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status  # of the answer that ended the call, where that was an HTTP error


@dataclass(frozen=True)
class EndpointSettings:
    """Where a model is and how to call it. Holds no secret: safe to log and to store with a run."""

    base_urls: tuple[str, ...]  # equal servers of one model, each usually ending in /v1
    model: str  # the name under which they serve it
    api_key_env: str = "OPENAI_API_KEY"  # NAME of the environment variable with the key; unset: "EMPTY" is sent
    timeout_s: float = 600.0  # of one attempt, from connecting to the last byte
    max_retries: int = MAX_RETRIES  # rounds after the first one
    max_concurrency: int = 32  # calls in flight per client, over all endpoints
    max_reply_bytes: int = MAX_REPLY_BYTES  # a longer reply is cut short and counts as none
    backoff_base_s: float = 0.5  # the wait before retry k is uniform in 0 .. min(backoff_max_s, base * 2^(k - 1))
    backoff_max_s: float = 30.0
    retry_after_max_s: float = 120.0  # a longer Retry-After is cut to this
    jitter_seed: int = 0  # give each process its own, or all of them retry in step

    def __post_init__(self) -> None:
        if isinstance(self.base_urls, str) or not self.base_urls:
            raise ValueError("base_urls must be a list of one or more URLs, such as ['http://127.0.0.1:8000/v1']")
        object.__setattr__(self, "base_urls", tuple(checked_url(url) for url in self.base_urls))
        if not self.model.strip():
            raise ValueError("model must be the name under which the endpoint serves it, got an empty text")
        if not _is_variable(self.api_key_env):  # the value may be a key: it is not repeated
            raise ValueError("api_key_env must be the NAME of an environment variable, not the key itself")
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.max_retries < 0:
            raise ValueError(f"max_retries must be 0 or more, got {self.max_retries}")

    @property
    def short_name(self) -> str:
        """The model without its owner, as records name it."""
        return self.model.rstrip("/").rpartition("/")[2]


@dataclass
class CallStats:
    """What a client has done so far; a run logs it."""

    calls: int = 0  # HTTP attempts
    retries: int = 0  # attempts after the first one of a request
    failures: int = 0  # requests that ended in `CallFailed`


@dataclass(frozen=True)
class Failure:
    """Why an attempt gave nothing: returned, not raised, so that no exception chain carries a server's words."""

    reason: str  # what is said of the endpoint: "answered HTTP 500"
    status: int | None = None
    retry: bool = True
    down: bool = True  # a sign of the endpoint's health, not only of this request's fate
    retry_after_s: float | None = None


@dataclass(eq=False)
class _Endpoint:
    """The health of one server. Times are `time.monotonic()` seconds."""

    base_url: str
    in_flight: int = 0
    failures: int = 0  # cool-downs in a row
    down_until: float = 0.0  # until then it is called only if no other is up
    not_before: float = 0.0  # end of its Retry-After: never called earlier
    reason: str = ""  # of its latest failure


@dataclass
class _Session:
    """What belongs to one event loop."""

    slots: asyncio.Semaphore
    clients: dict[str, "AsyncOpenAI"]


Send = Callable[["AsyncOpenAI"], Awaitable[Any]]  # one request through the `with_raw_response` of a resource


class Endpoints:
    """The servers of one model, usable from several event loops one after the other."""

    def __init__(self, settings: EndpointSettings, stats: CallStats) -> None:
        self.settings, self.stats = settings, stats
        self._endpoints = [_Endpoint(url) for url in settings.base_urls]
        self._random = random.Random(settings.jitter_seed)
        self._sessions: dict[asyncio.AbstractEventLoop, _Session] = {}

    async def aclose(self) -> None:
        """Close this event loop's connections; a later call opens new ones."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        for client in session.clients.values() if session else ():
            await client.close()

    @property
    def slots(self) -> asyncio.Semaphore:
        """The running event loop's `max_concurrency`, for the caller to hold while it prepares and makes a call."""
        return self._session().slots

    async def check(self, probe: Send | None = None) -> None:
        """Ask every endpoint for its models, before any expensive work.

        `ValueError` if none answers or if one refuses the key (401). Where the model is not among those listed, or
        nothing is, which some services do for models that they serve, the small request `probe` decides: `ValueError`
        if the key is refused or there is nothing at that address or under that name (404). Without a probe the list
        decides, where there is one. A server that is down while others answer is logged and left to the fail-over.
        """
        findings = await asyncio.gather(*(self._check_endpoint(endpoint, probe) for endpoint in self._endpoints))
        if wrong := [sentence for fatal, sentence in findings if fatal]:
            raise ValueError(wrong[0])
        silent = [sentence for _, sentence in findings if sentence]
        if len(silent) == len(self._endpoints):
            raise ValueError(f"{'; '.join(silent)}: start the server or correct base_urls")
        for sentence in silent:
            logger.warning("%s; the other endpoints go on without it", sentence)

    async def _check_endpoint(self, endpoint: _Endpoint, probe: Send | None) -> tuple[bool, str]:
        """What is wrong with `endpoint` ("": nothing), and whether that is a mistake rather than an outage."""
        found = await self._send(endpoint, lambda client: client.models.with_raw_response.list(), CHECK_TIMEOUT_S)
        if isinstance(found, Failure):
            answered = found.status is not None and (found.status < 500 or found.status == 501)
            if found.status == 401 or (found.down and not answered):
                return found.status == 401, self._sentence(endpoint, found)
        names = [] if isinstance(found, Failure) else listed_models(found)
        model = self.settings.model
        if any(name == model or name.endswith(f"/{model}") for name in names):  # some list "models/NAME"
            return False, ""
        serves = f"{endpoint.base_url} does not serve {model!r}; it serves: {self.quote(', '.join(sorted(names)))}"
        if probe is None:
            return bool(names), serves if names else ""
        tried = await self._send(endpoint, probe, self.settings.timeout_s)
        if isinstance(tried, Failure) and tried.status in (401, 403, 404):
            return True, serves if names else self._sentence(endpoint, tried)
        if names:
            logger.warning("%s does not list %r, which answers nevertheless", endpoint.base_url, model)
        return False, ""

    async def call(self, send: Send, read: Callable[[Any], T | Failure]) -> T:
        """What `read` makes of the JSON in the answer to one request; the only place that retries.

        `send` makes the request anew on whichever endpoint's client it is given. `CallFailed` when the request is
        refused, or when neither an answer nor a use of it was to be had in all rounds.
        """
        last = ""
        attempts = 0
        for retry in range(self.settings.max_retries + 1):
            if retry:
                await asyncio.sleep(self._wait_s(retry))
            tried: list[_Endpoint] = []
            while endpoint := self._pick(tried, probe=retry > 0):
                self.stats.retries += attempts > 0
                attempts += 1
                answer = await self._attempt(endpoint, send, read)
                if not isinstance(answer, Failure):
                    return answer
                last = self._sentence(endpoint, answer)
                if not answer.retry:
                    self.stats.failures += 1
                    raise CallFailed(last, answer.status)
                tried.append(endpoint)
        self.stats.failures += 1
        last = last or "; ".join(endpoint.reason for endpoint in self._endpoints)
        raise CallFailed(f"{last}; gave up after {attempts} attempts and {self.settings.max_retries} waits")

    def _pick(self, tried: list[_Endpoint], *, probe: bool) -> _Endpoint | None:
        """The least loaded healthy endpoint not yet tried; if none is healthy and `probe`, the first to recover."""
        now = time.monotonic()
        ready = [endpoint for endpoint in self._endpoints if endpoint not in tried and endpoint.not_before <= now]
        healthy = [endpoint for endpoint in ready if endpoint.down_until <= now]
        if healthy:
            return min(healthy, key=lambda endpoint: endpoint.in_flight)
        if ready and probe and not tried:
            return min(ready, key=lambda endpoint: endpoint.down_until)
        return None

    def _wait_s(self, retry: int) -> float:
        """Seconds before round `retry`: what every server asks for at least, plus the jittered backoff."""
        asked = min(endpoint.not_before for endpoint in self._endpoints) - time.monotonic()
        return max(0.0, asked) + self._random.uniform(0.0, self._backoff_s(retry))

    def _backoff_s(self, failures: int) -> float:
        settings = self.settings
        return min(settings.backoff_max_s, settings.backoff_base_s * 2.0 ** min(failures - 1, 60))

    async def _attempt(self, endpoint: _Endpoint, send: Send, read: Callable[[Any], T | Failure]) -> T | Failure:
        """One HTTP request and what it says about the endpoint's health."""
        endpoint.in_flight += 1
        self.stats.calls += 1
        try:
            result = await self._send(endpoint, send, self.settings.timeout_s, read)
        finally:
            endpoint.in_flight -= 1
        if not isinstance(result, Failure):
            endpoint.failures, endpoint.down_until = 0, 0.0
        elif result.down:
            self._cool_down(endpoint, result)
        return result

    def _cool_down(self, endpoint: _Endpoint, failure: Failure) -> None:
        now = time.monotonic()
        endpoint.reason = self._sentence(endpoint, failure)
        if endpoint.down_until <= now:  # calls that fail together count once
            endpoint.failures += 1
            wait_s = self._backoff_s(endpoint.failures)
            endpoint.down_until = now + wait_s
            logger.warning("%s; it is asked again within %.3g s", endpoint.reason, wait_s)
        if failure.retry_after_s:
            endpoint.not_before = max(endpoint.not_before, now + failure.retry_after_s)

    async def _send(
        self, endpoint: _Endpoint, send: Send, timeout_s: float, read: Callable[[Any], Any] = lambda answer: answer
    ) -> Any | Failure:
        """What `read` makes of the JSON in the answer to a request."""
        import openai

        from etchr.http.bounded import ReplyTooLargeError

        try:
            async with asyncio.timeout(timeout_s):  # the library's own timeouts start anew with every byte
                raw = await send(self._client(endpoint.base_url))
        except (TimeoutError, openai.APITimeoutError):
            return Failure(f"gave no answer within {timeout_s:g} s")
        except openai.APIStatusError as error:
            return self._status_failure(error.status_code, error.body, error.response.headers)
        except (openai.APIConnectionError, OSError, UnicodeError) as error:  # a header may be no ASCII
            if isinstance(large := error.__cause__ or error, ReplyTooLargeError):
                return Failure(str(large), down=False)
            return Failure(f"cannot be reached or broke off ({type(error.__cause__ or error).__name__})")
        if len(raw.content) > LONG_REPLY:
            return await asyncio.to_thread(self._read, raw, read)
        return self._read(raw, read)

    def _read(self, raw: Any, read: Callable[[Any], Any]) -> Any | Failure:
        """What `read` makes of a whole answer; some services send an error with the status of a success."""
        try:
            answer = json.loads(raw.content)
        except (ValueError, RecursionError):
            return Failure("sent a reply that is not complete JSON", down=False)
        error = answer.get("error") if isinstance(answer, dict) else None
        if error and not (answer.get("choices") or answer.get("data")):
            code = str(error.get("code")) if isinstance(error, dict) else ""
            return self._status_failure(int(code) if re.fullmatch(r"[345]\d\d", code) else 500, error, raw.headers)
        return read(answer)

    def _status_failure(self, status: int, error_body: object, headers: Any) -> Failure:
        """What an error status means; the server's own words are quoted unless they are about the key."""
        name = self.settings.api_key_env
        if status in (401, 403):
            key = f"refused the key in {name}" if os.environ.get(name) else f"wants a key, and {name} is not set"
            return Failure(f"{key} (HTTP {status})", status, retry=False, down=False)
        words = error_words(error_body)
        said = f": {self.quote(words)}" if words.strip() else ""
        if 300 <= status < 400:
            reason = f"answered HTTP {status}, a redirect, which is not followed: put the right address into base_urls"
            return Failure(reason, status, retry=False, down=False)
        if status == 404:
            reason = f"answered HTTP 404, so the model name or the base URL may be wrong{said}"
            return Failure(reason, status, retry=False, down=False)
        reason = f"answered HTTP {status}{said}"
        if status not in RETRIED_STATUS:
            return Failure(reason, status, retry=False, down=False)
        wait_s, limit_s = read_retry_after(headers), self.settings.retry_after_max_s
        if wait_s is not None and wait_s > limit_s:
            reason += f" (it asks to wait {wait_s:.0f} s, cut to retry_after_max_s = {limit_s:g} s)"
            wait_s = limit_s
        return Failure(reason, status, retry_after_s=wait_s)

    def _session(self) -> _Session:
        """The running event loop's session; those of closed loops are dropped."""
        running = asyncio.get_running_loop()
        for loop in [loop for loop in self._sessions if loop.is_closed()]:
            del self._sessions[loop]
        if running not in self._sessions:
            self._sessions[running] = _Session(asyncio.Semaphore(self.settings.max_concurrency), {})
        return self._sessions[running]

    def _client(self, base_url: str) -> "AsyncOpenAI":
        import openai

        from etchr.http.bounded import BoundedClient

        clients = self._session().clients
        if base_url not in clients:
            timeout_s = self.settings.timeout_s
            clients[base_url] = openai.AsyncOpenAI(
                base_url=base_url,
                api_key=self._key() or "EMPTY",
                max_retries=0,
                timeout=openai.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
                # Its default client schedules its own closing when collected, on whatever loop runs by then.
                http_client=BoundedClient(self.settings.max_reply_bytes),
            )
        return clients[base_url]

    def _key(self) -> str:
        """The key, or "" if its variable is unset; `ValueError` if it cannot stand in an HTTP header."""
        key = os.environ.get(self.settings.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"the key in the environment variable {self.settings.api_key_env} is not printable ASCII")
        return key

    def _sentence(self, endpoint: _Endpoint, failure: Failure) -> str:
        return f"{self.settings.model} at {endpoint.base_url} {failure.reason}"

    def quote(self, words: str) -> str:
        """A server's words for a message: clean, on one line, 200 characters at most."""
        return short(self.clean(words), 200)

    def clean(self, words: str) -> str:
        """What a server sent, fit for a file: without the key, which some repeat, and without lone surrogates."""
        key = self._key()
        return printable(words).replace(key, "[key]") if key else printable(words)


def _is_variable(name: str) -> bool:
    """Whether `name` is that of a variable: one that is set, or one such as MY_KEY, which no key looks like."""
    return name in os.environ or bool(re.fullmatch(r"(?!.*[A-Z0-9]{20})[A-Z_][A-Z0-9_]*", name))


def checked_url(url: str) -> str:
    """`url` without a trailing slash. Credentials in it are refused, and not repeated."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError("a base URL looks like http://127.0.0.1:8000/v1, got one that is no URL") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("a base URL may hold no user name, password, query or fragment; name the key in api_key_env")
    if not usable:
        got = "one with an @, which is not repeated here" if "@" in url else repr(url)
        raise ValueError(f"a base URL looks like http://127.0.0.1:8000/v1, got {got}")
    return url.rstrip("/")


def listed_models(answer: Any) -> list[str]:
    """The names in a list of models; [] where it is none."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    entries = entries if isinstance(entries, list) else []
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def error_words(body: object) -> str:
    """What the body of an error says: {"message": ...} by OpenAI, {"detail": ...} by servers on FastAPI."""
    # Gemini puts its error into a list, which the client library does not look into.
    if isinstance(body, list) and body and isinstance(body[0], dict) and "error" in body[0]:
        body = body[0]["error"]
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail")
    if isinstance(body, list) and body and isinstance(body[0], dict):  # FastAPI lists what is wrong with each field
        place = body[0].get("loc")
        field = f"{place[-1]}: " if isinstance(place, list) and place else ""
        return f"{field}{body[0].get('msg')}"
    return body if isinstance(body, str) else ""


def printable(text: str) -> str:
    """`text` without lone surrogates: JSON can smuggle them in, and then no file can be written."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_retry_after(headers: Any) -> float | None:
    """Seconds in a Retry-After header, given as a number or as an HTTP date; None if absent or unreadable."""
    value = str(headers.get("retry-after") or "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None
