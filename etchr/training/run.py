"""The folder of a training of either stage: locked, checked against the options, and where it goes on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from etchr.editor import lora_files
from etchr.hub.cards import CARD_FILE, is_non_commercial
from etchr.run_folder import RunFolder, write_atomically
from etchr.runtime import Runtime
from etchr.training.checkpoint import Checkpoints
from etchr.training.inputs import Inputs
from etchr.training.state import TrainState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A training and its folder."""

    config: Any
    runtime: Runtime
    inputs: Inputs
    folder: Path

    @property
    def checkpoints(self) -> Checkpoints:
        """What it goes on from."""
        return Checkpoints(self.folder / "checkpoints", self.config.keep_checkpoints)

    @property
    def adapter(self) -> Path:
        """The folder of the finished adapter."""
        return self.folder / "adapter"

    def is_finished(self) -> bool:
        """Whether nothing is left to do; an adapter whose weights are gone or cut is made again."""
        if self.inputs.total not in self.checkpoints.steps() or not (self.adapter / CARD_FILE).is_file():
            return False
        try:
            lora_files.read(self.adapter)
        except ValueError as error:
            log.warning("%s; it is written again", error)
            return False
        log.info("%s is finished", self.adapter)
        return True

    def begin(self, state: TrainState) -> int:
        """Write down the options and put the last checkpoint into `state`; the steps that are done.

        Only now, once all is built: a start that failed should not bind the next one.
        """
        if self.runtime.is_main:
            RunFolder(self.folder).claim(self.inputs.fingerprint)
            options = yaml.safe_dump(asdict(self.config), sort_keys=False)
            write_atomically(self.folder / "config.yaml", options.encode())
        start = max(self.checkpoints.steps(), default=0)
        if start:
            self.checkpoints.restore(start, state)
            log.info("going on after %d of %d", start, self.inputs.total)
        return start

    def save(self, done: int, state: TrainState) -> None:
        """A checkpoint after `done` steps."""
        self.checkpoints.save(done, state, self.runtime.is_main)


@contextmanager
def open_run(config: Any, runtime: Runtime, inputs: Inputs) -> Iterator[Run]:
    """The run in `config.out`, inside the main process's lock; says so if its base is not for commercial use.

    Raises `ValueError` if it was started with options that decide otherwise, or is being worked on.
    """
    folder = RunFolder(config.out)
    with folder.locked() if runtime.is_main else nullcontext():
        if runtime.is_main:
            folder.check(inputs.fingerprint)
            if is_non_commercial(inputs.base):
                log.info("%s is under FLUX's non-commercial licence, and so is what is trained from it", inputs.base)
        runtime.wait()
        yield Run(config, runtime, inputs, folder.path)
        runtime.close()
