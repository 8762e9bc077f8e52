"""What the editor is told: meta-prompt and question, the sample's own instruction, or one that the model writes."""

from typing import TYPE_CHECKING

from etchr.evr import Attempt, call
from etchr.mllm.markup import last_box, plain
from etchr.mllm.prompts import MAX_INSTRUCTION, enhance_prompt, rewrite_prompt
from etchr.mllm.protocol import Message, user_message
from etchr.mllm.routing import read_route, route_message
from etchr.router import Route, Router, route_by_rule
from etchr.sample import EditSample
from evaluation.systems.base import FullTrace, Setup, Turn

if TYPE_CHECKING:
    from evaluation.settings import SystemConfig


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
    return router.prompt(sample.question, family, sample.choices)


def edit_prompt(system: "SystemConfig", sample: EditSample, router: Router) -> str:
    """The editing prompt; `ValueError` if the sample has no instruction, or the router does not know its family."""
    if system.prompt == "question":
        if sample.meta.get("family_is_unknown"):
            raise ValueError(f"sample {sample.id!r} has no family; set route: rule or route: model")
        return router.prompt(sample.question, sample.family, sample.choices)
    instruction = sample.meta.get("instruction")
    if not isinstance(instruction, str):
        raise ValueError(f"sample {sample.id!r} has no explicit instruction; use prompt: question")
    return instruction


async def _route(setup: Setup, sample: EditSample, trace: FullTrace) -> Route:
    reasoner, sampling = setup.models.reasoner, setup.models.sampling
    message = route_message(sample.question, sample.choices, *sample.sources)
    return read_route(await call(trace, "route", reasoner, [message], sampling))


async def enhance(setup: Setup, sample: EditSample, trace: FullTrace) -> str:
    """The instruction that the model writes from question and sources."""
    sources = sample.sources
    prompt = enhance_prompt(sample.question, sample.choices, num_sources=len(sources))
    message = user_message(prompt, *sources)
    return await _instruction(setup, trace, message, sample.question)


async def rewrite(setup: Setup, sample: EditSample, trace: FullTrace, attempt: Attempt) -> str:
    """A better instruction than the one of a rejected attempt; the same if the model writes none."""
    before, sources = attempt.proposal.prompt or sample.question, sample.sources
    text = rewrite_prompt(sample.question, sample.choices, before, attempt.verdict_text, num_sources=len(sources))
    message = user_message(text, *sources, attempt.proposal.image)
    return await _instruction(setup, trace, message, before)


async def _instruction(setup: Setup, trace: FullTrace, message: Message, otherwise: str) -> str:
    reply = await call(trace, "instruct", setup.models.reasoner, [message], setup.models.sampling)
    trace.turns.append(Turn("instruction", reply.text))
    return (read_instruction(reply.text) or otherwise)[:MAX_INSTRUCTION]


def read_instruction(text: str) -> str | None:
    """The instruction in a reply: its last box, or the whole of a reply that is one line; None if there is none."""
    boxed = last_box(text)
    if boxed is not None:
        return plain(boxed) or None
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return plain(lines[0]) if len(lines) == 1 and r"\boxed" not in text else None
