"""Processes that work side by side: none outlives the command that started it, and a killed one is said."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any


def num_workers(processes: int, num_jobs: int) -> int:
    """How many processes an option `processes` means for some jobs: 0 is as many as there are CPUs."""
    return min(processes or os.cpu_count() or 1, num_jobs)


@contextmanager
def workers(count: int, start: Callable[..., None] | None = None, *args: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, each of which first calls `start(*args)`.

    What goes wrong inside the block, Ctrl-C too, lets no further job begin. `ValueError` if a process was killed.
    """
    with ProcessPoolExecutor(count, get_context("spawn"), _begin, (start, args)) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise ValueError(
                "a worker was killed, probably for want of memory; start again with fewer processes=, whole files stay"
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin(start: Callable[..., None] | None, args: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*args)


def _end_with_parent() -> None:
    """A parent that was killed tells nobody; without this its workers would wait for jobs for ever."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
