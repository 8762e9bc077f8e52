"""The ground-truth edit is used: the ceiling. Its verdict is recorded too, to measure the verifier."""

from etchr.evr import Proposal, edit_verify_reason
from etchr.sample import EditSample
from evaluation.systems.base import Calls, FullTrace, Kind, Setup, Shown


async def run(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    async def propose(sample: EditSample) -> Proposal:
        assert sample.edit_image is not None
        return Proposal(sample.edit_image, "ground truth")

    models = setup.models
    await edit_verify_reason(
        sample, propose, models.verifier, models.reasoner, models.sampling, overrule=True, trace=trace
    )


KIND = Kind(
    about="the ground-truth edit is used: the ceiling",
    run=run,
    calls=lambda _: Calls(2, 2, 0, 1, 1),
    has_editor=False,
    is_routed=False,
    needs_truth=True,
    shows=Shown(whole=1),
)
