"""`python -m data_prep.filter_rl key=value ...`: the samples that Stage II learns from."""

import logging
import sys
from collections.abc import Sequence

import data_prep.filter_rl
from data_prep.filter_rl import FilterConfig
from data_prep.filter_rl.select import filter_samples, markdown
from etchr.config import parse_command


def main(argv: Sequence[str] | None = None) -> None:
    """Filter and report; exits with one sentence when something is wrong."""
    config = parse_command(
        FilterConfig,
        config_name=None,
        argv=sys.argv[1:] if argv is None else argv,
        prog="python -m data_prep.filter_rl",
        description=data_prep.filter_rl.__doc__ or "",
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        report = filter_samples(config)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        raise SystemExit(
            f"cannot go on: {error}. The verdicts in {config.out} are kept; "
            "put that right, make room for example, and start the same command again"
        ) from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on where this one stopped") from None
    print(markdown(report))
    if not report["total"]["kept"]:
        raise SystemExit(f"no sample is kept, so there is no {config.split}.parquet; the table says where they went")
    print(f"train on them with: python -m etchr.rl data.paths=[{config.out}]")


if __name__ == "__main__":
    main()
