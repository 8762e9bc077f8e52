"""What the training commands of both stages share."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from etchr.config import run_command


def train_command(
    schema: type, trainer: str, *, config_name: str, argv: Sequence[str] | None, prog: str, description: str
) -> None:
    """Parse a training command and call `train` of the module `trainer`, for every run of a multirun in turn."""

    def run(config: Any) -> None:
        with one_sentence():
            train: Callable[[Any], Any] = import_module(trainer).train
            train(config)

    words = sys.argv[1:] if argv is None else argv
    run_command(run, schema, config_name=config_name, argv=words, prog=prog, description=description)
    if runtime := sys.modules.get("etchr.runtime"):  # not after --cfg, or where a launcher did the work elsewhere
        runtime.leave()


@contextmanager
def one_sentence() -> Iterator[None]:
    """Run a training inside: its progress is logged, and what goes wrong ends the program with one sentence."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("etchr").setLevel(logging.INFO)
    try:
        yield
    except ValueError as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        raise SystemExit(
            f"cannot go on: {error}. Put that right, make room for example, and start the same command again"
        ) from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on from the last checkpoint") from None
