"""Which samples the filter keeps, what it writes and what it says about it: all a function of data and verdicts."""

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.filter_rl import FilterConfig
from data_prep.filter_rl.asking import BuildModel, ask_all, sides
from data_prep.filter_rl.verdicts import VIEWS, Candidate, Verdicts, asked_alike, verdict_keys
from etchr.families import TaskFamily
from etchr.images import ImageHeader, peek_image
from etchr.mllm.answers import ground_truth
from etchr.mllm.settings import build_model, model_fingerprint
from etchr.pages import short
from etchr.run_folder import RunFolder, whole, write_atomically
from etchr.sample import EditSample, features, find_files, from_row, read_parquet
from etchr.seeds import hash_seed

ROWS_AT_ONCE = 64  # of what is kept, in memory
UNKNOWN = "unknown"  # family of a row that names none
CELLS = (
    "raw_wrong_edit_right",  # what Eq. 1 keeps
    "raw_wrong_edit_wrong",
    "raw_right_edit_right",
    "raw_right_edit_wrong",
)
COUNTS = ("samples", "refused", "failed", "not_asked", *CELLS, "over_quota", "kept")

Report = dict[str, Any]


def filter_samples(config: FilterConfig, build_model: BuildModel = build_model) -> Report:
    """Ask what is not known yet, write what is kept and the reports into `config.out`; what `report.json` holds.

    Raises `ValueError` for wrong options or data, and with the reason if M does not reply; `OSError` if the disk is
    full. The verdicts given until then are kept.
    """
    files = find_files(config.paths, config.split)
    folder, target = RunFolder(config.out), Path(config.out) / f"{config.split}.parquet"
    _check_out(config, files, folder, target)
    fingerprint = {"command": "data_prep.filter_rl", "split": config.split}
    folder.check(fingerprint)
    with folder.locked():
        folder.claim(fingerprint)
        pool = read_pool(files, config)
        verdicts = Verdicts(folder.path)
        try:
            candidates = sorted(pool.candidates, key=lambda each: each.place)
            ask_all(candidates, pool.table, verdicts, config, build_model)
        finally:
            verdicts.close()
        return _finish(pool, verdicts, config, folder.path, target)


def _check_out(config: FilterConfig, files: list[Path], folder: RunFolder, target: Path) -> None:
    """`ValueError` if what comes out would lie among what is read, or over data of another origin."""
    home = target.resolve().parent
    if target.resolve() in {file.resolve() for file in files} or {home, home.parent} & {
        Path(path).resolve() for path in config.paths
    }:
        raise ValueError(
            f"out={config.out} lies in the data of paths=[{', '.join(config.paths)}], where the next run would read "
            "what this one keeps; choose another out=FOLDER"
        )
    if target.exists() and not folder.exists():
        raise ValueError(f"{target} is no work of this filter and would be written over; choose another out=FOLDER")


# ----------------------------------------------------------------------------------------------------------- pool


@dataclass
class Pool:
    """The samples to choose from."""

    table: Any  # datasets.Dataset, pictures still encoded
    candidates: list[Candidate] = field(default_factory=list)  # in the order of the rows
    refused: list[dict[str, str]] = field(default_factory=list)  # id, family, reason: nothing can be asked about them


def read_pool(files: Sequence[Path], config: FilterConfig) -> Pool:
    """Every row looked at once, headers of its pictures only; `ValueError` if none can be asked about."""
    import datasets
    from tqdm import tqdm

    alike = asked_alike(config)
    pool = Pool(datasets.concatenate_datasets([read_parquet(file).table for file in files]))
    found: dict[str, tuple[int, TaskFamily, dict[str, str]]] = {}
    for number in tqdm(range(len(pool.table)), "check samples", unit="sample", leave=False):
        row: dict[str, Any] = {"id": f"row {number}", "family": UNKNOWN}  # of all, from 0; until it can be read
        try:
            row = pool.table[number]  # `ValueError` if a text in it is no UTF-8
            sample = from_row(row, _header)
            if sample.id in found:
                raise ValueError("its id occurs before")
            found[sample.id] = number, sample.family, _keys(sample, row, alike, config)
        except ValueError as error:
            family = row["family"] if row["family"] in set(TaskFamily) else UNKNOWN
            reason = str(error).removeprefix(f"bad row {row['id']!r}: ").removeprefix(f"sample {row['id']!r}: ")
            pool.refused.append({"id": str(row["id"]), "family": str(family), "reason": short(reason)})
    if not found:
        reason = pool.refused[0]["reason"]
        raise ValueError(f"none of the {len(pool.table)} samples can be asked about; why the first cannot: {reason}")
    order = sorted(found, key=lambda name: (hash_seed(config.order_seed, name), name))
    places = {name: place for place, name in enumerate(order)}
    pool.candidates = [Candidate(row, name, kind, places[name], keys) for name, (row, kind, keys) in found.items()]
    return pool


def _keys(sample: EditSample, row: dict[str, Any], alike: dict[str, Any], config: FilterConfig) -> dict[str, str]:
    if sample.edit_image is None:
        raise ValueError("it has no edit_image")
    ground_truth(sample)
    return verdict_keys(sample, {"raw": row["image"]["bytes"], "edit": row["edit_image"]["bytes"]}, alike, config)


def _header(data: bytes) -> ImageHeader:
    return peek_image(io.BytesIO(data))


# --------------------------------------------------------------------------------------------------------- choice


def choose(pool: Pool, verdicts: Verdicts, config: FilterConfig) -> tuple[list[int], Report, list[dict[str, str]]]:
    """The rows that are kept, ascending; the report; and which samples were refused or failed, and why."""
    rows: list[int] = []
    families: dict[str, Counter[str]] = {str(family): Counter() for family in (*TaskFamily, UNKNOWN)}
    left_out = [{"why": "refused", **entry} for entry in pool.refused]
    for entry in pool.refused:
        families[entry["family"]].update(samples=1, refused=1)
    for candidate in sorted(pool.candidates, key=lambda each: each.place):
        counts = families[candidate.family]
        counts["samples"] += 1
        is_full = config.quota is not None and counts["kept"] >= config.quota
        if is_full and config.stop_at_quota:
            counts["not_asked"] += 1  # or in vain, where it was under way or known: the counts do not depend on that
            continue
        pair = verdicts.pair(candidate)
        if pair is None:
            why, reason = _missing(candidate, verdicts)
            counts[why] += 1
            left_out.append({"why": why, "id": candidate.id, "family": str(candidate.family), "reason": reason})
            continue
        right = sides(pair, config)
        counts[f"raw_{'right' if right[0] else 'wrong'}_edit_{'right' if right[1] else 'wrong'}"] += 1
        for view, verdict in zip(VIEWS, pair, strict=True):
            counts[f"{view}_right"] += verdict.right
            counts[f"{view}_unreadable"] += verdict.answers.count(None)
        if right == (False, True):
            counts["over_quota" if is_full else "kept"] += 1
            rows += [] if is_full else [candidate.row]
    return sorted(rows), _report(families, left_out, config), left_out


def _missing(candidate: Candidate, verdicts: Verdicts) -> tuple[str, str]:
    """Why a sample has no pair of verdicts: refused or failed, and the reason."""
    raw, edit = (verdicts.lost(candidate.keys[view]) for view in VIEWS)
    lost = edit if raw is None or (edit is not None and edit.why == "refused") else raw
    assert lost is not None
    return lost.why, lost.reason


# --------------------------------------------------------------------------------------------------------- output


def _finish(pool: Pool, verdicts: Verdicts, config: FilterConfig, folder: Path, target: Path) -> Report:
    rows, report, left_out = choose(pool, verdicts, config)
    if rows:
        write_rows(pool.table, rows, target)
    else:
        target.unlink(missing_ok=True)  # of other thresholds; an empty file is no data set
    write_atomically(folder / "left_out.jsonl", b"".join(json.dumps(entry).encode() + b"\n" for entry in left_out))
    write_atomically(folder / "report.json", json.dumps(report, indent=2).encode() + b"\n")
    write_atomically(folder / "report.md", markdown(report).encode("utf-8", "replace"))
    return report


def write_rows(table: Any, rows: Sequence[int], path: Path) -> None:
    """Copy rows of a data set into one Parquet file, which appears whole or not at all; no picture is decoded."""
    import pyarrow.parquet as pq

    schema = features().arrow_schema
    with whole(path) as part, pq.ParquetWriter(part, schema) as writer:
        for batch in table.select(rows).with_format("arrow").iter(ROWS_AT_ONCE):
            writer.write_table(batch.cast(schema))


def _report(families: dict[str, Counter[str]], left_out: list[dict[str, str]], config: FilterConfig) -> Report:
    seen = {name: counts for name, counts in families.items() if counts}
    total = sum(seen.values(), Counter())
    names = ("split", "max_raw", "min_edit", "quota", "order_seed", "stop_at_quota")
    asked = ("num_decodings", "temperature", "max_tokens", "seed", "grade")
    return {
        "options": {name: getattr(config, name) for name in (*names, *asked)},
        "reasoner": model_fingerprint(config.reasoner),
        "families": {name: _shares(counts, config) for name, counts in seen.items()},
        "total": _shares(total, config),
        "reasons": {
            why: dict(Counter(entry["reason"] for entry in left_out if entry["why"] == why).most_common(5))
            for why in ("refused", "failed")
        },
    }


def _shares(counts: Counter[str], config: FilterConfig) -> dict[str, int | float | None]:
    """The counts of a family, the percentage of right answers from each side, and the replies without an answer."""
    replies = config.num_decodings * sum(counts[cell] for cell in CELLS)
    shares = {f"{view}_accuracy": 100 * counts[f"{view}_right"] / replies if replies else None for view in VIEWS}
    unreadable = {f"{view}_unreadable": counts[f"{view}_unreadable"] for view in VIEWS}
    return {name: counts[name] for name in COUNTS} | shares | unreadable


def markdown(report: Report) -> str:
    """The report as Markdown."""
    options, total = report["options"], report["total"]
    reasoner = report["reasoner"]["model"] or report["reasoner"]["kind"]
    lines = [
        f"# The RL filter keeps {total['kept']:,} of {total['samples']:,} samples",
        "",
        f"M = {reasoner}, k = {options['num_decodings']} at temperature {options['temperature']:g}. Raw: the picture "
        f"alone, right above a share of {options['max_raw']:g}. Edit: picture and ground-truth edit, right from a "
        f"share of {options['min_edit']:g}. Quota of each family: {options['quota'] or 'none'}.",
        "",
        "| family | samples | refused | failed calls | not asked | raw wrong, edit right | raw wrong, edit wrong | "
        "raw right, edit right | raw right, edit wrong | over quota | kept | raw % | edit % |",
        "|" + " --- |" + " ---: |" * 12,
    ]
    for name, row in (*report["families"].items(), ("all", total)):
        shares = ["-" if row[f"{view}_accuracy"] is None else f"{row[f'{view}_accuracy']:.1f}" for view in VIEWS]
        lines.append(f"| {' | '.join([name, *(f'{row[count]:,}' for count in COUNTS), *shares])} |")
    lines += [
        "",
        f"Replies without a readable answer, which count as wrong: {total['raw_unreadable']:,} raw, "
        f"{total['edit_unreadable']:,} with the edit. Refused and failed samples: left_out.jsonl.",
    ]
    for why, reasons in report["reasons"].items():
        lines += ["", f"{why.capitalize()}, the most common reasons:"] if reasons else []
        lines += [f"- {count:,} x {reason}" for reason, count in reasons.items()]
    return "\n".join(lines) + "\n"
