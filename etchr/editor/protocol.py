"""What an editor is to this project: pictures and prompts in, pictures of the same size out."""

from collections.abc import Sequence
from typing import Protocol

from PIL import Image


class Editor(Protocol):
    """A question-conditioned image editor."""

    name: str  # written into every record

    def fitted_size(self, image: Image.Image) -> tuple[int, int]:
        """The (width, height) at which `image` is edited; edits of one size can share a batch."""
        ...

    def edit(self, images: Sequence[Image.Image], prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """One edit per (image, prompt, seed), each of the size that `geometry.fit_size` gives for its source.

        An edit depends on its own image, prompt and seed alone, not on the others of the call.
        """
        ...
