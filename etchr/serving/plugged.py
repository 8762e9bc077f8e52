"""Edit-Verify-Reason inside a chat server: any client's question about a picture gets it, with no code changed.

`PluggedModel` is an `MLLM` over another one, the upstream. Where a dialogue ends in a question about a picture, the
editor draws what meta-prompt and question say, the upstream verifies, and where it accepts, the edit goes
behind the user's own pictures, announced in one sentence. All else of the dialogue is left as it is, and a dialogue
without a picture, or whose question no edit would help, passes through.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from etchr.concurrent import LoopThread
from etchr.editor.protocol import MAX_PICTURES
from etchr.evr import Proposal, Trace, edit_verify_reason
from etchr.families import TaskFamily
from etchr.http.endpoints import printable
from etchr.images import to_data_uri
from etchr.mllm.prompts import EDIT_NOTE, MANY_NOTE
from etchr.mllm.protocol import GREEDY, MLLM, ImagePart, Message, Reply, Sampling, TextPart
from etchr.router import MIN_CONFIDENCE, Route, Router, route_by_rule
from etchr.rows import MAX_TEXT
from etchr.sample import EditSample

Draw = Callable[[EditSample, str, int], Awaitable[Image.Image]]  # of a sample, a prompt and a seed; raises `EditFailed`
DEFAULT_SEED = 126  # of an edit's noise, as in the paper


@dataclass(frozen=True)
class System:
    """How much of Edit-Verify-Reason a model name stands for."""

    edits: bool = True
    verifies: bool = True
    attempts: int = 1  # edits that are drawn at once, of which the best counts


SYSTEMS = {
    "etchr-evr": System(),
    "etchr-always-edit": System(verifies=False),
    "etchr-best-of-4": System(attempts=4),
    "etchr-direct": System(edits=False),
}


@dataclass(frozen=True)
class Answer:
    """The replies to a dialogue, and what happened on the way; without a trace it was passed through."""

    replies: list[Reply]
    route: Route | None = None  # None: there was no picture
    trace: Trace | None = None

    def about(self, *, with_edit: bool) -> dict[str, Any]:
        """The trace as JSON, for the field `etchr` of a response: `docs/serve.md` says what each entry means."""
        about: dict[str, Any] = {"family": None, "edited": False, "used_edit": False}
        if self.route is not None:
            about |= {"family": self.route.family, "confidence": round(self.route.confidence, 4)}
        if self.trace is None:
            return about
        trace, proposal = self.trace, self.trace.proposal
        about |= {"edited": proposal is not None, "used_edit": trace.used_edit, "failed": trace.unscored}
        about |= {"verdict": trace.verdict, "verdict_text": trace.verdict_text, "attempts": len(trace.attempts) or 1}
        about |= {"seconds": {step: round(taken, 4) for step, taken in trace.seconds.items()}}
        about |= {"usage": {model: asdict(usage) for model, usage in trace.usage.items()}}
        if proposal is not None:
            about |= {"editor": proposal.editor, "prompt": proposal.prompt, "seed": proposal.seed}
            about |= {"edit": to_data_uri(proposal.image)} if with_edit else {}
        return about


class PluggedModel:
    """An `MLLM` that answers through Edit-Verify-Reason by another one."""

    def __init__(
        self,
        name: str,
        upstream: MLLM,
        draw: Draw,
        editor: str,
        router: Router | None = None,
        min_confidence: float = MIN_CONFIDENCE,
    ) -> None:
        """`name` is one of `SYSTEMS`; `draw` makes edits, which are said to be by `editor`."""
        self.name, self.upstream, self.draw, self.editor = name, upstream, draw, editor
        self.system, self.router, self.min_confidence = SYSTEMS[name], router or Router.load(), min_confidence

    async def chat(self, messages: Sequence[Message], sampling: Sampling = GREEDY) -> list[Reply]:
        """See `protocol.MLLM`."""
        return (await self.answer(messages, sampling)).replies

    async def answer(
        self,
        messages: Sequence[Message],
        sampling: Sampling = GREEDY,
        family: TaskFamily | None = None,
        question: str | None = None,
    ) -> Answer:
        """The replies and how they came about. Raises `CallFailed`.

        `family` takes the place of the rule's guess, `question` that of the last turn's text where the editor and the
        verifier are asked, as where the turn says more than its question.

        Verification is greedy; the client's `sampling` is for the answer alone. An edit or a verification that fails
        leaves the source: its reason is in the trace.
        """
        pictures, words = asked(messages)
        question = printable(words if question is None else question)
        if not pictures or not question.strip():
            return Answer(await self.upstream.chat(messages, sampling))
        route = Route(family, 1.0) if family is not None else route_by_rule(question)
        knows = route.family is not None and route.family in self.router.meta_prompts
        if not self.system.edits or not knows or not route.asks_for_edit(self.min_confidence):
            return Answer(await self.upstream.chat(messages, sampling), route)
        return await self._edited(messages, sampling, route, pictures, question)

    async def _edited(
        self, messages: Sequence[Message], sampling: Sampling, route: Route, pictures: list[Image.Image], question: str
    ) -> Answer:
        assert route.family is not None
        source, *others = pictures[:MAX_PICTURES]
        words = question[:MAX_TEXT]
        sample = EditSample("chat", route.family, "chat", source, words, "unknown", more_images=tuple(others))
        prompt, seeds = self.router.prompt(question, route.family), iter(range(self.system.attempts))
        first = DEFAULT_SEED if sampling.seed is None else sampling.seed
        trace, replies = Trace(sample.id), list[Reply]()

        async def propose(sample: EditSample) -> Proposal:
            seed = (first + next(seeds)) % 2**63
            return Proposal(await self.draw(sample, prompt, seed), self.editor, prompt, seed)

        async def reason(trace: Trace) -> None:
            used = trace.proposal.image if trace.used_edit and trace.proposal is not None else None
            replies.extend(await self.upstream.chat(with_edit(messages, used), sampling))

        verifier = self.upstream if self.system.verifies else None
        await edit_verify_reason(
            sample,
            propose,
            verifier,
            self.upstream,
            GREEDY,
            attempts=self.system.attempts,
            at_once=True,
            trace=trace,
            answer=reason,
        )
        if not replies:  # what failed was the edit, its verification, or the answer itself, which is now asked again
            trace.used_edit = False
            replies = await self.upstream.chat(messages, sampling)
        return Answer(replies, route, trace)


def asked(messages: Sequence[Message]) -> tuple[list[Image.Image], str]:
    """Pictures and text of the turn that a dialogue ends with; nothing if that is not the user's."""
    last = messages[-1]
    if last["role"] != "user":
        return [], ""
    pictures = [part["image"] for part in last["content"] if part["type"] == "image"]
    return pictures, "\n".join(part["text"] for part in last["content"] if part["type"] == "text")


def with_edit(messages: Sequence[Message], edit: Image.Image | None) -> list[Message]:
    """The dialogue with an edit behind the pictures of its last turn, announced before everything else in it."""
    if edit is None:
        return list(messages)
    *before, last = messages
    pictures = [part for part in last["content"] if part["type"] == "image"]
    note = EDIT_NOTE if len(pictures) == 1 else MANY_NOTE.format(num_images=len(pictures) + 1)
    shown: list[TextPart | ImagePart] = [*pictures, {"type": "image", "image": edit}, {"type": "text", "text": note}]
    rest = [part for part in last["content"] if part["type"] == "text"]
    return [*before, {"role": "user", "content": [*shown, *rest]}]


class Beside:
    """An `MLLM` that computes in a thread of its own, so that the server's event loop goes on."""

    def __init__(self, model: MLLM) -> None:
        self.model, self.name, self._thread = model, model.name, LoopThread()

    async def chat(self, messages: Sequence[Message], sampling: Sampling = GREEDY) -> list[Reply]:
        """See `protocol.MLLM`."""
        return await self._thread.run(self.model.chat(messages, sampling))
