"""Fakes with the real interfaces: a model that replies by a rule, the reader's server that fails at a given request."""

from collections.abc import Callable
from typing import Any

from etchr.mllm.protocol import CallFailed, Reply
from tests.rewards.fakes import BreakableServer, Call, ScriptedModel

RIGHT, WRONG = "\\boxed{1}", "\\boxed{0}"


class RuleModel(ScriptedModel):
    """A model whose replies to a call `rule` gives: a text for each decoding, or an exception, which is raised."""

    def __init__(self, rule: Callable[[Call], list[str] | Exception]) -> None:
        super().__init__()
        self.rule = rule

    async def chat(self, messages, *, n=1, temperature=0.0, max_tokens=4096, seed=None):
        [message] = messages
        text = "".join(part["text"] for part in message["content"] if part["type"] == "text")
        images = tuple(part["image"] for part in message["content"] if part["type"] == "image")
        call = Call(text, images, n, temperature, max_tokens, seed)
        self.calls.append(call)
        said = self.rule(call)
        if isinstance(said, Exception):
            raise said
        return [Reply(reply) for reply in said]


def share_of_red(call: Call) -> list[str] | Exception:
    """Verdicts that differ between pictures: by how the mean colour of the edit falls."""
    value = sum(call.images[-1].convert("RGB").tobytes()[::3]) % (call.n + 1)
    return [RIGHT] * value + [WRONG] * (call.n - value)


def always(text: str) -> Callable[[Call], list[str] | Exception]:
    """The same reply to everything."""
    return lambda call: [text] * call.n


def failing() -> CallFailed:
    """What a client raises when it has given up."""
    return CallFailed("the model is away")


class LateServer(BreakableServer):
    """The reader's server with the fault at the requests from number `first` on, `count` of them or all."""

    def __init__(self, fault: int | str | None, first: int = 0, count: int | None = None, **reader: Any) -> None:
        from etchr.mllm.reader import Reader

        super().__init__(Reader(**reader))
        self.late_fault, self.first, self.count = fault, first, count

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        over = self.count is not None and self.requests >= self.first + self.count
        self.fault = self.late_fault if self.requests >= self.first and not over else None
        await super().__call__(scope, receive, send)
