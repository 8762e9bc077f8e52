"""`python -m evaluation experiment=NAME ...` runs a comparison and writes its report into the run folder.

`python -m evaluation report experiment=NAME ...` makes the report again from the records, without any model.
"""

import logging
import sys
from collections.abc import Sequence

from etchr.config import parse_command
from evaluation import factory
from evaluation.records import RunFolder
from evaluation.report import markdown, write_reports
from evaluation.run import evaluate
from evaluation.settings import EvalConfig


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate and report; exits with one sentence when something is wrong."""
    args = list(sys.argv[1:] if argv is None else argv)
    only_report = bool(args) and args[0] == "report"
    config = parse_command(
        EvalConfig,
        config_name="eval",
        argv=args[1:] if only_report else args,
        prog="python -m evaluation" + (" report" if only_report else ""),
        description="Compare systems on tasks. Killed and started again, the same command goes on where it stopped.",
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        folder = RunFolder(config.out) if only_report else evaluate(config)
        report = write_reports(folder, config, factory.read_data(config))
    except* ValueError as group:
        raise SystemExit(_first(group)) from None
    except* OSError as group:
        raise SystemExit(
            f"cannot write to {config.out}: {_first(group)}. What was recorded before is kept; "
            "make room and start the same command again"
        ) from None
    except* KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on where this one stopped") from None
    print(markdown(report))
    print(f"report: {folder.path / 'report.html'}")


def _first(group: BaseExceptionGroup) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


if __name__ == "__main__":
    main()
