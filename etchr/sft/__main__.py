"""`python -m etchr.sft experiment=NAME ...`, on its own or under `accelerate launch -m`: Stage I."""

import logging
import sys
from collections.abc import Sequence

from etchr.config import parse_command
from etchr.sft.settings import SftConfig


def main(argv: Sequence[str] | None = None) -> None:
    """Train; exits with one sentence when something is wrong."""
    config = parse_command(
        SftConfig,
        config_name="sft",
        argv=sys.argv[1:] if argv is None else argv,
        prog="python -m etchr.sft",
        description="Stage I, Reasoning Imitation: train the editor's LoRA on (image, question, edit). Several GPUs: "
        "accelerate launch --config_file configs/accelerate/ddp.yaml -m etchr.sft experiment=NAME. Killed and started "
        "again, the same command goes on where it stopped.",
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("etchr").setLevel(logging.INFO)
    from etchr.sft.trainer import train

    try:
        train(config)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        raise SystemExit(
            f"cannot go on: {error}. Put that right, make room for example, and start the same command again"
        ) from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on from the last checkpoint") from None


if __name__ == "__main__":
    main()
