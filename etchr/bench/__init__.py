"""What the benches of speed and memory share; each table says its command, hardware and date."""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from etchr.run_folder import write_atomically

Result = TypeVar("Result")


def own_process() -> ProcessPoolExecutor:
    """A process for what is measured, so that its peak memory is its own and is given back; use as `with`."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def result_in(process: ProcessPoolExecutor, function: Callable[..., Result], *args: Any) -> Result:
    """`function(*args)` there; `ValueError` if the process was killed."""
    try:
        return process.submit(function, *args).result()
    except BrokenProcessPool:
        raise ValueError("its process was killed, most likely for want of memory") from None


def write_results(out: Path, values: Any, page: str) -> None:
    """`table.md` and `results.json`, whole; written anew after each part, so that a long bench may be stopped."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "results.json", (json.dumps(values, indent=2) + "\n").encode())
    write_atomically(out / "table.md", page.encode())
