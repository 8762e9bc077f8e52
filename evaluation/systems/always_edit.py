"""The edit is used unverified."""

from etchr.sample import EditSample
from evaluation.systems import evr
from evaluation.systems.base import Calls, FullTrace, Kind, Setup


async def run(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    await evr.run(setup, sample, trace, verifier=None)


KIND = Kind(about="the edit is used without being verified", run=run, calls=lambda _: Calls(1, 1, 1, 1))
