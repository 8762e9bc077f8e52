"""`python -m data_prep <task|all|source> key=value ...`: procedural or public data in the one Parquet schema.

Procedural tasks are written to `<out>/<task>/<split>.parquet`, see `making.py`; for public sources see
`sources/build.py`.
"""

import sys
from collections.abc import Sequence

from data_prep.making import DataConfig, make_all
from data_prep.sources import SOURCES, find_source
from data_prep.sources.build import build
from etchr.config import parse_command
from etchr.families import TASKS


def main(argv: Sequence[str] | None = None) -> None:
    """Generate the data set of one task, or of all six, or read that of a source."""
    names = "|".join(("all", *TASKS, *SOURCES))
    args = list(sys.argv[1:] if argv is None else argv)
    wanted = args.pop(0) if args and "=" not in args[0] and not args[0].startswith("-") else None
    if wanted in SOURCES:
        return read_source(wanted, args)
    config = parse_command(
        DataConfig,
        config_name=None,
        argv=args,
        prog=f"python -m data_prep <{names}>",
        description="Generate procedural samples with their ground-truth edits. The public sources have options of "
        f"their own: python -m data_prep NAME --help, where NAME is one of {', '.join(SOURCES)}.",
    )
    if wanted not in ("all", *TASKS):
        raise SystemExit(f"name a task to generate: python -m data_prep <{names}>; got {wanted or 'none'}")
    try:
        make_all(TASKS if wanted == "all" else [wanted], config)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; what is whole stays, and the same command makes the rest") from None


def read_source(name: str, args: Sequence[str]) -> None:
    """Build the data set of a public source."""
    schema, kind, about = find_source(name)
    config = parse_command(schema, config_name=None, argv=args, prog=f"python -m data_prep {name}", description=about)
    try:
        families = build(kind, config)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on where it stopped") from None
    if not families and config.num_shards == 1:
        raise SystemExit(f"no item of {name} gave a sample in split={config.split}")


if __name__ == "__main__":
    main()
