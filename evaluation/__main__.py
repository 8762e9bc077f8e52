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
        folder = RunFolder(config.out)
        if not only_report:
            evaluate(config)
        elif not folder.exists():
            raise ValueError(f"no run at {folder.path}; start one with the same command without the word report")
        report = write_reports(folder, config, factory.read_data(config))
    except ValueError as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        raise SystemExit(
            f"cannot go on: {error}. What is recorded in {config.out} is kept; "
            "put that right, make room for example, and start the same command again"
        ) from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on where this one stopped") from None
    print(markdown(report))
    print(f"report: {folder.path / 'report.html'}")


if __name__ == "__main__":
    main()
