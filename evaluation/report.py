"""Write a run's reports from its records: `report.json`, `report.md` and a self-contained `report.html`.

Needs neither a model nor an editor, so a report can be made again, or of an unfinished run, at any time.
"""

import base64
import html
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from etchr.config import parse_command
from etchr.images import open_image, to_data_uri
from etchr.run_folder import write_atomically
from etchr.sample import EditSample
from evaluation.cost import read_prices
from evaluation.factory import Task, read_tasks
from evaluation.records import Key, Record, RunFolder
from evaluation.settings import EvalConfig
from evaluation.summary import summarise

TEMPLATE = Path(__file__).parent / "report_template.html"
THUMBNAIL = 384  # px: larger pictures are scaled down in the gallery, and are JPEG there
GROUP_COLUMNS = ("mean", "against", "edits", "edits_against")  # of a group of seeds, in `summary.summarise`
MAX_GALLERY = 9 * 2**20  # characters of gallery in the page, whatever `gallery_per_task` asks for


def main(argv: Sequence[str]) -> None:
    """`python -m evaluation report`: the reports of a run again, from its records."""
    config = parse_command(
        EvalConfig,
        config_name="eval",
        argv=argv,
        prog="python -m evaluation report",
        description="Make the report of a run again, or of an unfinished one, from its records. Options as of the run.",
    )
    folder = RunFolder(config.out)
    if not folder.exists():
        raise ValueError(f"no run at {folder.path}; start one with the same command without the word report")
    finish(folder, config)


def finish(folder: RunFolder, config: EvalConfig) -> None:
    """Write the reports and print the table."""
    print(markdown(write_reports(folder, config, read_tasks(config))))
    print(f"report: {folder.path / 'report.html'}")


def write_reports(folder: RunFolder, config: EvalConfig, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Write the three reports into the run folder and return what `report.json` holds."""
    wanted = {key for task in tasks.values() for key in task.samples.ids[: len(task)]}
    records = {
        name: {key: row for key, row in folder.records(name).read().items() if key[0] in wanted}
        for name in config.systems
    }
    report = summarise(records, list(tasks), config.reference, config.systems, read_prices(config.prices))
    files = {
        "report.json": json.dumps(report, indent=2) + "\n",
        "report.md": markdown(report),
        "report.html": page(report, _gallery(tasks, records, folder, 40)),
    }
    for name, text in files.items():
        write_atomically(folder.path / name, text.encode())
    return report


# ------------------------------------------------------------------------------------------------------- markdown


def markdown(report: dict[str, Any]) -> str:
    """The tables as Markdown."""
    tasks = list(next(iter(report["systems"].values()))["tasks"])
    lines = ["# Pass@1 in percent, with 95 % intervals", ""]
    lines += _table(["system", *tasks, "mean", f"against {report['reference']}"], _pass_rows(report, tasks))
    unscored = sum(c["num_unscored"] for s in report["systems"].values() for c in s["tasks"].values())
    counts = {cell["num_samples"] for system in report["systems"].values() for cell in system["tasks"].values()}
    note = f"Samples per cell: {_range(counts)}. Unscored (a call or an edit failed; in no cell): {unscored}."
    lines += ["", note, ""]
    if report["groups"]:
        against = f"against {report['reference']}"
        heads = ["method", "seeds", *tasks, "mean", against, "matching edits", against]
        lines += ["## Means over seeds", "", *_table(heads, _group_rows(report, tasks)), ""]
    edits = {n: s for n, s in report["systems"].items() if any("edit_correct" in c for c in s["tasks"].values())}
    if edits:
        lines += ["## Edits that match the ground truth, in percent", ""]
        rows = [[n, *(_number(s["tasks"][t].get("edit_correct")) for t in tasks)] for n, s in edits.items()]
        lines += [*_table(["system", *tasks], rows), ""]
    if report["verification"]:
        lines += ["## Verification", "", "Precision: accepted edits that match the ground truth."]
        lines += ["Recall: matching edits that were accepted.", ""]
        heads = ["edits of", "verdicts", "accepted %", "precision %", "recall %", "wrong rejected %", "unparsable"]
        rows = []
        for name, parts in report["verification"].items():
            for task, seen in parts.items():
                if name != "all" and task != "all":
                    continue  # each task's verdicts are shown over all systems together
                label = name if task == "all" else f"{name}: {task}"
                shares = [_number(seen[key]) for key in ("accept_rate", "precision", "recall", "specificity")]
                rows.append([label, str(seen["num_verdicts"]), *shares, str(seen["num_unparsable"])])
        lines += [*_table(heads, rows), ""]
    return "\n".join(lines)


def _pass_rows(report: dict[str, Any], tasks: list[str]) -> list[list[str]]:
    rows = []
    for name, system in report["systems"].items():
        cells = [system["tasks"][task] for task in tasks]
        row = [name, *(_interval(cell["pass_at_1"], cell["low"], cell["high"]) for cell in cells)]
        row.append(_interval(system["mean"], system["low"], system["high"]))
        paired = report["paired"].get(name)
        row.append(_interval(paired["difference"], paired["low"], paired["high"], sign=True) if paired else "")
        rows.append(row)
    return rows


def _group_rows(report: dict[str, Any], tasks: list[str]) -> list[list[str]]:
    return [
        [
            name,
            str(len(group["systems"])),
            *(_number(group["tasks"][task]) for task in tasks),
            *(_estimate(group.get(part), "against" in part) for part in GROUP_COLUMNS),
        ]
        for name, group in report["groups"].items()
    ]


def _estimate(parts: dict[str, float | None] | None, sign: bool) -> str:
    return _interval(parts["value"], parts["low"], parts["high"], sign) if parts else ""


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows)]


def _number(value: float | None, sign: bool = False) -> str:
    return "-" if value is None else f"{value:+.1f}" if sign else f"{value:.1f}"


def _interval(value: float | None, low: float | None, high: float | None, sign: bool = False) -> str:
    return f"{_number(value, sign)} [{_number(low, sign)}, {_number(high, sign)}]" if value is not None else "-"


def _range(counts: set[int]) -> str:
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


# ----------------------------------------------------------------------------------------------------------- HTML


def page(report: dict[str, Any], gallery: list[dict[str, Any]]) -> str:
    """The HTML page: report and gallery go in as JSON, which the page shows as text only."""
    text = json.dumps({"report": report, "gallery": gallery})
    for mark in "<>&\u2028\u2029":  # nothing in the data can end the script element or start another
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    title = html.escape(" / ".join(report["systems"]))
    return TEMPLATE.read_text(encoding="utf-8").replace("{{TITLE}}", title).replace("{{DATA}}", text)


def _gallery(
    data: Mapping[str, Task], records: Mapping[str, Mapping[Key, Record]], folder: RunFolder, per_task: int
) -> list[dict[str, Any]]:
    """Up to `per_task` samples of each task, in the tasks' order; as many of each as the page has room for."""
    items: dict[str, list[dict[str, Any]]] = {task: [] for task in data}
    room = MAX_GALLERY
    for index, task in itertools.product(range(per_task), data):
        if index < len(data[task]):
            item = _gallery_item(data[task].samples[index], records, folder)
            room -= len(json.dumps(item))
            if room < 0:
                break
            items[task].append(item)
    return [item for part in items.values() for item in part]


def _gallery_item(sample: EditSample, records: Mapping[str, Mapping[Key, Record]], folder: RunFolder) -> dict[str, Any]:
    runs = {}
    for name, rows in records.items():
        record = rows.get((sample.id, 0))
        if record is None:
            continue
        keys = ("verdict", "verdict_text", "used_edit", "answer", "answer_text", "correct", "unscored", "seconds")
        edit = record["edit"]
        runs[name] = {key: record[key] for key in keys} | {
            "prompt": edit and edit["prompt"],
            "matches": edit and edit["matches"],
            "image": _edit_uri(folder, edit) if edit and edit["prompt"] is not None else None,
        }
    return {
        "id": sample.id,
        "task": sample.task,
        "question": sample.question,
        "choices": list(sample.choices or ()),
        "truth": sample.answer,
        "source": _picture(sample.image),
        "target": sample.edit_image and _picture(sample.edit_image),
        "runs": runs,
    }


def _edit_uri(folder: RunFolder, edit: dict[str, Any]) -> str | None:
    path = (folder.path / edit["file"]).resolve()
    if not path.is_relative_to(folder.path.resolve()) or not path.is_file():
        return None
    return _picture(open_image(path))


def _picture(image: Image.Image) -> str:
    """A data URI: small pictures pixel by pixel, larger ones as a thumbnail."""
    if max(image.size) <= THUMBNAIL:
        return to_data_uri(image)
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
