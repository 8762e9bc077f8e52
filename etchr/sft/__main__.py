"""`python -m etchr.sft experiment=NAME ...`, on its own or under `accelerate launch -m`: Stage I."""

import sys
from collections.abc import Sequence

from etchr.config import parse_command
from etchr.sft.settings import SftConfig
from etchr.training.command import one_sentence


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
    with one_sentence():
        from etchr.sft.trainer import train

        train(config)


if __name__ == "__main__":
    main()
