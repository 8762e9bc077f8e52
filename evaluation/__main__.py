"""`python -m evaluation [COMMAND] key=value ...`: benchmarks, comparisons, tables and figures.

Without a command, `python -m evaluation experiment=NAME ...` runs a comparison and writes its report into the run
folder. `python -m evaluation --help` lists the commands; each explains itself with `--help`.
"""

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from etchr.config import run_command
from evaluation.settings import EvalConfig

COMMANDS = {  # name -> the module whose `main(argv)` runs it, and what it does
    "list": ("evaluation.listing", "the benchmarks: where their data are looked for, and how many samples are there"),
    "download": ("evaluation.download", "fetch a benchmark's files from the hub"),
    "report": ("evaluation.report", "make a run's report again from its records, without any model"),
    "table": ("evaluation.table", "the paper's main table, or the ablation, from any set of runs"),
    "claims": ("evaluation.claims", "which of the paper's claims hold in runs of ours, with intervals over seeds"),
    "figure": ("evaluation.figures", "figures 2a and 2b of the paper: data and plot"),
    "power": ("evaluation.power", "the smallest gain that each benchmark can show, beside the paper's gains"),
    "calibrate": ("evaluation.calibrate.__main__", "fit how sure the reader is, on edits of validation questions"),
    "route": ("evaluation.routes", "how well questions are routed to families, on labelled sets"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; exits with one sentence when something is wrong."""
    args = list(sys.argv[1:] if argv is None else argv)
    command = args[0] if args and args[0] in COMMANDS else None
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        if command is not None:
            importlib.import_module(COMMANDS[command][0]).main(args[1:])
        else:
            run(args)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on where this one stopped") from None
    except BrokenPipeError:  # `... | head` has read enough; what is still to be flushed goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(args: Sequence[str]) -> None:
    """Evaluate and report."""
    run_command(
        compare,
        EvalConfig,
        config_name="eval",
        argv=args,
        prog="python -m evaluation",
        description="Compare systems on tasks. Killed and started again, the same command goes on where it stopped.\n"
        + "\n".join(f"python -m evaluation {name}: {about}." for name, (_, about) in COMMANDS.items()),
    )


def compare(config: EvalConfig) -> None:
    """One comparison."""
    from evaluation.report import finish
    from evaluation.run import evaluate
    from evaluation.shards import this_shard

    shard = this_shard()
    try:
        if config.dry_run:
            from evaluation.plan import dry_run

            return print(dry_run(config))
        folder = evaluate(config, shard=shard)
        if shard.is_main:
            finish(folder, config)
    except OSError as error:
        raise SystemExit(
            f"cannot go on: {error}. What is recorded in {config.out} is kept; "
            "put that right, make room for example, and start the same command again"
        ) from None


if __name__ == "__main__":
    main()
