"""One worker thread between many waiting samples and one editor: edits run in batches while model calls go on."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from PIL import Image

from etchr.editor.protocol import Editor


@dataclass(frozen=True)
class Edit:
    """An edit and what it took."""

    image: Image.Image
    seconds: float  # of editor time: the batch's time over its size


class EditFailed(RuntimeError):  # noqa: N818 - a fact about one edit, not a defect of the program
    """The editor raised on this one sample, alone. The sample is *missing*, never wrong."""


@dataclass
class _Request:
    image: Image.Image
    prompt: str
    seed: int
    done: asyncio.Future[Edit]


class EditBatcher:
    """Collects requests into batches for an `Editor`; use as `async with EditBatcher(editor, batch_size) as batcher`.

    At most `2 * batch_size` requests wait; further callers are held back until there is room.
    """

    def __init__(self, editor: Editor, batch_size: int = 16) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.editor, self.batch_size = editor, batch_size
        self._queue: asyncio.Queue[_Request] = asyncio.Queue(maxsize=2 * batch_size)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="editor")

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def edit(self, image: Image.Image, prompt: str, seed: int) -> Edit:
        """The edit of one image; raises `EditFailed` if the editor cannot make it."""
        request = _Request(image, prompt, seed, asyncio.get_running_loop().create_future())
        await self._queue.put(request)
        return await request.done

    async def _work(self) -> None:
        while True:
            batch = [await self._queue.get()]
            await asyncio.sleep(0)  # let those who are about to ask do so
            while len(batch) < self.batch_size and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            if not await self._run(batch) and len(batch) > 1:
                for request in batch:  # one bad sample must not take its neighbours down
                    await self._run([request])

    async def _run(self, batch: list[_Request]) -> bool:
        """Edit a batch and hand out the results; False if the editor raised on more than one request."""
        begin = time.perf_counter()
        loop = asyncio.get_running_loop()
        images, prompts, seeds = [r.image for r in batch], [r.prompt for r in batch], [r.seed for r in batch]
        try:
            edits = await loop.run_in_executor(self._thread, self.editor.edit, images, prompts, seeds)
            pairs = list(zip(batch, edits, strict=True))
        except Exception as error:  # whatever the editor raises is reported with the sample, and the run goes on
            if len(batch) == 1 and not batch[0].done.done():
                batch[0].done.set_exception(EditFailed(f"the editor failed: {type(error).__name__}: {error}"))
            return False
        seconds = (time.perf_counter() - begin) / len(batch)
        for request, image in pairs:
            if not request.done.done():
                request.done.set_result(Edit(image, seconds))
        return True
