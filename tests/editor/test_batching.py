"""`EditBatcher` with requests that name their own editor, and with callers who leave."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from PIL import Image

from etchr.editor.batching import EditBatcher

SOURCE = Image.new("RGB", (32, 32))


class Shade:
    """An editor that paints everything in one shade of grey, when it is let."""

    def __init__(self, shade: int, gate: threading.Event) -> None:
        self.name, self.shade, self.gate = f"shade {shade}", shade, gate
        self.batches: list[list[str]] = []

    def fitted_size(self, image: Image.Image) -> tuple[int, int]:
        return image.size

    def edit(self, images: Sequence[Image.Image], prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.batches.append(list(prompts))
        assert self.gate.wait(timeout=10)
        return [Image.new("RGB", image.size, (self.shade,) * 3) for image in images]


def test_a_batch_holds_requests_of_one_editor_only() -> None:
    gate = threading.Event()
    gate.set()
    dark, light = Shade(10, gate), Shade(200, gate)

    async def run() -> list[int]:
        async with EditBatcher(dark, batch_size=8) as batcher:
            editors = [None, light, dark, light, None, light]
            edits = await asyncio.gather(*(batcher.edit(SOURCE, f"p{i}", i, each) for i, each in enumerate(editors)))
            return [edit.image.getpixel((0, 0))[0] for edit in edits]

    assert asyncio.run(run()) == [10, 200, 10, 200, 10, 200]
    assert (dark.batches, light.batches) == ([["p0", "p2", "p4"]], [["p1", "p3", "p5"]])


def test_a_request_whose_caller_left_is_not_drawn() -> None:
    gate = threading.Event()
    editor = Shade(10, gate)

    async def run() -> None:
        async with EditBatcher(editor, batch_size=1) as batcher:
            first = asyncio.create_task(batcher.edit(SOURCE, "first", 1))
            while not editor.batches:
                await asyncio.sleep(0.01)
            left, last = (asyncio.create_task(batcher.edit(SOURCE, prompt, 1)) for prompt in ("left", "last"))
            await asyncio.sleep(0)
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
            gate.set()
            await asyncio.gather(first, last)

    asyncio.run(run())
    assert editor.batches == [["first"], ["last"]]


class Referred(Shade):
    """Paints in the shade of the last reference's width; without references it is never told of any."""

    def edit(self, images, prompts, seeds, **given):
        super().edit(images, prompts, seeds)
        further = given.get("references", [()] * len(images))
        return [Image.new("RGB", SOURCE.size, ((each or [SOURCE])[-1].width,) * 3) for each in further]


def test_references_go_with_their_request_and_their_sizes_make_a_batch() -> None:
    gate = threading.Event()
    gate.set()
    editor, small, wide = Referred(10, gate), Image.new("RGB", (16, 16)), Image.new("RGB", (48, 16))
    asked = [(), (small,), (wide,), (small, wide), (small,), (), (wide, small)]

    async def run() -> list[int]:
        async with EditBatcher(editor, batch_size=8) as batcher:
            requests = (batcher.edit(SOURCE, f"p{i}", i, references=each) for i, each in enumerate(asked))
            return [edit.image.getpixel((0, 0))[0] for edit in await asyncio.gather(*requests)]

    assert asyncio.run(run()) == [32, 16, 48, 48, 16, 32, 16]
    assert sorted(editor.batches) == [["p0", "p5"], ["p1", "p4"], ["p2"], ["p3"], ["p6"]]


class Fussy(Shade):
    """Fails on every batch that holds the prompt `bad`."""

    def edit(self, images: Sequence[Image.Image], prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        edits = super().edit(images, prompts, seeds)
        if "bad" in prompts:
            raise RuntimeError("I cannot draw that")
        return edits


def test_a_batch_that_fails_is_halved_until_the_bad_one_stands_alone() -> None:
    gate = threading.Event()
    gate.set()
    editor = Fussy(10, gate)
    prompts = ["a", "b", "c", "d", "e", "bad", "g", "h"]

    async def run() -> list[object]:
        async with EditBatcher(editor, batch_size=8) as batcher:
            asked = (batcher.edit(SOURCE, prompt, 1) for prompt in prompts)
            return await asyncio.gather(*asked, return_exceptions=True)

    outcomes = asyncio.run(run())
    failed = {
        prompt: str(found) for prompt, found in zip(prompts, outcomes, strict=True) if isinstance(found, Exception)
    }
    assert failed == {"bad": "the editor failed: RuntimeError: I cannot draw that"}
    assert ["".join(batch) for batch in editor.batches] == [
        "abcdebadgh", "abcd", "ebadgh", "ebad", "e", "bad", "gh"
    ]  # fmt: skip
