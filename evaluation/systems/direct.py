"""The model answers from the source."""

from etchr.evr import edit_verify_reason
from etchr.sample import EditSample
from evaluation.systems.base import Calls, FullTrace, Kind, Setup, Shown


async def run(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    models = setup.models
    await edit_verify_reason(sample, None, None, models.reasoner, models.sampling, trace=trace)


KIND = Kind(
    about="the model answers from the source alone",
    run=run,
    calls=lambda _: Calls(1, 1, 0, 0),
    has_editor=False,
    is_routed=False,
    shows=Shown(),
)
