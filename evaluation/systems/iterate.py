"""An edit that is rejected is tried again; the best attempt counts, not the last.

With an instruction rewritten from the verdict or, where the prompt is a question, with other noise: a question is all
that a question-conditioned editor understands.
"""

from typing import TYPE_CHECKING

from etchr.evr import Proposal, edit_verify_reason
from etchr.sample import EditSample
from evaluation.systems import evr
from evaluation.systems.base import Calls, FullTrace, Kind, Setup
from evaluation.systems.prompting import first_prompt, rewrite

if TYPE_CHECKING:
    from evaluation.settings import SystemConfig


async def run(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    models, attempts = setup.models, setup.config.attempts
    if setup.config.prompt == "question":
        await evr.run(setup, sample, trace, attempts=attempts)
        return
    prompt = await first_prompt(setup, sample, trace)

    async def propose(sample: EditSample) -> Proposal:
        nonlocal prompt
        assert prompt is not None
        if trace.attempts:
            prompt = await rewrite(setup, sample, trace, trace.attempts[-1])
        return await setup.draw(sample, prompt, len(trace.attempts))

    makes = None if prompt is None else propose
    await edit_verify_reason(
        sample, makes, models.verifier, models.reasoner, models.sampling, attempts=attempts, trace=trace
    )


def calls(system: "SystemConfig") -> Calls:
    n = system.attempts
    rewrites = 0 if system.prompt == "question" else n - 1
    return Calls(2, n + 1 + rewrites, n, 1, n)


KIND = Kind(about="a rejected edit is tried again; the best attempt counts", run=run, calls=calls)
