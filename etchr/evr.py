"""Edit-Verify-Reason, the paper's inference: one coroutine per sample, no I/O of its own.

The editor proposes an edit, the verifier M accepts or rejects it, and M answers from source and edit, or, when the edit
was not accepted, from the source alone. Everything in between is kept in a `Trace`.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from PIL import Image

from etchr.editor.batching import EditFailed
from etchr.mllm.answers import answer_type, extract_answer
from etchr.mllm.prompts import answer_prompt, verify_prompt
from etchr.mllm.protocol import MLLM, CallFailed, Reply, user_message
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
    seconds: dict[str, float] = field(default_factory=dict)  # edit, verify, reason
    finish_reasons: dict[str, str] = field(default_factory=dict)  # verify, reason
    tokens: dict[str, int] = field(default_factory=dict)  # prompt, completion: both calls together
    unscored: str | None = None  # why there is no result: a call or an edit failed. Never the same as wrong


Propose = Callable[[EditSample], Awaitable[Proposal]]


async def edit_verify_reason(
    sample: EditSample,
    propose: Propose | None,
    verifier: MLLM | None,
    reasoner: MLLM,
    settings: EvrSettings,
    *,
    use_rejected: bool = False,
) -> Trace:
    """Run one sample through edit, verify and reason.

    Without `propose` the answer comes from the source alone; without `verifier`, or with `use_rejected`, the edit is
    used whatever the verdict. A failed edit or call leaves the trace *unscored*, with all that came before it.
    """
    trace = Trace(sample.id, reasoner=reasoner.name)
    try:
        if propose is not None:
            trace.proposal = await propose(sample)
            trace.seconds["edit"] = trace.proposal.seconds
        if trace.proposal is not None and verifier is not None:
            await _verify(trace, sample, trace.proposal.image, verifier, settings)
        wanted = use_rejected or verifier is None or trace.verdict is Verdict.ACCEPTED
        trace.used_edit = trace.proposal is not None and wanted
        await _reason(trace, sample, reasoner, settings)
    except (EditFailed, CallFailed) as error:
        trace.unscored = str(error)
    return trace


async def _verify(trace: Trace, sample: EditSample, edit: Image.Image, verifier: MLLM, settings: EvrSettings) -> None:
    trace.verifier = verifier.name
    prompt = verify_prompt(sample.question, sample.choices)
    reply = await _call(trace, "verify", verifier, prompt, [sample.image, edit], settings)
    trace.verdict_text, trace.verdict = reply.text, parse_verdict(reply.text)


async def _reason(trace: Trace, sample: EditSample, reasoner: MLLM, settings: EvrSettings) -> None:
    kind = answer_type(sample)
    images = [sample.image]
    if trace.used_edit and trace.proposal is not None:
        images.append(trace.proposal.image)
    prompt = answer_prompt(sample.question, sample.choices, kind, with_edit=trace.used_edit)
    reply = await _call(trace, "reason", reasoner, prompt, images, settings)
    trace.answer_text = reply.text
    trace.answer = extract_answer(reply.text, kind, sample.choices, truncated=reply.finish_reason == "length")


async def _call(
    trace: Trace, step: str, model: MLLM, prompt: str, images: Sequence[Image.Image], settings: EvrSettings
) -> Reply:
    begin = time.perf_counter()
    replies = await model.chat(
        [user_message(prompt, *images)],
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
    )
    trace.seconds[step] = time.perf_counter() - begin
    trace.finish_reasons[step] = replies[0].finish_reason
    for name, count in (("prompt", replies[0].prompt_tokens), ("completion", replies[0].completion_tokens)):
        trace.tokens[name] = trace.tokens.get(name, 0) + (count or 0)
    return replies[0]
