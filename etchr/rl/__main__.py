"""`python -m etchr.rl experiment=NAME ...`, on its own or under `accelerate launch -m`: Stage II."""

import logging
import sys
from collections.abc import Sequence

from etchr.config import parse_command
from etchr.rl.settings import RlConfig


def main(argv: Sequence[str] | None = None) -> None:
    """Train; exits with one sentence when something is wrong."""
    config = parse_command(
        RlConfig,
        config_name="rl",
        argv=sys.argv[1:] if argv is None else argv,
        prog="python -m etchr.rl",
        description="Stage II, Reasoning Enhancement: Pref-GRPO with guidance and correctness rewards of an "
        "understanding model. Several GPUs: accelerate launch --config_file configs/accelerate/ddp.yaml -m etchr.rl "
        "experiment=NAME. Killed and started again, the same command goes on where it stopped.",
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("etchr").setLevel(logging.INFO)
    from etchr.rl.trainer import TooManyMissing, train

    try:
        train(config)
    except (ValueError, TooManyMissing) as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        raise SystemExit(
            f"cannot go on: {error}. Put that right, make room for example, and start the same command again"
        ) from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on from the last checkpoint") from None


if __name__ == "__main__":
    main()
