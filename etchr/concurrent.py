"""Asynchronous work on many things, a bounded number at a time."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def for_each(work: Callable[[T], Awaitable[None]], items: Iterable[T], limit: int) -> None:
    """Await `work(item)` for every item, begun in their order, `limit` of them at a time.

    Items are taken when there is room for them. The first error stops the rest and is raised as it is.
    """
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(worker())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


class Room:
    """A bound on what is in flight together, by size; what is larger than all the room has it for itself."""

    def __init__(self, size: int) -> None:
        self.size = self.left = size
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Inside, so much of the room is taken."""
        size = min(size, self.size)
        async with self._changed:
            await self._changed.wait_for(lambda: self.left >= size)
            self.left -= size
        try:
            yield
        finally:
            self.left += size
            async with self._changed:
                self._changed.notify_all()


class LoopThread:
    """An event loop in a thread of its own, for coroutines that compute: the loop of who awaits them goes on."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns or raises; cancelled, it cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
