"""The edits that the reader's confidence is fitted on: drawn by editors, and made of the ground truth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from etchr.families import TaskFamily
from etchr.router import Router
from etchr.sample import EditSample
from etchr.seeds import hash_seed

if TYPE_CHECKING:
    from etchr.editor.klein import KleinEditor

STEPS = (None, 4, 2)  # None: as the editor's folder says; few steps give edits that are nearly right
TOLD_STEPS = (None, 4)
CHANGED = 12  # of 255: a pixel that differs by more was drawn by the edit


@dataclass(frozen=True)
class ShownEdit:
    """An edit of a question's picture, and where it comes from."""

    sample: EditSample
    edit: Image.Image
    origin: str
    is_usual: bool = False  # drawn as editors are used: asked, at the folder's steps
    is_made: bool = False  # of the ground truth, by no editor


def made(samples: Sequence[EditSample], seed: int) -> Iterator[ShownEdit]:
    """The ground-truth edit of every sample, whole and spoiled; `ValueError` for a sample without one."""
    for sample, other in zip(samples, [*samples[1:], *samples[:1]], strict=True):
        if sample.edit_image is None or other.edit_image is None:
            raise ValueError(
                f"sample {sample.id!r} or {other.id!r} has no ground-truth edit; give data_prep's questions"
            )
        source, truth = sample.image.convert("RGB"), sample.edit_image.convert("RGB")
        rng = np.random.default_rng(hash_seed(seed, sample.id))
        yield ShownEdit(sample, truth, "truth", is_made=True)
        radius = float(rng.uniform(0.5, 3)) * truth.width / 64
        yield ShownEdit(sample, truth.filter(ImageFilter.GaussianBlur(radius)), "blurred", is_made=True)
        yield ShownEdit(sample, Image.blend(source, truth, float(rng.uniform(0.2, 0.8))), "faint", is_made=True)
        yield ShownEdit(sample, _noisy(truth, rng), "noisy", is_made=True)
        yield ShownEdit(sample, other.edit_image, "another's", is_made=True)
        yield ShownEdit(sample, truth.resize((1, 1), Image.Resampling.BOX).resize(truth.size), "blank", is_made=True)
        if sample.family is TaskFamily.JIGSAW:
            exchanged = Image.fromarray(np.roll(np.asarray(truth), truth.width // 2, axis=int(rng.integers(2))))
            yield ShownEdit(sample, exchanged, "halves exchanged", is_made=True)
        else:
            yield ShownEdit(sample, _with_marks_of(other, source), "marks of another", is_made=True)


def _noisy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Soft patches of wrong colours, as of a model that was not sure."""
    patches = Image.fromarray(rng.uniform(0, 255, (9, 9, 3)).astype(np.uint8))
    return Image.blend(image, patches.resize(image.size, Image.Resampling.BICUBIC), float(rng.uniform(0.05, 0.5)))


def _with_marks_of(other: EditSample, source: Image.Image) -> Image.Image:
    """A source with what the edit of another sample drew on its own."""
    assert other.edit_image is not None
    before, after = (
        np.asarray(each.convert("RGB").resize(source.size), int) for each in (other.image, other.edit_image)
    )
    drawn = (np.abs(after - before).max(-1) > CHANGED)[..., None]
    return Image.fromarray(np.where(drawn, after, np.asarray(source)).astype(np.uint8))


def drawn(
    editor: "KleinEditor", name: str, samples: Sequence[EditSample], is_told: bool, seed: int
) -> Iterator[ShownEdit]:
    """Edits of an editor that is asked each question and, where it `is_told`, told what to draw, rightly or not."""
    router = Router.load()
    asked = [router.prompt(sample.question, sample.family) for sample in samples]
    ways: list[tuple[str, list[str], tuple[int | None, ...]]] = [("asked", asked, STEPS)]
    if is_told:
        told = [str(sample.meta["instruction"]) for sample in samples]
        ways = [("asked", asked, (None,)), ("told", told, TOLD_STEPS), ("told another's", told[1:] + told[:1], (None,))]
    for how, prompts, counts in ways:
        for steps in counts:
            sampled = editor.with_sampling(num_inference_steps=steps)
            seeds = [hash_seed(seed, sample.id) for sample in samples]
            pictures = sampled.edit([sample.image for sample in samples], prompts, seeds)
            origin = f"{name} {how}" + ("" if steps is None else f", {steps} steps")
            for sample, edit in zip(samples, pictures, strict=True):
                yield ShownEdit(sample, edit, origin, is_usual=how == "asked" and steps is None)
