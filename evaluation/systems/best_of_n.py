"""Several seeds at once; the verifier picks."""

from etchr.sample import EditSample
from evaluation.systems import evr
from evaluation.systems.base import Calls, FullTrace, Kind, Setup


async def run(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    await evr.run(setup, sample, trace, attempts=setup.config.attempts, at_once=True)


KIND = Kind(
    about="several edits with different noise; the verifier picks one",
    run=run,
    calls=lambda system: Calls(system.attempts + 1, system.attempts + 1, system.attempts, 1, system.attempts),
)
