"""Fakes with the real interfaces: a model that replies by a rule, a reader that does not look at edits, the reader's
server that fails at a given request."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from PIL import Image

from etchr.mllm.protocol import GREEDY, CallFailed, Reply, user_message
from etchr.nano.reader import Reader
from tests.rewards.fakes import BreakableServer, Call, ScriptedModel

RIGHT, WRONG = "\\boxed{1}", "\\boxed{0}"


class RuleModel(ScriptedModel):
    """A model whose replies to a call `rule` gives: a text for each decoding, or an exception, which is raised."""

    def __init__(self, rule: Callable[[Call], list[str] | Exception]) -> None:
        super().__init__()
        self.rule = rule

    async def chat(self, messages, sampling=GREEDY):
        [message] = messages
        text = "".join(part["text"] for part in message["content"] if part["type"] == "text")
        images = tuple(part["image"] for part in message["content"] if part["type"] == "image")
        call = Call(text, images, sampling.n, sampling.temperature, sampling.max_tokens, sampling.seed)
        self.calls.append(call)
        said = self.rule(call)
        if isinstance(said, Exception):
            raise said
        return [Reply(reply) for reply in said]


def by_seed(call: Call) -> list[str] | Exception:
    """Verdicts that differ between edits: by the request's seed, for pixels hang on how a processor rounds."""
    assert call.seed is not None
    value = call.seed % (call.n + 1)
    return [RIGHT] * value + [WRONG] * (call.n - value)


def always(text: str) -> Callable[[Call], list[str] | Exception]:
    """The same reply to everything."""
    return lambda call: [text] * call.n


def failing() -> CallFailed:
    """What a client raises when it has given up."""
    return CallFailed("the model is away")


class BlindReader(Reader):
    """A reader that keeps the edits it is shown, by the seed of the request, and sees their sources in their place.

    So its replies hang on the question, the source and the seed, which is the address of an edit in a run: they differ
    between the edits of a group, and not where a processor rounds one grey level of an edit the other way.
    """

    def __init__(self, error_rate: float = 0.5) -> None:
        super().__init__(error_rate)
        self.edits: defaultdict[int | None, list[Image.Image]] = defaultdict(list)

    async def chat(self, messages, sampling=GREEDY):
        [message] = messages
        text = "".join(part["text"] for part in message["content"] if part["type"] == "text")
        source, *others, edit = (part["image"] for part in message["content"] if part["type"] == "image")
        assert not others
        self.edits[sampling.seed].append(edit)
        blind = user_message(text, source, source)
        return await super().chat([blind], sampling)


class LateServer(BreakableServer):
    """The reader's server with the fault at the requests from number `first` on, `count` of them or all."""

    def __init__(self, fault: int | str | None, first: int = 0, count: int | None = None, **reader: Any) -> None:
        super().__init__(Reader(**reader))
        self.late_fault, self.first, self.count = fault, first, count

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        over = self.count is not None and self.requests >= self.first + self.count
        self.fault = self.late_fault if self.requests >= self.first and not over else None
        await super().__call__(scope, receive, send)
