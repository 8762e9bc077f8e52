"""Scoring beside the caller: a thread with an event loop, fed from synchronous code."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from PIL import Image

from etchr.mllm.protocol import opened
from etchr.rewards.cache import RewardCache
from etchr.rewards.score import EditRewards, Score
from etchr.sample import EditSample

T = TypeVar("T")


@dataclass
class PoolStats:
    """What a pool has done so far."""

    asked: int = 0  # edits that the models were asked about
    cached: int = 0  # edits whose score was known
    missing: int = 0  # edits that were asked about and have no score


class RewardPool:
    """Scores edits on a background thread's event loop while the caller goes on.

    `with` starts the thread and ends it, whatever happens inside; what is under way then is cancelled. The models'
    endpoints are checked at the start: the check's `ValueError` comes out of `with`.
    """

    def __init__(self, rewards: EditRewards, cache: RewardCache | None = None) -> None:
        self.rewards, self.cache = rewards, cache
        self.stats = PoolStats()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("this pool is at work already")
        self._loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="rewards")
        ready: Future[None] = Future()
        with ExitStack() as on_failure:
            on_failure.callback(self._close)
            self._running = self._executor.submit(self._run, self._loop, ready)
            wait((ready, self._running), return_when=FIRST_COMPLETED)
            if self._running.done():
                self._running.result()  # raises what went wrong
            on_failure.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._close()
        if kind is None:
            self._running.result()  # raises what went wrong while the models were closed

    def submit(self, iteration: int, key: str, sample: EditSample, edit: Image.Image, seed: int) -> Future[Score]:
        """The score of `edit`, some time: from the cache under `key`, or from the models.

        `result()` raises what scoring raised; a model call that failed is a missing score, not an exception.
        """
        if self._loop is None:
            raise RuntimeError("a reward pool takes edits inside its `with` block only")
        known = self.cache.get(key) if self.cache else None
        if known is not None:
            self.stats.cached += 1
            done: Future[Score] = Future()
            done.set_result(known)
            return done
        self.stats.asked += 1
        return asyncio.run_coroutine_threadsafe(self._score(iteration, key, sample, edit, seed), self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """What another coroutine over the same models returns, some time: their connections belong to this loop."""
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("a reward pool runs coroutines inside its `with` block only")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def keep_for(self, iteration: int | None) -> None:
        """From now on replies are kept as long as those of this iteration's rollout; None: for good."""
        if self.rewards.journal is not None:
            self.rewards.journal.iteration = iteration

    def prune(self, iterations_from: int) -> None:
        """Forget the scores and replies of rollouts before `iterations_from`."""
        for kept in (self.cache, self.rewards.journal):
            if kept is not None:
                kept.prune(iterations_from)

    async def _score(self, iteration: int, key: str, sample: EditSample, edit: Image.Image, seed: int) -> Score:
        score = await self.rewards.score(sample, edit, seed)
        self.stats.missing += score.missing is not None
        if self.cache is not None:
            self.cache.put(key, score, iteration)
        return score

    def _close(self) -> None:
        """Stop the loop and wait for its thread."""
        loop, self._loop = self._loop, None
        if loop is not None:
            with suppress(RuntimeError):  # the loop is closed already: the models could not be opened
                loop.call_soon_threadsafe(self._stop.set)
            self._executor.shutdown()
        for kept in (self.cache, self.rewards.journal):
            if kept is not None:
                kept.close()

    def _run(self, loop: asyncio.AbstractEventLoop, ready: "Future[None]") -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._main(ready))

    async def _main(self, ready: "Future[None]") -> None:
        """Live until stopped; end what is being scored before the models are closed under it."""
        serving = asyncio.create_task(self._serve(ready))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        others = asyncio.all_tasks() - {asyncio.current_task(), serving}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if not serving.done():
            serving.cancel()
        await asyncio.wait((serving,))
        if not serving.cancelled():
            serving.result()

    async def _serve(self, ready: "Future[None]") -> None:
        async with AsyncExitStack() as stack:
            for model in self.rewards.models():
                await stack.enter_async_context(opened(model))
            ready.set_result(None)
            await asyncio.Event().wait()  # until cancelled
