"""What is compared: each kind of system is a way to get from a sample to a trace, and a file here.

Most are `evr.edit_verify_reason` with other options. Loads without torch.
"""

from etchr.evr import unscored_on_failure
from etchr.sample import EditSample
from evaluation.systems import (
    always_edit,
    best_of_n,
    crop,
    direct,
    enhancer,
    evr,
    interleaved,
    iterate,
    oracle_edit,
    tool_loop,
)
from evaluation.systems.base import FullTrace, Kind, Setup

SYSTEMS: dict[str, Kind] = {
    "direct": direct.KIND,
    "evr": evr.KIND,
    "always_edit": always_edit.KIND,
    "oracle_edit": oracle_edit.KIND,
    "enhancer": enhancer.KIND,
    "crop": crop.KIND,
    "iterate": iterate.KIND,
    "best_of_n": best_of_n.KIND,
    "tool_loop": tool_loop.KIND,
    "interleaved": interleaved.KIND,
}


async def run_system(setup: Setup, sample: EditSample) -> FullTrace:
    """Run one sample through a system; a call or an edit that fails leaves the trace unscored."""
    trace = FullTrace(sample.id, reasoner=setup.models.reasoner.name)
    with unscored_on_failure(trace):
        await SYSTEMS[setup.config.kind].run(setup, sample, trace)
    return trace
