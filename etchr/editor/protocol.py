"""What an editor is to this project: pictures and prompts in, pictures of the same size out."""

from collections.abc import Sequence
from typing import Protocol

from PIL import Image

MAX_PICTURES = 4  # of one edit: the source and its references; what BFL says that klein takes
References = Sequence[Sequence[Image.Image]]  # of each edit of a call


class Editor(Protocol):
    """A question-conditioned image editor."""

    name: str  # written into every record

    def fitted_size(self, image: Image.Image) -> tuple[int, int]:
        """The (width, height) at which `image` is edited; edits of one size can share a batch."""
        ...

    def edit(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int],
        references: References | None = None,
    ) -> list[Image.Image]:
        """One edit per (image, prompt, seed), each of the size that `geometry.fit_size` gives for its source.

        `references`, where there are any, holds for each edit the further pictures that it is drawn from, in their
        order, of any sizes; an editor that is never given any may lack it. An edit depends on its own pictures, prompt
        and seed alone, not on the others of the call. Raises `ValueError` as `paired`.
        """
        ...


def draw(
    editor: Editor, pictures: Sequence[Sequence[Image.Image]], prompts: Sequence[str], seeds: Sequence[int]
) -> list[Image.Image]:
    """An edit for each (pictures, prompt, seed): of the first picture, with the others as its references.

    Where no edit has any, `references` is left out: an editor without it will do.
    """
    images = [first for first, *_ in pictures]
    if all(len(each) == 1 for each in pictures):
        return editor.edit(images, prompts, seeds)
    return editor.edit(images, prompts, seeds, references=[each[1:] for each in pictures])


def paired(
    images: Sequence[Image.Image], prompts: Sequence[str], seeds: Sequence[int], references: References | None
) -> References:
    """The references of each edit of a call; `ValueError` where its arguments are not equally many."""
    if not len(images) == len(prompts) == len(seeds):
        raise ValueError(f"{len(images)} images, {len(prompts)} prompts and {len(seeds)} seeds do not pair up")
    if references is not None and len(references) != len(images):
        raise ValueError(f"{len(references)} lists of references and {len(images)} images do not pair up")
    return references or [()] * len(images)
