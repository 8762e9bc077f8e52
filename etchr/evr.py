"""Edit-Verify-Reason, the paper's inference: one coroutine per sample, no I/O of its own.

The editor proposes an edit, the verifier M accepts or rejects it, and M answers from source and edit, or, when the edit
was not accepted, from the source alone. Everything in between is kept in a `Trace`. The steps, `verify` and `reason`,
are also what other systems are made of (`evaluation/systems.py`).
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from etchr.editor.batching import EditFailed
from etchr.mllm.answers import answer_type, extract_answer
from etchr.mllm.prompts import answer_prompt, verify_prompt
from etchr.mllm.protocol import MLLM, CallFailed, Message, Reply, user_message
from etchr.mllm.verdict import Verdict, parse_verdict
from etchr.sample import EditSample


@dataclass(frozen=True)
class EvrSettings:
    """How the understanding model is called; the defaults are the paper's (section 5 of the method)."""

    temperature: float = 0.0
    max_tokens: int = 4096
    seed: int | None = None  # of the model's sampling


@dataclass(frozen=True)
class Proposal:
    """A proposed edit and where it came from."""

    image: Image.Image
    editor: str  # name of the editor, or "ground truth"
    prompt: str | None = None
    seed: int | None = None
    seconds: float = 0.0
    file: Path | None = None  # where it lies as a PNG already


@dataclass
class Usage:
    """What a sample took of one model, as its server counts it."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, replies: Sequence[Reply]) -> None:
        """Count one call, with the tokens of its replies."""
        self.calls += 1
        self.prompt_tokens += sum(reply.prompt_tokens or 0 for reply in replies)
        self.completion_tokens += sum(reply.completion_tokens or 0 for reply in replies)


@dataclass
class Trace:
    """What happened to one sample, step by step; what was not reached is None."""

    sample_id: str
    proposal: Proposal | None = None
    verdict: Verdict | None = None
    verdict_text: str | None = None
    used_edit: bool = False
    answer: str | None = None  # as `answers.extract_answer` reads it; None: the reply held no answer
    answer_text: str | None = None
    verifier: str | None = None
    reasoner: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # edit, verify, reason, ...: of all such steps together
    finish_reasons: dict[str, str] = field(default_factory=dict)  # of the last call of each step
    usage: dict[str, Usage] = field(default_factory=dict)  # by the model's name
    unscored: str | None = None  # why there is no result: a call or an edit failed. Never the same as wrong

    def spend(self, step: str, seconds: float) -> None:
        """Add to the time that a step took."""
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds


Propose = Callable[[EditSample], Awaitable[Proposal]]


async def edit_verify_reason(
    sample: EditSample,
    propose: Propose | None,
    verifier: MLLM | None,
    reasoner: MLLM,
    settings: EvrSettings,
) -> Trace:
    """Run one sample through edit, verify and reason.

    Without `propose` the answer comes from the source alone; without `verifier` the edit is used as it is. A failed
    edit or call leaves the trace *unscored*, with all that came before it.
    """
    trace = Trace(sample.id, reasoner=reasoner.name)
    with unscored_on_failure(trace):
        if propose is not None:
            trace.proposal = await propose(sample)
            trace.spend("edit", trace.proposal.seconds)
        if trace.proposal is not None and verifier is not None:
            reply = await verify(trace, sample, trace.proposal.image, verifier, settings)
            trace.verdict_text, trace.verdict = reply.text, parse_verdict(reply.text)
        wanted = verifier is None or trace.verdict is Verdict.ACCEPTED
        trace.used_edit = trace.proposal is not None and wanted
        await reason(trace, sample, reasoner, settings)
    return trace


@contextmanager
def unscored_on_failure(trace: Trace) -> Iterator[None]:
    """A call or an edit that fails inside ends the block and leaves the trace unscored."""
    try:
        yield
    except (EditFailed, CallFailed) as error:
        trace.unscored = str(error)


async def verify(trace: Trace, sample: EditSample, edit: Image.Image, verifier: MLLM, settings: EvrSettings) -> Reply:
    """What the verifier says of an edit; raises `CallFailed`."""
    trace.verifier = verifier.name
    sources = sample.image, *sample.more_images
    prompt = verify_prompt(sample.question, sample.choices, num_sources=len(sources))
    return await call(trace, "verify", verifier, [user_message(prompt, *sources, edit)], settings)


async def reason(
    trace: Trace, sample: EditSample, reasoner: MLLM, settings: EvrSettings, zoomed: Image.Image | None = None
) -> None:
    """Answer from the source and, if `trace.used_edit`, from the edit and an enlarged part; raises `CallFailed`."""
    sources = sample.image, *sample.more_images
    added = [trace.proposal.image] if trace.used_edit and trace.proposal is not None else []
    added += [] if zoomed is None else [zoomed]
    prompt = answer_prompt(
        sample.question,
        sample.choices,
        answer_type(sample),
        with_edit=trace.used_edit,
        zoomed=zoomed is not None,
        num_sources=len(sources),
    )
    reply = await call(trace, "reason", reasoner, [user_message(prompt, *sources, *added)], settings)
    conclude(trace, sample, reply, reasoner)


def conclude(trace: Trace, sample: EditSample, reply: Reply, reasoner: MLLM) -> None:
    """Take the answer out of the reply that ends a trace."""
    trace.reasoner, trace.answer_text = reasoner.name, reply.text
    cut = reply.finish_reason == "length"
    trace.answer = extract_answer(reply.text, answer_type(sample), sample.choices, truncated=cut)


async def call(trace: Trace, step: str, model: MLLM, messages: Sequence[Message], settings: EvrSettings) -> Reply:
    """One reply of a model, its time and tokens noted in the trace; raises `CallFailed`."""
    begin = time.perf_counter()
    replies = await model.chat(
        messages, temperature=settings.temperature, max_tokens=settings.max_tokens, seed=settings.seed
    )
    taken = replies[0].seconds
    trace.spend(step, time.perf_counter() - begin if taken is None else taken)
    trace.finish_reasons[step] = replies[0].finish_reason
    trace.usage.setdefault(model.name, Usage()).add(replies)
    return replies[0]
