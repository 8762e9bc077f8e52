"""`python -m data_prep <task|all|source> key=value ...`: procedural or public data in the one Parquet schema.

Procedural tasks are written to `<out>/<task>/<split>.parquet`. A file that the same command has already made is kept,
so an interrupted run of several tasks goes on where it stopped; two runs with one seed give identical files. For public
sources see `sources/build.py`.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep import procedural_tasks
from data_prep.sources import SOURCES, find_source
from data_prep.sources.build import build
from data_prep.task import SPLITS, generate
from etchr.config import parse_command
from etchr.families import TASKS
from etchr.sample import write_parquet


@dataclass
class DataConfig:
    """Options of `python -m data_prep`."""

    num_samples: int = 200  # per task
    seed: int = 0  # what is drawn; the splits are disjoint whatever the seed
    split: str = "test"  # train, val or test: decided by the hash of a scene
    kind: str = "question"  # question, or instruction: explicit instructions with arbitrary targets
    undone_share: float = 0.0  # kind=question: share of edits that are the unedited source, as failed edits are
    size: int = 64  # side of the pictures in px, 64 to 1024
    photos: str | None = None  # folder of photographs for the jigsaw; null: painted pictures
    out: str = "outputs/data"  # folder; each task gets its own below it

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"num_samples={self.num_samples} must be at least 1")
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r} must be one of {', '.join(SPLITS)}")
        if self.kind not in ("question", "instruction"):
            raise ValueError(f"kind={self.kind!r} must be question or instruction")
        if not 0 <= self.undone_share < 1:
            raise ValueError(f"undone_share={self.undone_share} must be at least 0 and below 1")
        if not 64 <= self.size <= 1024 or self.size % 16:
            raise ValueError(f"size={self.size} must be a multiple of 16 from 64 to 1024")


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
        tasks = procedural_tasks(Path(config.photos) if config.photos else None)
        for name in TASKS if wanted == "all" else [wanted]:
            make(name, tasks, config)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None


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


def make(name: str, tasks: dict, config: DataConfig) -> Path:
    """Write one task's Parquet file unless the same options have already made it."""
    from tqdm import tqdm

    path = Path(config.out) / name / f"{config.split}.parquet"
    note = path.with_suffix(".json")
    made_by = asdict(config) | {"task": name, "out": None, "code": code_digest()}
    options = json.dumps(made_by, indent=2, sort_keys=True) + "\n"
    if path.is_file() and note.is_file() and note.read_text(encoding="utf-8") == options:
        print(f"{path}: kept")
        return path
    samples = generate(
        tasks[name],
        split=config.split,
        num_samples=config.num_samples,
        seed=config.seed,
        size=config.size,
        kind=config.kind,
        undone_share=config.undone_share,
    )
    count = write_parquet(tqdm(samples, desc=name, total=config.num_samples, unit="sample", leave=False), path)
    note.write_text(options, encoding="utf-8")
    print(f"{path}: {count} samples")
    return path


def code_digest() -> str:
    """A digest of this package's source: data made by other code is made again."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    main()
