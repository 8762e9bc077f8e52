"""`python -m data_prep.quality paths=[FOLDER] out=FOLDER`: report.json, report.md and report.html of a data set.

The sets that are compared are the splits of the data set and `against:PATH` for each path that `against` names, so that
an evaluation set in a folder called test is not taken for the data set's own test split.

Files are measured one by one, or by several processes, and merged in their order, so the reports depend on the data and
the options alone.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval

from data_prep.quality.measure import (
    LEARNT,
    SPLITS,
    Measure,
    MeasureJob,
    count_rows,
    find_files,
    measure_file,
    read_at,
)
from data_prep.quality.page import markdown, page
from data_prep.quality.phash import KEYS, MAX_DISTANCE, Sharing
from data_prep.workers import num_workers, workers
from etchr.checks import Natural, check
from etchr.config import parse_command
from etchr.pages import short
from etchr.run_folder import write_atomically
from etchr.sample import EditSample

FREE_OPTIONS = ("out", "strict", "processes")  # they do not decide what is measured
MAX_SETS = 50  # in `against`; the sets of a row are bits of a number
MAX_PAIRS = 6  # pairs of rows that are shown for each set
MAX_TRIES = 100  # rows looked at for them
Pair = tuple[str, str, int, int]  # names of the sets of two rows, and the rows

HashBits = Annotated[int, Interval(ge=0, le=MAX_DISTANCE)]
Level = Annotated[int, Interval(ge=0, le=255)]


@dataclass
class QualityConfig:
    """Options of `python -m data_prep.quality`."""

    paths: list[str] = field(default_factory=lambda: ["outputs/data"])  # Parquet files, or folders: all *.parquet below
    against: list[str] = field(default_factory=list)  # evaluation sets, likewise, beside the val and test rows of paths
    out: str = "outputs/quality"  # folder of the reports
    distance: HashBits = 6  # bits of 64 in which the hashes of similar pictures may differ, 0 to 10
    tolerance: Level = 16  # of 255, by which the 8x8 reductions of similar pictures may differ; 255: the hash alone
    sheet: Natural = 8  # rows of each family on the contact sheet
    seed: int = 0  # of the contact sheet
    strict: bool = False  # exit with an error if training shares pictures and questions with evaluation, or may do so
    processes: Natural = 0  # that read files at the same time; 0: as many as there are CPUs

    def __post_init__(self) -> None:
        check(self)
        if not self.paths:
            raise ValueError("paths=[] is empty; name the Parquet files or folders of a data set")
        if len(self.against) > MAX_SETS:
            raise ValueError(f"against names {len(self.against)} sets; {MAX_SETS} are compared at most")
        if len({Path(path).resolve() for path in self.against}) < len(self.against):
            raise ValueError(f"against={self.against} names a set twice")

    @property
    def foreign(self) -> list[str]:
        """The names of the sets of `against`, none of which is that of a split."""
        return [f"against:{path}" for path in self.against]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure a data set and write the reports."""
    config = parse_command(
        QualityConfig,
        config_name=None,
        argv=sys.argv[1:] if argv is None else argv,
        prog="python -m data_prep.quality",
        description="Report on the quality of a data set: counts, sizes, lengths, edits, damaged rows, repeated "
        "pictures, and pictures with questions that training shares with evaluation sets. The split of a row is what "
        "its meta says, or else what its file's name begins with, or else what its folder is called; without one, it "
        "is compared as train. Of a folder, every *.parquet below is measured, but for hidden folders: keep other "
        "Parquet files, such as caches, elsewhere. strict=true fails if training overlaps an evaluation set, if a file "
        "or row that may be of one could not be read, and if not all similar pictures could be compared.",
    )
    try:
        report = run(config)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; nothing was written") from None
    print(f"{Path(config.out) / 'report.html'}: {report['rows']:,} rows")
    for line in report["warnings"]:
        print(f"WARNING: {line}", file=sys.stderr)
    if config.strict and (reasons := _failures(report)):
        raise SystemExit(f"strict=true: {'; '.join(reasons)}")


def run(config: QualityConfig) -> dict[str, Any]:
    """Measure, write the three reports and return what report.json holds."""
    jobs, sets, measures = _jobs(config)
    keys = np.concatenate([np.empty(0, KEYS), *_measured(config, jobs, sets, measures)])
    own = measures[None]
    if not own.rows:
        reasons = [f"{entry['file']}: {entry['reason']}" for entry in own.bad_files] + list(own.reasons)
        reason = (*reasons, "the files are empty, or against names them all")[0]
        raise ValueError(f"no readable row in paths={config.paths} ({reason})")
    sharing = Sharing(keys, config.distance, config.tolerance)
    rows = {name: np.flatnonzero(keys["set"] == number) for number, name in enumerate((*SPLITS, *config.foreign))}
    report, pairs = _report(config, measures, sharing, rows)
    spots = [(int(keys["file"][row]), int(keys["row"][row])) for _, _, *both in pairs for row in both]
    sheet = _in_turn(own.sheet)
    samples = _samples(jobs, [*sheet, *spots])
    told = [_told(jobs, spot, samples[spot]) for spot in spots]
    report["examples"] = [
        {"rows_of": a, "shared_with": b, "bits": int(np.bitwise_count(keys["hash"][i] ^ keys["hash"][j])), "rows": both}
        for (a, b, i, j), *both in zip(pairs, told[::2], told[1::2], strict=True)
    ]
    html = page(report, [samples[spot] for spot in sheet], [samples[spot] for spot in spots])
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "report.json", json.dumps(report, indent=2).encode() + b"\n")
    write_atomically(out / "report.md", markdown(report).encode())
    write_atomically(out / "report.html", html.encode())
    return report


# -------------------------------------------------------------------------------------------------------- reading


def _jobs(config: QualityConfig) -> tuple[list[MeasureJob], list[str | None], dict[str | None, Measure]]:
    """The files to measure, the evaluation set that each belongs to (None: to the data set), and an empty measure of
    each set, with the files that cannot be read.

    A file that `against` names too counts there alone.
    """
    measures: dict[str | None, Measure] = {name: Measure() for name in (None, *config.foreign)}
    owners: dict[Path, tuple[Path, str | None]] = {}
    foreign = zip(config.foreign, ([path] for path in config.against), strict=True)
    for name, paths in (*foreign, (None, config.paths)):
        for file in find_files(paths):
            owners.setdefault(file.resolve(), (file, name))
    jobs: list[MeasureJob] = []
    sets: list[str | None] = []
    for file, name in owners.values():
        try:
            num_rows = count_rows(file)
        except ValueError as error:
            measures[name].lose(error, file)
            continue
        jobs.append(MeasureJob(file, len(jobs), num_rows, config.seed, config.sheet if name is None else 0))
        sets.append(name)
    return jobs, sets, measures


def _measured(
    config: QualityConfig, jobs: list[MeasureJob], sets: list[str | None], measures: dict[str | None, Measure]
) -> Iterator[np.ndarray]:
    """Measure the files and merge what was counted into `measures`; the keys of each file."""
    from tqdm import tqdm

    with tqdm(total=sum(job.num_rows for job in jobs), unit="row", desc="quality") as bar:
        for name, (measure, keys) in zip(sets, _results(config, jobs, bar.update), strict=True):
            measures[name].merge(measure, config.sheet)
            if name is not None:
                keys["set"] = len(SPLITS) + config.foreign.index(name)
            yield keys


def _results(
    config: QualityConfig, jobs: list[MeasureJob], tick: Callable[[int], object]
) -> Iterator[tuple[Measure, np.ndarray]]:
    """What each file gives, in the files' order."""
    processes = num_workers(config.processes, len(jobs))
    if processes <= 1:
        for job in jobs:
            yield measure_file(job, tick)
        return
    with workers(processes) as pool:
        for job, result in zip(jobs, pool.map(measure_file, jobs), strict=True):
            tick(job.num_rows)
            yield result


def _samples(jobs: list[MeasureJob], spots: Sequence[tuple[int, int]]) -> dict[tuple[int, int], EditSample]:
    """The samples at these (file, row), read again."""
    wanted: dict[int, list[int]] = {}
    for file, row in spots:
        wanted.setdefault(file, []).append(row)
    return {
        (file, row): sample for file, rows in wanted.items() for row, sample in read_at(jobs[file].path, rows).items()
    }


def _in_turn(lots: dict[str, list[tuple[int, int, int]]]) -> list[tuple[int, int]]:
    """The rows drawn for the contact sheet, one of each family in turn, so that a full page leaves out none."""
    drawn = [lots[family] for family in sorted(lots)]
    return [lot[index][1:] for index in range(max(map(len, drawn), default=0)) for lot in drawn if index < len(lot)]


def _told(jobs: list[MeasureJob], spot: tuple[int, int], sample: EditSample) -> dict[str, Any]:
    file = short(jobs[spot[0]].path.as_posix())
    return {"file": file, "row": spot[1], "id": short(sample.id), "question": short(sample.question)}


# ------------------------------------------------------------------------------------------------------ comparing


def _report(
    config: QualityConfig, measures: dict[str | None, Measure], sharing: Sharing, rows: dict[str, np.ndarray]
) -> tuple[dict[str, Any], list[Pair]]:
    """What report.json holds, but for the examples; the pairs of rows that are to be its examples."""
    keys, own = sharing.keys, measures[None].as_json()
    options = {name: value for name, value in asdict(config).items() if name not in FREE_OPTIONS}
    report: dict[str, Any] = {"options": options, "warnings": [], "overlaps": False, **own}
    report["splits"] = {name: len(rows[name]) for name in SPLITS}
    report["repeated_ids"] = _repeated(keys[keys["set"] < len(SPLITS)])
    report["evaluation_sets"] = {
        name: {"rows": measures[name].rows, "bad_rows": measures[name].bad_rows, "bad_files": measures[name].bad_files}
        for name in config.foreign
    }
    others = [measures[name] for name in config.foreign]
    report["unread_evaluation"] = {
        "files": measures[None].unread_files + sum(len(other.bad_files) for other in others),
        "rows": measures[None].unread_rows + sum(other.bad_rows for other in others),
    }
    pairs = _compare(report, sharing, rows)
    report["overlaps"] = any(part["in_train"]["similar_picture_and_question"] for part in report["overlap"])
    report["comparison_complete"] = sharing.complete
    report["warnings"] = _warnings(report)
    return report, pairs


def _compare(report: dict[str, Any], sharing: Sharing, rows: dict[str, np.ndarray]) -> list[Pair]:
    """Fill in what the sets share; pairs of rows that show it."""
    numbers = {name: number for number, name in enumerate(rows)}
    pairs: list[Pair] = []

    def shared(a: str, *b: str) -> dict[str, int]:
        return {what: int(hit.sum()) for what, hit in sharing.partners(rows[a], [numbers[name] for name in b]).items()}

    there = [name for name in SPLITS if len(rows[name])]
    report["within"] = {}
    for name in there:
        num_pictures = len(np.unique(sharing.picture[rows[name]]))
        report["within"][name] = {"rows": len(rows[name]), "pictures": num_pictures, **shared(name, name)}
        pairs += [(name, name, *pair) for pair in _examples(sharing, rows[name], [numbers[name]])]
    report["across"] = [
        {"rows_of": a, "rows": len(rows[a]), "shared_with": b, **shared(a, b)} for a in there for b in there if a != b
    ]
    report["overlap"] = []
    learnt = [numbers[name] for name in LEARNT]
    for name in [name for name in rows if name not in LEARNT and (name in there or name not in SPLITS)]:
        parts = [shared(part, name) for part in LEARNT]
        of_train = {"rows": sum(len(rows[part]) for part in LEARNT)}
        of_train |= {what: sum(part[what] for part in parts) for what in parts[0]}
        entry = {"set": name, "rows": len(rows[name]), "in_train": shared(name, *LEARNT), "rows_of_train": of_train}
        report["overlap"].append(entry)
        pairs += [(name, "train", *pair) for pair in _examples(sharing, rows[name], learnt)]
    return pairs


def _examples(sharing: Sharing, rows: np.ndarray, sets: Sequence[int]) -> list[tuple[int, int]]:
    """The first rows with a partner of the same question, each with its nearest."""
    flagged = rows[sharing.partners(rows, sets)["similar_picture_and_question"]][:MAX_TRIES]
    found = [(int(row), other) for row in flagged if (other := sharing.partner(int(row), sets)) is not None]
    return found[:MAX_PAIRS]


def _repeated(keys: np.ndarray) -> int:
    """Rows whose id an earlier row of their split has."""
    return len(keys) - len(np.unique(keys[["set", "id"]]))


def _warnings(report: dict[str, Any]) -> list[str]:
    """What a person should look at, the gravest first."""
    lines = []
    for part in report["overlap"]:
        same, similar = (part["in_train"][f"{how}_picture_and_question"] for how in ("same", "similar"))
        if similar:
            lines.append(
                f"train overlaps {part['set']}: {similar:,} of its {part['rows']:,} rows have a picture of train with "
                f"the same question ({same:,} the same picture, {similar - same:,} a similar one)"
            )
    for part in report["overlap"]:
        others = part["in_train"]["same_picture"] - part["in_train"]["same_picture_and_question"]
        if others:
            lines.append(f"{others:,} rows of {part['set']} have a picture of train, with another question")
    bad_files = report["bad_files"] + [f for part in report["evaluation_sets"].values() for f in part["bad_files"]]
    bad_rows = report["bad_rows"] + sum(part["bad_rows"] for part in report["evaluation_sets"].values())
    told = {
        "files could not be read": len(bad_files),
        "rows are bad and in no other figure": bad_rows,
        "rows name another split in their meta than their file or its folder; the meta counts here": report[
            "disagreeing_splits"
        ],
        "rows have an id that an earlier row of their split has": report["repeated_ids"],
        "rows name no split, nor do their files or folders; they are compared as train": report["splits"]["unnamed"],
    }
    lines += [f"{count:,} {what}" for what, count in told.items() if count]
    if not report["comparison_complete"]:
        lines.append("too many pictures look alike to compare all of them: the figures of similar pictures are too low")
    return lines


def _failures(report: dict[str, Any]) -> list[str]:
    """Why it is not sure that training shares nothing with the evaluation sets."""
    unread, sets = report["unread_evaluation"], report["evaluation_sets"]
    told = {
        "training overlaps an evaluation set": report["overlaps"],
        f"{unread['files']:,} files that may be of an evaluation set could not be read": unread["files"],
        f"{unread['rows']:,} rows that may be of an evaluation set could not be read": unread["rows"],
        **{f"{name} holds no row of its own that could be read": not part["rows"] for name, part in sets.items()},
        "too many pictures look alike to compare all of them": not report["comparison_complete"],
    }
    return [what for what, holds in told.items() if holds]


if __name__ == "__main__":
    main()
