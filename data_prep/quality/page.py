"""The reports to read: tables as Markdown, and one self-contained HTML page with histograms and pictures."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.quality.measure import SPLITS
from etchr.pages import picture_uri, script_json, short
from etchr.sample import EditSample

TEMPLATE = Path(__file__).parent / "template.html"
THUMBNAIL = 256  # px: larger pictures are scaled down, and are JPEG
MAX_PICTURES = 6 * 2**20  # characters of pictures and their texts in the page, half for pairs and half for the sheet
MAX_TEXT = 600  # characters of a question or an answer that are shown
MAX_CHOICES = 6

SHARED = {
    "same_picture": "same picture",
    "same_picture_and_question": "same picture and question",
    "similar_picture": "same or similar picture",
    "similar_picture_and_question": "same or similar picture, same question",
}
HISTOGRAMS = {
    "width": "width, px",
    "height": "height, px",
    "megapixels": "megapixels",
    "aspect_ratio": "width / height",
    "question_characters": "question, characters",
    "question_words": "question, words",
}


def page(report: dict[str, Any], sheet: Sequence[EditSample], pairs: Sequence[EditSample]) -> str:
    """The HTML page: all data goes in as JSON, which the page shows as text only.

    `pairs` are the samples of `report["examples"]`, two for each. Pictures are left out once the page is full.
    """
    items: dict[str, list[dict[str, Any]]] = {"pairs": [], "sheet": []}
    for name, samples in (("pairs", pairs), ("sheet", sheet)):
        room = MAX_PICTURES // 2
        for sample in samples:
            item = _item(sample, with_edit=name == "sheet")
            room -= len(json.dumps(item))
            if room < 0:
                break
            items[name].append(item)
    labels = {"shared": SHARED, "histograms": HISTOGRAMS, "splits": SPLITS}
    data = script_json({"report": report, "labels": labels, **items})
    return TEMPLATE.read_text(encoding="utf-8").replace("{{DATA}}", data)


def _item(sample: EditSample, with_edit: bool) -> dict[str, Any]:
    edit = sample.edit_image if with_edit else None
    return {
        "id": short(sample.id),
        "family": str(sample.family),
        "task": short(sample.task),
        "question": _cut(sample.question),
        "choices": [short(choice) for choice in (sample.choices or ())[:MAX_CHOICES]],
        "more_choices": max(len(sample.choices or ()) - MAX_CHOICES, 0),
        "answer": _cut(sample.answer),
        "size": f"{sample.image.width}x{sample.image.height}",
        "source": picture_uri(sample.image, THUMBNAIL),
        "edit": None if edit is None else picture_uri(edit, THUMBNAIL),
    }


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text):,} characters)"


# ------------------------------------------------------------------------------------------------------- markdown


def markdown(report: dict[str, Any]) -> str:
    """The tables as Markdown."""
    lines = ["# Quality of a data set", ""]
    lines += [*(f"- **Warning:** {_cell(line)}" for line in report["warnings"])] or ["No warnings."]
    edits, rows = report["edits"], report["rows"]
    lines += ["", f"{rows:,} rows. {_share(edits['edit'], rows)} have an edit; of these, "]
    lines[-1] += f"{_share(edits['unchanged'], edits['edit'])} equal their source. {report['bad_rows']:,} rows are bad."
    heads = ["family", "task", "rows", *SPLITS, "with an edit", "edit equals source"]
    body = [
        [
            *(part["family"], part["task"], f"{part['rows']:,}", *(f"{part[split]:,}" for split in SPLITS)),
            *(_share(part["edit"], part["rows"]), _share(part["unchanged"], part["edit"])),
        ]
        for part in report["tasks"]
    ]
    total = ["all", "", f"{rows:,}", *(f"{report['splits'][split]:,}" for split in SPLITS)]
    total += [_share(edits["edit"], rows), _share(edits["unchanged"], edits["edit"])]
    lines += ["", "## Counts", "", *_table(heads, [*body, total])]
    for title, names in (("Answer types", report["answer_types"]), ("Reasons of bad rows", report["bad_reasons"])):
        if names:
            lines += ["", f"## {title}", "", *_table(["name", "rows"], [[n, f"{c:,}"] for n, c in names.items()])]
    if report["bad_files"]:
        told = [[entry["file"], entry["reason"]] for entry in report["bad_files"]]
        lines += ["", "## Files that could not be read", "", *_table(["file", "reason"], told)]
    lines += [
        "",
        "## Repeated pictures",
        "",
        "Rows that share something with another row, of their own set or another.",
    ]
    lines += ["", *_table(["rows of", "with", "rows", *SHARED.values()], _shared_rows(report))]
    lines += ["", f"## Sizes: {report['num_sizes']:,} different, the most frequent", ""]
    lines += _table(["width x height", "rows"], [[size, f"{count:,}"] for size, count in report["sizes"].items()])
    for name, title in HISTOGRAMS.items():
        part = report["histograms"][name]
        lines += ["", f"## {title[0].upper()}{title[1:]}: {part['least']} to {part['most']}, mean {part['mean']}", ""]
        lines += _table(["up to", "rows"], [[label, f"{n:,}"] for label, n in _bins(part) if n])
    return "\n".join(lines) + "\n"


def _shared_rows(report: dict[str, Any]) -> list[list[str]]:
    parts = [(name, "itself", part["rows"], part) for name, part in report["within"].items()]
    parts += [(part["rows_of"], part["shared_with"], part["rows"], part) for part in report["across"]]
    for part in report["overlap"]:
        if part["set"] not in SPLITS:
            parts.append((part["set"], "train", part["rows"], part["in_train"]))
            parts.append(("train", part["set"], part["rows_of_train"]["rows"], part["rows_of_train"]))
    return [[a, b, f"{rows:,}", *(_share(counts[key], rows, True) for key in SHARED)] for a, b, rows, counts in parts]


def _bins(histogram: dict[str, Any]) -> list[tuple[str, int]]:
    labels = [f"{edge:,}" for edge in histogram["edges"]]
    return list(zip([*labels, "more"], histogram["counts"], strict=True))


def _share(part: int, whole: int, with_count: bool = False) -> str:
    percent = f"{100 * part / whole:.1f} %" if whole else "-"
    return f"{part:,} ({percent})" if with_count and part else "0" if with_count else percent


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in lines]


def _cell(text: str) -> str:
    """A text of the data in a table: it opens neither a cell nor an element, a link or an emphasis."""
    text = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{mark}" if mark in "\\|`*_[]!" else mark for mark in text)
