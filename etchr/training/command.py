"""What the training commands of both stages share."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


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
