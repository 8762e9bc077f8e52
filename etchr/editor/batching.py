"""Worker threads between many waiting samples and one editor: edits run in batches while model calls go on."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from PIL import Image

from etchr.editor.protocol import Editor, draw

LOOKAHEAD = 4  # batches' worth of requests that wait: among so many there are enough of one size


@dataclass(frozen=True)
class Edit:
    """An edit and what it took."""

    image: Image.Image
    seconds: float  # of editor time: the batch's time over its size


class EditFailed(RuntimeError):  # noqa: N818 - a fact about one edit, not a defect of the program
    """The editor raised on this one sample, alone. The sample is *missing*, never wrong."""


@dataclass
class _Request:
    pictures: tuple[Image.Image, ...]  # the source and its references
    prompt: str
    seed: int
    sizes: list[tuple[int, int]]  # at which the editor takes the pictures
    editor: Editor
    done: asyncio.Future[Edit]


class EditBatcher:
    """Collects requests into batches for an `Editor`; use as `async with EditBatcher(editor, batch_size) as batcher`.

    A batch starts with the oldest request and holds pictures of its sizes only. One that the editor cannot make is
    halved until what is at fault stands alone. At most `room` requests wait; further callers are held back. `workers`
    threads run batches at the same time: one for a local editor, for a remote one as many as its server takes.
    """

    def __init__(self, editor: Editor, batch_size: int = 16, workers: int = 1) -> None:
        if batch_size < 1 or workers < 1:
            raise ValueError(f"batch_size={batch_size} and workers={workers} must be at least 1")
        self.editor, self.batch_size, self.workers = editor, batch_size, workers
        self.room = LOOKAHEAD * batch_size * workers
        self._waiting: list[_Request] = []
        self._arrived = asyncio.Condition()
        self._slots = asyncio.Semaphore(self.room)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="editor")

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self.workers)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def edit(
        self,
        image: Image.Image,
        prompt: str,
        seed: int,
        editor: Editor | None = None,
        references: Sequence[Image.Image] = (),
    ) -> Edit:
        """The edit of one image, drawn from `references` too; raises `EditFailed` if the editor cannot make it.

        `editor` takes the place of the batcher's own: such as the same weights under other settings.
        """
        editor, pictures = editor or self.editor, (image, *references)
        try:
            sizes = [editor.fitted_size(picture) for picture in pictures]
        except ValueError as error:
            raise EditFailed(f"the editor cannot take the picture: {error}") from None
        request = _Request(pictures, prompt, seed, sizes, editor, asyncio.get_running_loop().create_future())
        async with self._slots:
            async with self._arrived:
                self._waiting.append(request)
                self._arrived.notify()
            return await request.done

    async def _work(self) -> None:
        while True:
            async with self._arrived:
                await self._arrived.wait_for(lambda: self._waiting)
            await asyncio.sleep(0)  # let those who are about to ask do so
            if batch := self._take():
                await self._run(batch)

    def _take(self) -> list[_Request]:
        """The oldest request and those behind it that the same editor edits at the same sizes."""
        waiting = [request for request in self._waiting if not request.done.done()]  # the others were abandoned
        batch: list[_Request] = []
        rest: list[_Request] = []
        for request in waiting:
            first = waiting[0]
            fits = len(batch) < self.batch_size and request.sizes == first.sizes and request.editor is first.editor
            (batch if fits else rest).append(request)
        self._waiting = rest
        return batch

    async def _run(self, batch: list[_Request]) -> None:
        """Edit a batch and hand out the results; in halves, if the editor raised."""
        begin = time.perf_counter()
        loop = asyncio.get_running_loop()
        pictures, prompts, seeds = [r.pictures for r in batch], [r.prompt for r in batch], [r.seed for r in batch]
        try:
            edits = await loop.run_in_executor(self._threads, draw, batch[0].editor, pictures, prompts, seeds)
            pairs = list(zip(batch, edits, strict=True))
        except Exception as error:  # whatever the editor raises is reported with the sample, and the run goes on
            failure = f"the editor failed: {type(error).__name__}: {error}"
        else:
            seconds = (time.perf_counter() - begin) / len(batch)
            for request, image in pairs:
                if not request.done.done():
                    request.done.set_result(Edit(image, seconds))
            return
        if len(batch) == 1:
            if not batch[0].done.done():
                batch[0].done.set_exception(EditFailed(failure))
            return
        half = len(batch) // 2  # one bad sample must not take its neighbours down
        await self._run(batch[:half])
        await self._run(batch[half:])
