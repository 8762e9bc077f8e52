"""The editor proposes, the model verifies, and answers from the edit or falls back: the paper's inference."""

import itertools
from typing import Any

from etchr.evr import Proposal, edit_verify_reason
from etchr.sample import EditSample
from evaluation.systems.base import Calls, FullTrace, Kind, Setup
from evaluation.systems.prompting import first_prompt


async def run(setup: Setup, sample: EditSample, trace: FullTrace, **options: Any) -> None:
    """With the options of `edit_verify_reason`; further edits of a sample have the same prompt and other noise."""
    prompt = await first_prompt(setup, sample, trace)
    number = itertools.count()

    async def propose(sample: EditSample) -> Proposal:
        assert prompt is not None
        return await setup.draw(sample, prompt, next(number))

    models = setup.models
    options.setdefault("verifier", models.verifier)
    makes = None if prompt is None else propose
    await edit_verify_reason(sample, makes, reasoner=models.reasoner, sampling=models.sampling, trace=trace, **options)


KIND = Kind(
    about="the editor draws an edit, the model verifies it and answers from it, or from the source if it is rejected",
    run=run,
    calls=lambda _: Calls(2, 2, 1, 1, 1),
)
