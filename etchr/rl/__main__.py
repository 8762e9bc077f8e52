"""`python -m etchr.rl experiment=NAME ...`, on its own or under `accelerate launch -m`: Stage II."""

from collections.abc import Sequence

from etchr.rl.settings import RlConfig
from etchr.training.command import train_command


def main(argv: Sequence[str] | None = None) -> None:
    """Train; exits with one sentence when something is wrong."""
    train_command(
        RlConfig,
        "etchr.rl.trainer",
        config_name="rl",
        argv=argv,
        prog="python -m etchr.rl",
        description="Stage II, Reasoning Enhancement: Pref-GRPO with guidance and correctness rewards of an "
        "understanding model. Several GPUs: accelerate launch --config_file configs/accelerate/ddp.yaml -m etchr.rl "
        "experiment=NAME. Killed and started again, the same command goes on where it stopped.",
    )


if __name__ == "__main__":
    main()
