"""Edit-Verify-Reason, and what the edit's red box encloses is shown enlarged as well (the paper's figure on charts)."""

from PIL import Image

from etchr.evr import Trace
from etchr.sample import EditSample
from evaluation.systems import evr
from evaluation.systems.base import Calls, FullTrace, Kind, Setup, Turn


async def run(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    from evaluation import zoom  # which needs scipy

    def enlarge(sample: EditSample, _: Trace) -> Image.Image | None:
        assert trace.proposal is not None
        box = zoom.red_box(sample.image, trace.proposal.image)
        if box is None:
            return None
        zoomed = zoom.zoomed(sample.image, box)
        trace.turns.append(Turn("tool", "the red box, enlarged", zoomed))
        return zoomed

    await evr.run(setup, sample, trace, enlarge=enlarge)


KIND = Kind(
    about="as evr; what the edit's red box encloses is shown enlarged as well",
    run=run,
    calls=lambda _: Calls(2, 2, 1, 2, 1),
)
