"""Edit-Verify-Reason, the paper's inference: one coroutine per sample, no I/O of its own.

The editor proposes an edit, the verifier M accepts or rejects it, and M answers from source and edit, or, when the edit
was not accepted, from the source alone. Everything in between is kept in a `Trace`. Every system of the tables that
edits is this function with other options (`evaluation/systems/`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from etchr.editor.batching import EditFailed
from etchr.mllm.answers import answer_type, extract_answer
from etchr.mllm.logprobs import token_share
from etchr.mllm.prompts import answer_prompt, verify_prompt
from etchr.mllm.protocol import MLLM, CallFailed, Message, Reply, Sampling, user_message
from etchr.mllm.verdict import NEGATIVE, POSITIVE, Verdict, parse_verdict
from etchr.sample import EditSample


@dataclass(frozen=True)
class Proposal:
    """A proposed edit and where it came from."""

    image: Image.Image
    editor: str  # name of the editor, or "ground truth"
    prompt: str | None = None
    seed: int | None = None
    seconds: float = 0.0
    file: Path | None = None  # where it lies as a PNG already


@dataclass(frozen=True)
class Attempt:
    """A proposal and what the verifier made of it."""

    proposal: Proposal
    verdict: Verdict
    verdict_text: str
    score: float  # how sure the verifier is that the edit can be relied on, 0 to 1

    @property
    def rank(self) -> tuple[bool, float]:
        """The larger, the better."""
        return self.verdict is Verdict.ACCEPTED, self.score


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
    attempts: list[Attempt] = field(default_factory=list)  # where several were allowed; the best is the proposal
    unscored: str | None = None  # why there is no result: a call or an edit failed. Never the same as wrong

    def spend(self, step: str, seconds: float) -> None:
        """Add to the time that a step took."""
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds


Propose = Callable[[EditSample], Awaitable[Proposal]]
Conclude = Callable[[Trace], Awaitable[None]]  # puts the question itself and keeps the reply
Enlarge = Callable[[Image.Image, Image.Image], Image.Image | None]  # of source and edit


async def edit_verify_reason(
    sample: EditSample,
    propose: Propose | None,
    verifier: MLLM | None,
    reasoner: MLLM,
    sampling: Sampling,
    *,
    attempts: int = 1,
    at_once: bool = False,
    overrule: bool = False,
    enlarge: Enlarge | None = None,
    trace: Trace | None = None,
    answer: Conclude | None = None,
) -> Trace:
    """Run one sample through edit, verify and reason; `trace`, a new one by default, is filled and returned.

    Without `propose` the answer comes from the source alone; without `verifier` the edit is used as it is. Of up to
    `attempts` edits, made one after the other until one is accepted, or all `at_once`, the best by verdict and score
    counts. With `overrule` the verdict is asked for and the edit used whatever it says. What `enlarge` cuts out of a
    used edit is shown as well. A failed edit or call leaves the trace *unscored*, with all that came before it.
    `answer` takes the place of `reason`, for whoever words the question himself.
    """
    trace = Trace(sample.id) if trace is None else trace
    trace.reasoner = reasoner.name
    with unscored_on_failure(trace):
        if propose is not None and verifier is None:
            trace.proposal = await _proposed(trace, sample, propose)
        elif propose is not None and verifier is not None:
            await _edit_and_verify(trace, sample, propose, verifier, sampling, attempts, at_once)
        trusted = verifier is None or overrule or trace.verdict is Verdict.ACCEPTED
        trace.used_edit = trace.proposal is not None and trusted
        zoomed = None
        if enlarge is not None and trace.used_edit and trace.proposal is not None:
            zoomed = enlarge(sample.image, trace.proposal.image)
        if answer is None:
            await reason(trace, sample, reasoner, sampling, zoomed)
        else:
            await answer(trace)
    return trace


async def _edit_and_verify(
    trace: Trace,
    sample: EditSample,
    propose: Propose,
    verifier: MLLM,
    sampling: Sampling,
    attempts: int,
    at_once: bool,
) -> None:
    async def attempt() -> Attempt:
        proposal = await _proposed(trace, sample, propose)
        return await verify(trace, sample, proposal, verifier, sampling)

    tried = list[Attempt]()
    while len(tried) < attempts and trace.verdict is not Verdict.ACCEPTED:
        tried += await asyncio.gather(*(attempt() for _ in range(attempts if at_once else 1)))
        best = max(tried, key=lambda each: each.rank)  # the first of equals
        trace.proposal, trace.verdict, trace.verdict_text = best.proposal, best.verdict, best.verdict_text
        trace.attempts = tried if attempts > 1 else []


async def _proposed(trace: Trace, sample: EditSample, propose: Propose) -> Proposal:
    proposal = await propose(sample)
    trace.proposal = trace.proposal or proposal  # kept if its verification fails
    trace.spend("edit", proposal.seconds)
    return proposal


@contextmanager
def unscored_on_failure(trace: Trace) -> Iterator[None]:
    """A call or an edit that fails inside ends the block and leaves the trace unscored."""
    try:
        yield
    except (EditFailed, CallFailed) as error:
        trace.unscored = str(error)


async def verify(trace: Trace, sample: EditSample, proposal: Proposal, verifier: MLLM, sampling: Sampling) -> Attempt:
    """What the verifier says of an edit; raises `CallFailed`."""
    trace.verifier = verifier.name
    sources = sample.sources
    prompt = verify_prompt(sample.question, sample.choices, num_sources=len(sources))
    reply = await call(trace, "verify", verifier, [user_message(prompt, *sources, proposal.image)], sampling)
    verdict = parse_verdict(reply.text)
    score = float(verdict is Verdict.ACCEPTED)
    if verdict is not Verdict.UNPARSABLE and (share := token_share(reply, POSITIVE, NEGATIVE)) is not None:
        score = share
    return Attempt(proposal, verdict, reply.text, score)


async def reason(
    trace: Trace, sample: EditSample, reasoner: MLLM, sampling: Sampling, zoomed: Image.Image | None = None
) -> None:
    """Answer from the source and, if `trace.used_edit`, from the edit and an enlarged part; raises `CallFailed`."""
    sources = sample.sources
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
    reply = await call(trace, "reason", reasoner, [user_message(prompt, *sources, *added)], sampling)
    conclude(trace, sample, reply, reasoner)


def conclude(trace: Trace, sample: EditSample, reply: Reply, reasoner: MLLM) -> None:
    """Take the answer out of the reply that ends a trace."""
    trace.reasoner, trace.answer_text = reasoner.name, reply.text
    cut = reply.finish_reason == "length"
    trace.answer = extract_answer(reply.text, answer_type(sample), sample.choices, truncated=cut)


async def call(trace: Trace, step: str, model: MLLM, messages: Sequence[Message], sampling: Sampling) -> Reply:
    """One reply of a model, its time and tokens noted in the trace; raises `CallFailed`."""
    begin = time.perf_counter()
    replies = await model.chat(messages, sampling)
    taken = replies[0].seconds
    trace.spend(step, time.perf_counter() - begin if taken is None else taken)
    trace.finish_reasons[step] = replies[0].finish_reason
    trace.usage.setdefault(model.name, Usage()).add(replies)
    return replies[0]
