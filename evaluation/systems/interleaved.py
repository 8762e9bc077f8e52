"""One model draws and answers: an endpoint whose replies hold pictures, or editor and reasoner as one."""

from etchr.evr import call, conclude
from etchr.mllm.answers import answer_type
from etchr.mllm.markup import last_box
from etchr.mllm.prompts import GO_ON, interleave_prompt
from etchr.mllm.protocol import user_message
from etchr.sample import EditSample
from evaluation.systems.base import Calls, FullTrace, Kind, Setup, Turn
from evaluation.systems.dialogue import MAX_PICTURES, said
from evaluation.unified import UnifiedModel


async def run(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    kind = answer_type(sample)
    model, sampling = setup.models.reasoner, setup.models.sampling
    if setup.edits is not None:
        noise = setup.models.seed + 1000 * setup.repeat
        model = UnifiedModel(model, setup.edits, setup.models.router, noise)
        trace.reasoner = model.name
    question = interleave_prompt(sample.question, sample.choices, kind)
    messages = [user_message(question, *sample.sources)]
    pictures = 0
    for _ in range(setup.config.turns):
        reply = await call(trace, "reason", model, messages, sampling)
        first = reply.images[0] if reply.images else None
        trace.turns += [
            Turn("assistant", reply.text, first),
            *(Turn("assistant", "", more) for more in reply.images[1:]),
        ]
        pictures += len(reply.images)
        if last_box(reply.text) is not None or not reply.images or pictures >= MAX_PICTURES:
            break
        messages = [*messages, said(reply.text, *reply.images), user_message(GO_ON)]
    conclude(trace, sample, reply, model)


KIND = Kind(
    about="one model that draws and answers in turns",
    run=run,
    calls=lambda system: Calls(1, system.turns, system.turns, system.turns),
    is_routed=False,
    may_draw=True,
    by_rule=True,  # of the stand-in for a unified model
)
