"""How a run of either stage starts: its folder, locked and checked against the options."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import yaml

from etchr.editor.card import is_non_commercial
from etchr.run_folder import RunFolder, write_atomically
from etchr.runtime import Runtime

log = logging.getLogger(__name__)


@contextmanager
def run_folder(runtime: Runtime, out: str, base: str, decides: dict[str, Any]) -> Iterator[RunFolder]:
    """The run folder, inside the main process's lock; says so if `base` is not for commercial use.

    Raises `ValueError` if the run in it was started with other options than `decides`, or is being worked on.
    """
    folder = RunFolder(out)
    with folder.locked() if runtime.is_main else nullcontext():
        if runtime.is_main:
            folder.check(decides)
            if is_non_commercial(base):
                log.info("%s is under FLUX's non-commercial licence, and so is what is trained from it", base)
        runtime.wait()
        yield folder


def claim(runtime: Runtime, folder: RunFolder, config: Any, decides: dict[str, Any]) -> None:
    """Write down the options; once all is built, for a start that failed should not bind the next one."""
    if runtime.is_main:
        folder.claim(decides)
        write_atomically(folder.path / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False).encode())
