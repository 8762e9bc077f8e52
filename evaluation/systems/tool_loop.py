"""The model asks for crops and marks by tool calls, up to a number of turns; there is no editor (`tools.py`)."""

import asyncio

from etchr.evr import call, conclude
from etchr.mllm.answers import answer_type
from etchr.mllm.prompts import TOOL_RESULT, TOOLS, TOOLS_SPENT, answer_prompt
from etchr.mllm.protocol import ImagePart, Message, TextPart, user_message
from etchr.sample import EditSample
from evaluation import tools
from evaluation.systems.base import Calls, FullTrace, Kind, Setup, Shown, Turn
from evaluation.systems.dialogue import MAX_PICTURES, said


async def run(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    kind = answer_type(sample)
    reasoner, sampling = setup.models.reasoner, setup.models.sampling
    rules: Message = {"role": "system", "content": [{"type": "text", "text": TOOLS.format(tools=tools.DESCRIPTION)}]}
    sources = sample.sources
    question = answer_prompt(sample.question, sample.choices, kind, with_edit=False, num_sources=len(sources))
    messages: list[Message] = [rules, user_message(question, *sources)]
    number, most = len(sources), len(sources) + MAX_PICTURES  # pictures in the dialogue
    spent = setup.config.turns == 1  # whether tools are over
    for turn in range(setup.config.turns):
        reply = await call(trace, "reason", reasoner, messages, sampling)
        trace.turns.append(Turn("assistant", reply.text))
        calls = tools.parse_calls(reply.text)
        if not calls or spent:
            break
        content = await _use_tools(calls, sample, trace, number, most)
        number += sum(part["type"] == "image" for part in content)
        spent = turn + 2 >= setup.config.turns or number >= most
        if spent:
            content.append({"type": "text", "text": TOOLS_SPENT})
        messages = [*messages, said(reply.text), {"role": "user", "content": content}]
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


KIND = Kind(
    about="no editor: the model asks for crops and marks by tool calls",
    run=run,
    calls=lambda system: Calls(1, system.turns, 0, system.turns),
    has_editor=False,
    is_routed=False,
    shows=Shown(tools=True),
)
