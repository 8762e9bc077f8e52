"""An editor that draws nothing: the control that says what a second picture, whatever it shows, is worth."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from etchr.editor import geometry
from etchr.editor.protocol import References


class Unedited:
    """Sources at the size at which they would be edited."""

    name = "unedited"

    def __init__(self, max_pixels: int = geometry.MAX_PIXELS) -> None:
        self.max_pixels = max_pixels

    def fitted_size(self, image: Image.Image) -> tuple[int, int]:
        """See `protocol.Editor`."""
        return geometry.fit_size(*image.size, max_pixels=self.max_pixels)

    def edit(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int],
        references: References | None = None,
    ) -> list[Image.Image]:
        """Each source, fitted."""
        return [geometry.fit(image, max_pixels=self.max_pixels) for image in images]


def load(max_pixels: int | None = None, **_: Any) -> Unedited:
    """Steps, guidance and batch size mean nothing here."""
    return Unedited(max_pixels or geometry.MAX_PIXELS)
