"""`python -m etchr.rl experiment=NAME ...`, on its own or under `accelerate launch -m`: Stage II."""

import sys
from collections.abc import Sequence

from etchr.config import parse_command
from etchr.rl.settings import RlConfig
from etchr.training.command import one_sentence


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
    with one_sentence():
        from etchr.rl.trainer import train

        train(config)


if __name__ == "__main__":
    main()
