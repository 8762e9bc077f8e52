"""Edit-Verify-Reason, and what the edit's red box encloses is shown enlarged as well (the paper's figure on charts)."""

from PIL import Image

from etchr.sample import EditSample
from evaluation import zoom
from evaluation.systems import evr
from evaluation.systems.base import Calls, FullTrace, Kind, Setup, Shown, Turn


async def run(setup: Setup, sample: EditSample, trace: FullTrace) -> None:
    def enlarge(source: Image.Image, edit: Image.Image) -> Image.Image | None:
        box = zoom.red_box(source, edit)
        if box is None:
            return None
        zoomed = zoom.zoomed(source, box)
        trace.turns.append(Turn("tool", "the red box, enlarged", zoomed))
        return zoomed

    await evr.run(setup, sample, trace, enlarge=enlarge)


KIND = Kind(
    about="as evr; what the edit's red box encloses is shown enlarged as well",
    run=run,
    calls=lambda _: Calls(2, 2, 1, 2, 1),
    shows=Shown(edits=1, crops=1),
)
