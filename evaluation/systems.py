"""What is compared: each system is a way to get from a sample to a trace; most are `evr.edit_verify_reason` varied.

direct       the model answers from the source
evr          the editor proposes, the model verifies, and answers from the edit or falls back
always_edit  the edit is used unverified
oracle_edit  the ground-truth edit is used: the ceiling. Its verdict is recorded too, to measure the verifier
enhancer     evr with an instruction that the model writes from the question, for an editor that knows no questions
crop         evr, and what the edit's red box encloses is shown enlarged as well (the paper's figure on charts)
iterate      an edit that is rejected is tried again, with an instruction rewritten from the verdict or, where the
             prompt is a question, with other noise; the best attempt counts, not the last
best_of_n    several seeds at once; the verifier picks
tool_loop    the model asks for crops and marks by tool calls, up to a number of turns (`tools.py`)
interleaved  one model draws and answers: an endpoint whose replies hold pictures, or editor and reasoner as one
"""

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from etchr.evr import (
    Attempt,
    EvrSettings,
    Proposal,
    Propose,
    Trace,
    call,
    conclude,
    edit_verify_reason,
    unscored_on_failure,
)
from etchr.mllm.answers import answer_type
from etchr.mllm.markup import last_box, plain
from etchr.mllm.prompts import (
    GO_ON,
    MAX_INSTRUCTION,
    TOOL_RESULT,
    TOOLS,
    TOOLS_SPENT,
    answer_prompt,
    enhance_prompt,
    interleave_prompt,
    rewrite_prompt,
)
from etchr.mllm.protocol import MLLM, ImagePart, Message, TextPart, user_message
from etchr.mllm.routing import read_route, route_message
from etchr.router import Route, Router, route_by_rule
from etchr.sample import EditSample
from evaluation import tools, zoom
from evaluation.settings import SystemConfig
from evaluation.store import EditStore

MAX_PICTURES = 8  # that tools or a unified model may add to a dialogue


@dataclass(frozen=True)
class Turn:
    """One step of a dialogue, for the record."""

    role: str  # instruction, assistant or tool
    text: str
    image: Image.Image | None = None


@dataclass
class FullTrace(Trace):
    """A trace, and what the larger systems add to it."""

    turns: list[Turn] = field(default_factory=list)
    routed: Route | None = None  # where the family is not taken from the data


@dataclass(frozen=True)
class Models:
    """What the systems of a run share."""

    reasoner: MLLM
    verifier: MLLM
    router: Router
    settings: EvrSettings
    seed: int  # of the edits


@dataclass(frozen=True)
class Setup:
    """What one system works with."""

    config: SystemConfig
    models: Models
    edits: EditStore | None  # of its editor, if it has one
    repeat: int = 0  # the how-manieth run of the sample

    async def draw(self, sample: EditSample, prompt: str, attempt: int = 0) -> Proposal:
        """The editor's edit; other noise for every sample, repeat and attempt. Raises `EditFailed`."""
        assert self.edits is not None
        seed = sample_seed(self.models.seed, noise_of(sample), self.repeat, attempt)
        made = await self.edits.edit(sample.image, prompt, seed)
        return Proposal(made.edit.image, made.editor, prompt, seed, made.edit.seconds, made.file)


async def run_system(setup: Setup, sample: EditSample) -> FullTrace:
    """Run one sample through a system; a call or an edit that fails leaves the trace unscored."""
    trace = FullTrace(sample.id, reasoner=setup.models.reasoner.name)
    with unscored_on_failure(trace):
        await SYSTEMS[setup.config.kind](setup, sample, trace)
    return trace


# ----------------------------------------------------------------------------- edit, verify, reason, in variations


async def direct(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    await _edit_verify_reason(setup, sample, trace, None)


async def oracle_edit(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    async def propose(sample: EditSample) -> Proposal:
        assert sample.edit_image is not None
        return Proposal(sample.edit_image, "ground truth")

    await _edit_verify_reason(setup, sample, trace, propose, overrule=True)


async def evr(setup: Setup, sample: EditSample, trace: FullTrace, **options: Any) -> None:
    """With the options of `edit_verify_reason`; further edits of a sample have the same prompt and other noise."""
    prompt = await first_prompt(setup, sample, trace)
    number = itertools.count()

    async def propose(sample: EditSample) -> Proposal:
        assert prompt is not None
        return await setup.draw(sample, prompt, next(number))

    await _edit_verify_reason(setup, sample, trace, None if prompt is None else propose, **options)


async def always_edit(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    await evr(setup, sample, trace, verifier=None)


async def crop(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    def enlarge(sample: EditSample, _: Trace) -> Image.Image | None:
        assert trace.proposal is not None
        box = zoom.red_box(sample.image, trace.proposal.image)
        if box is None:
            return None
        zoomed = zoom.zoomed(sample.image, box)
        trace.turns.append(Turn("tool", "the red box, enlarged", zoomed))
        return zoomed

    await evr(setup, sample, trace, enlarge=enlarge)


async def best_of_n(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    await evr(setup, sample, trace, attempts=setup.config.attempts, at_once=True)


async def iterate(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    if setup.config.prompt == "question":  # which is all that a question-conditioned editor understands
        await evr(setup, sample, trace, attempts=setup.config.attempts)
        return
    prompt = await first_prompt(setup, sample, trace)

    async def propose(sample: EditSample) -> Proposal:
        nonlocal prompt
        assert prompt is not None
        if trace.attempts:
            prompt = await rewrite(setup, sample, trace, trace.attempts[-1])
        return await setup.draw(sample, prompt, len(trace.attempts))

    attempts = setup.config.attempts
    await _edit_verify_reason(setup, sample, trace, None if prompt is None else propose, attempts=attempts)


async def _edit_verify_reason(
    setup: Setup, sample: EditSample, trace: FullTrace, propose: Propose | None, **options: Any
) -> None:
    models = setup.models
    options = {"verifier": models.verifier, "trace": trace} | options
    await edit_verify_reason(sample, propose, reasoner=models.reasoner, settings=models.settings, **options)


# --------------------------------------------------------------------------------------------------------- prompts


async def first_prompt(setup: Setup, sample: EditSample, trace: FullTrace) -> str | None:
    """The prompt of the first edit; None if the question's family is too uncertain for an edit."""
    config, router = setup.config, setup.models.router
    if config.route != "label":
        by_rule = config.route == "rule"
        trace.routed = route_by_rule(sample.question) if by_rule else await _route(setup, sample, trace)
        if not trace.routed.asks_for_edit(config.min_confidence):
            return None
    if config.prompt == "enhanced":
        return await enhance(setup, sample, trace)
    if config.prompt == "instruction" or trace.routed is None:
        return edit_prompt(config, sample, router)
    family = trace.routed.family
    if family not in router.meta_prompts:
        return None  # one that the editor was not trained for
    return router.prompt(sample.question, family)


def edit_prompt(system: SystemConfig, sample: EditSample, router: Router) -> str:
    """The editing prompt; `ValueError` if the sample has no instruction, or the router does not know its family."""
    if system.prompt == "question":
        if sample.meta.get("family_is_unknown"):
            raise ValueError(f"sample {sample.id!r} has no family; set route: rule or route: model")
        return router.prompt(sample.question, sample.family)
    instruction = sample.meta.get("instruction")
    if not isinstance(instruction, str):
        raise ValueError(f"sample {sample.id!r} has no explicit instruction; use prompt: question")
    return instruction


async def _route(setup: Setup, sample: EditSample, trace: FullTrace) -> Route:
    reasoner, settings = setup.models.reasoner, setup.models.settings
    message = route_message(sample.question, sample.choices, sample.image)
    return read_route(await call(trace, "route", reasoner, [message], settings))


async def enhance(setup: Setup, sample: EditSample, trace: FullTrace) -> str:
    """The instruction that the model writes from question and source."""
    message = user_message(enhance_prompt(sample.question, sample.choices), sample.image)
    return await _instruction(setup, trace, message, sample.question)


async def rewrite(setup: Setup, sample: EditSample, trace: FullTrace, attempt: Attempt) -> str:
    """A better instruction than the one of a rejected attempt; the same if the model writes none."""
    before = attempt.proposal.prompt or sample.question
    text = rewrite_prompt(sample.question, sample.choices, before, attempt.verdict_text)
    message = user_message(text, sample.image, attempt.proposal.image)
    return await _instruction(setup, trace, message, before)


async def _instruction(setup: Setup, trace: FullTrace, message: Message, otherwise: str) -> str:
    reply = await call(trace, "instruct", setup.models.reasoner, [message], setup.models.settings)
    trace.turns.append(Turn("instruction", reply.text))
    return (read_instruction(reply.text) or otherwise)[:MAX_INSTRUCTION]


def read_instruction(text: str) -> str | None:
    """The instruction in a reply: its last box, or the whole of a reply that is one line; None if there is none."""
    boxed = last_box(text)
    if boxed is not None:
        return plain(boxed) or None
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return plain(lines[0]) if len(lines) == 1 and r"\boxed" not in text else None


# ------------------------------------------------------------------------------------------------------- dialogues


async def tool_loop(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    kind = answer_type(sample)
    reasoner, settings = setup.models.reasoner, setup.models.settings
    rules: Message = {"role": "system", "content": [{"type": "text", "text": TOOLS.format(tools=tools.DESCRIPTION)}]}
    sources = sample.image, *sample.more_images
    question = answer_prompt(sample.question, sample.choices, kind, with_edit=False, num_sources=len(sources))
    messages: list[Message] = [rules, user_message(question, *sources)]
    number, most = len(sources), len(sources) + MAX_PICTURES  # pictures in the dialogue
    spent = setup.config.turns == 1  # whether tools are over
    for turn in range(setup.config.turns):
        reply = await call(trace, "reason", reasoner, messages, settings)
        trace.turns.append(Turn("assistant", reply.text))
        calls = tools.parse_calls(reply.text)
        if not calls or spent:
            break
        content = await _use_tools(calls, sample, trace, number, most)
        number += sum(part["type"] == "image" for part in content)
        spent = turn + 2 >= setup.config.turns or number >= most
        if spent:
            content.append({"type": "text", "text": TOOLS_SPENT})
        messages = [*messages, _said(reply.text), {"role": "user", "content": content}]
    conclude(trace, sample, reply, reasoner)


async def _use_tools(
    calls: list[tools.ToolCall], sample: EditSample, trace: FullTrace, number: int, most: int
) -> list[TextPart | ImagePart]:
    """What goes back to the model: the picture of every call, numbered on from `number`, or what is wrong with it.

    Calls after the picture `most` are not made: the model is told then that tools are over.
    """
    content: list[TextPart | ImagePart] = []
    for each in calls:
        if number >= most:
            break
        try:
            drawn = await asyncio.to_thread(tools.run_tool, each, sample.image)
        except ValueError as error:
            content.append({"type": "text", "text": f"{each.name}: {error}"})
            trace.turns.append(Turn("tool", str(error)))
            continue
        number += 1
        content.append({"type": "text", "text": TOOL_RESULT.format(number=number, name=each.name)})
        content.append({"type": "image", "image": drawn})
        trace.turns.append(Turn("tool", each.name, drawn))
    return content


async def interleaved(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    kind = answer_type(sample)
    model, settings = setup.models.reasoner, setup.models.settings
    question = interleave_prompt(sample.question, sample.choices, kind)
    messages = [user_message(question, sample.image, *sample.more_images)]
    pictures = 0
    for _ in range(setup.config.turns):
        reply = await call(trace, "reason", model, messages, settings)
        first = reply.images[0] if reply.images else None
        trace.turns += [
            Turn("assistant", reply.text, first),
            *(Turn("assistant", "", more) for more in reply.images[1:]),
        ]
        pictures += len(reply.images)
        if last_box(reply.text) is not None or not reply.images or pictures >= MAX_PICTURES:
            break
        messages = [*messages, _said(reply.text, *reply.images), user_message(GO_ON)]
    conclude(trace, sample, reply, model)


def _said(text: str, *images: Image.Image) -> Message:
    """A turn of the model, as it goes back to it."""
    pictures: list[TextPart | ImagePart] = [{"type": "image", "image": image} for image in images]
    return {"role": "assistant", "content": [{"type": "text", "text": text}, *pictures]}


SYSTEMS: dict[str, Callable[[Setup, EditSample, FullTrace], Awaitable[None]]] = {
    "direct": direct,
    "evr": evr,
    "always_edit": always_edit,
    "oracle_edit": oracle_edit,
    "enhancer": evr,
    "crop": crop,
    "iterate": iterate,
    "best_of_n": best_of_n,
    "tool_loop": tool_loop,
    "interleaved": interleaved,
}


def noise_of(sample: EditSample) -> str:
    """What names a sample's noise: its id, or what it shares with questions that differ in their options only."""
    return str(sample.meta.get("noise", sample.id))


def sample_seed(seed: int, sample_id: str, repeat: int = 0, attempt: int = 0) -> int:
    """A sample's own noise: the same whatever else runs, and another one for every sample, repeat and attempt."""
    name = "/".join(map(str, (seed, sample_id, *((repeat, attempt) if repeat or attempt else ()))))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1
