"""`python -m etchr.sft experiment=NAME ...`, on its own or under `accelerate launch -m`: Stage I."""

from collections.abc import Sequence

from etchr.sft.settings import SftConfig
from etchr.training.command import train_command


def main(argv: Sequence[str] | None = None) -> None:
    """Train; exits with one sentence when something is wrong."""
    train_command(
        SftConfig,
        "etchr.sft.trainer",
        config_name="sft",
        argv=argv,
        prog="python -m etchr.sft",
        description="Stage I, Reasoning Imitation: train the editor's LoRA on (image, question, edit). Several GPUs: "
        "accelerate launch --config_file configs/accelerate/ddp.yaml -m etchr.sft experiment=NAME. Killed and started "
        "again, the same command goes on where it stopped.",
    )


if __name__ == "__main__":
    main()
