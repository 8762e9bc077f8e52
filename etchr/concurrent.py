"""Asynchronous work on many things, a bounded number at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

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
