"""Fakes with the real interfaces: a model that replies from a function, samples about plain pictures, and the reader
behind a server that can be broken."""

import asyncio
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from etchr.families import TaskFamily
from etchr.mllm.chat import ChatClient, ChatSettings
from etchr.mllm.protocol import GREEDY, Reply
from etchr.nano.reader import Reader
from etchr.sample import EditSample
from etchr.serving import chat as serve

SOURCE, EDIT, TRUTH = (Image.new("RGB", (64, 64), colour) for colour in ("white", "red", "blue"))
GOOD, BAD = "It is right. \\boxed{1}", "It is wrong. \\boxed{0}"


def make_sample(answer="7", kind="number", choices=None, **meta):
    meta = {"answer_type": kind, **meta}
    return EditSample("s", TaskFamily.CHART, "chart", SOURCE, "How many?", answer, choices, TRUTH, meta)


@dataclass(frozen=True)
class Call:
    """One request as a model got it."""

    text: str
    images: tuple[Image.Image, ...]
    n: int
    temperature: float
    max_tokens: int
    seed: int | None

    @property
    def kind(self) -> str:
        """grade, judge or answer."""
        return "grade" if not self.images else "judge" if "What a right edit shows" in self.text else "answer"


@dataclass
class ScriptedModel:
    """A model whose replies to a kind of request are played from a list; its last entry repeats.

    An entry is an exception, which is raised, a `Reply` or text for each decoding, or a list of those for the decodings
    in turn.
    """

    script: dict[str, list[Any]] = field(default_factory=dict)
    name: str = "scripted"
    calls: list[Call] = field(default_factory=list)

    async def chat(self, messages, sampling=GREEDY):
        [message] = messages
        text = "".join(part["text"] for part in message["content"] if part["type"] == "text")
        images = tuple(part["image"] for part in message["content"] if part["type"] == "image")
        call = Call(text, images, sampling.n, sampling.temperature, sampling.max_tokens, sampling.seed)
        self.calls.append(call)
        await self.think(call)
        entries = self.script[call.kind]
        entry = entries.pop(0) if len(entries) > 1 else entries[0]
        if isinstance(entry, Exception):
            raise entry
        entry = entry if isinstance(entry, list) else [entry] * sampling.n
        return [reply if isinstance(reply, Reply) else Reply(reply) for reply in entry]

    async def think(self, call: Call) -> None:
        """What a call waits for."""
        await asyncio.sleep(0)

    def of(self, kind: str) -> list[Call]:
        return [call for call in self.calls if call.kind == kind]


class GatedModel(ScriptedModel):
    """A model that answers nothing before `wanted` calls are in flight at once."""

    def __init__(self, wanted: int, **script: list[Any]) -> None:
        super().__init__(script)
        self.wanted, self.in_flight, self.max_in_flight = wanted, 0, 0
        self.gate = asyncio.Event()

    async def think(self, call: Call) -> None:
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        if self.in_flight == self.wanted:
            self.gate.set()
        await self.gate.wait()
        self.in_flight -= 1


def tokens(*table: dict[str, float]) -> Reply:
    """A reply whose tokens have these candidates and probabilities."""
    text = "".join(max(candidates, key=candidates.__getitem__) for candidates in table)
    return Reply(text, logprobs=tuple({token: math.log(p) for token, p in entry.items()} for entry in table))


class BreakableServer:
    """The reader's own server as an ASGI app, with faults in its way: of each chat request, `fault` if there is one.

    A number is an HTTP status, "garbage" a body that is no JSON, "empty" one without choices, "mumble" replies without
    answer or verdict, "hang up" half a body, "silence" no answer in time. `faults_left` requests get it; None: all.
    """

    def __init__(self, reader: Reader | None = None) -> None:
        self.app = serve.build_app(reader or Reader())
        self.fault: int | str | None = None
        self.faults_left: int | None = None
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].endswith("/chat/completions"):
            self.requests += 1
            if self.fault is not None and self.faults_left != 0:
                self.faults_left = None if self.faults_left is None else self.faults_left - 1
                return await self._fail(receive, send)
        await self.app(scope, receive, send)

    async def _fail(self, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        if self.fault == "silence":
            await asyncio.sleep(30)
        choice = {"message": {"content": "I am a teapot."}, "finish_reason": "stop"}
        bodies = {"garbage": b"<html>proxy</html>", "mumble": json.dumps({"choices": [choice] * 8}).encode()}
        body, status = bodies.get(str(self.fault), b"{}"), self.fault if isinstance(self.fault, int) else 200
        length = len(body) + (self.fault == "hang up")
        headers = [(b"content-type", b"application/json"), (b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": self.fault == "hang up"})


class CountingServer(BreakableServer):
    """The reader's server, which notes how often it has answered each request."""

    def __init__(self, reader: Reader | None = None) -> None:
        super().__init__(reader)
        self.answered: Counter[bytes] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, whole = bytearray(), [False]

        async def heard() -> Any:
            message = await receive()
            body.extend(message.get("body", b""))
            whole[0] |= message["type"] == "http.request" and not message.get("more_body")
            return message

        async def sent(message: Any) -> None:
            await send(message)
            ends = message["type"] == "http.response.body" and not message.get("more_body")
            if whole[0] and ends and scope["path"].endswith("/chat/completions"):
                self.answered[bytes(body)] += 1

        await super().__call__(scope, heard, sent)


def make_client(*base_urls: str, **options: Any) -> ChatClient:
    """A client of the reader's server that is quick to retry and to give up."""
    fast: dict[str, Any] = {
        "timeout_s": 5.0,
        "max_retries": 2,
        "backoff_base_s": 0.01,
        "backoff_max_s": 0.02,
        "api_key_env": "ETCHR_TEST_REWARD_KEY",
    }
    return ChatClient(ChatSettings(base_urls, **({"model": "reader"} | fast | options)))
