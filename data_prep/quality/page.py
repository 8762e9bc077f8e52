"""The reports to read: tables as Markdown, and one self-contained HTML page with histograms and pictures."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.quality.measure import SPLITS
from etchr.pages import fill, picture_uri, short
from etchr.sample import EditSample

HERE = Path(__file__).parent
TITLE = "Quality of a data set"
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


class PageTable(NamedTuple):
    """A table that both reports show: its first columns, `words` of them, hold words."""

    title: str
    head: list[str]
    rows: list[list[str]]
    words: int = 1


def page(report: dict[str, Any], sheet: Sequence[EditSample], pairs: Sequence[EditSample]) -> str:
    """The HTML page, which needs no script.

    `pairs` are the samples of `report["examples"]`, two for each. Pictures are left out once the page is full.
    """
    two = _items(pairs, with_edit=False)
    return fill(
        HERE / "template.html",
        TITLE,
        (HERE / "page.css").read_text(encoding="utf-8"),
        images="data:",
        report=report,
        tables=_tables(report),
        bars=_bars(report),
        pairs=list(zip(report["examples"], zip(two[::2], two[1::2], strict=False), strict=False)),
        sheet=_items(sheet, with_edit=True),
        zip=zip,
    )


def _items(samples: Sequence[EditSample], with_edit: bool) -> list[dict[str, Any]]:
    """What is shown of the first samples, as many as half a page has room for."""
    items, room = [], MAX_PICTURES // 2
    for sample in samples:
        item = _item(sample, with_edit)
        room -= len(json.dumps(item))
        if room < 0:
            break
        items.append(item)
    return items


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


def _tables(report: dict[str, Any]) -> dict[str, PageTable]:
    edits, rows = report["edits"], report["rows"]
    heads = ["family", "task", "rows", *SPLITS, "with an edit", "edit equals source"]
    counts = [
        [
            *(part["family"], part["task"], f"{part['rows']:,}", *(f"{part[split]:,}" for split in SPLITS)),
            *(_share(part["edit"], part["rows"]), _share(part["unchanged"], part["edit"])),
        ]
        for part in report["tasks"]
    ]
    total = ["all", "", f"{rows:,}", *(f"{report['splits'][split]:,}" for split in SPLITS)]
    total += [_share(edits["edit"], rows), _share(edits["unchanged"], edits["edit"])]
    examples = [[row["file"], row["id"], row["reason"], str(row["row"])] for row in report["bad_examples"]]
    files = [[entry["file"], entry["reason"]] for entry in report["bad_files"]]
    shared = "Repeated pictures: rows that share something with another row, of their own set or another"
    sizes = f"Sizes: {report['num_sizes']:,} different, the most frequent"
    return {
        "counts": PageTable("Counts", heads, [*counts, total], 2),
        "answer_types": _counted("Answer types", "name", report["answer_types"]),
        "bad_reasons": _counted("Reasons of bad rows", "reason", report["bad_reasons"]),
        "bad_examples": PageTable("Bad rows, the first ones", ["file", "id", "reason", "row"], examples, 3),
        "bad_files": PageTable("Files that could not be read", ["file", "reason"], files, 2),
        "shared": PageTable(shared, ["rows of", "with", "rows", *SHARED.values()], _shared_rows(report), 2),
        "sizes": _counted(sizes, "width x height", report["sizes"]),
    }


def _counted(title: str, name: str, counts: dict[str, int]) -> PageTable:
    return PageTable(title, [name, "rows"], [[key, f"{count:,}"] for key, count in counts.items()])


def _shared_rows(report: dict[str, Any]) -> list[list[str]]:
    parts = [(name, "itself", part["rows"], part) for name, part in report["within"].items()]
    parts += [(part["rows_of"], part["shared_with"], part["rows"], part) for part in report["across"]]
    for part in report["overlap"]:
        if part["set"] not in SPLITS:
            parts.append((part["set"], "train", part["rows"], part["in_train"]))
            parts.append(("train", part["set"], part["rows_of_train"]["rows"], part["rows_of_train"]))
    return [[a, b, f"{rows:,}", *(_share(counts[key], rows, True) for key in SHARED)] for a, b, rows, counts in parts]


def _histograms(report: dict[str, Any]) -> list[tuple[str, list[tuple[str, int]]]]:
    """The histograms under their titles: the name and the count of each bin."""
    found = []
    for name, title in HISTOGRAMS.items():
        part = report["histograms"][name]
        labels = [*(f"up to {edge:,}" for edge in part["edges"]), "more"]
        title = f"{title[0].upper()}{title[1:]}: {part['least']} to {part['most']}, mean {part['mean']}"
        found.append((title, list(zip(labels, part["counts"], strict=True))))
    return found


def _bars(report: dict[str, Any]) -> list[tuple[str, list[tuple[str, int]]]]:
    sizes = (f"Width x height: {report['num_sizes']:,} different", list(report["sizes"].items()))
    return [*_histograms(report), sizes, ("Answer types", list(report["answer_types"].items())[:20])]


def _share(part: int, whole: int, with_count: bool = False) -> str:
    percent = f"{100 * part / whole:.1f} %" if whole else "-"
    return f"{part:,} ({percent})" if with_count and part else "0" if with_count else percent


# ------------------------------------------------------------------------------------------------------- markdown


def markdown(report: dict[str, Any]) -> str:
    """The tables as Markdown."""
    lines = [f"# {TITLE}", ""]
    lines += [*(f"- **Warning:** {_cell(line)}" for line in report["warnings"])] or ["No warnings."]
    edits, rows = report["edits"], report["rows"]
    lines += ["", f"{rows:,} rows. {_share(edits['edit'], rows)} have an edit; of these, "]
    lines[-1] += f"{_share(edits['unchanged'], edits['edit'])} equal their source. {report['bad_rows']:,} rows are bad."
    bins = [_counted(title, "bin", {label: n for label, n in bins if n}) for title, bins in _histograms(report)]
    for table in (*_tables(report).values(), *bins):
        if table.rows:
            head = [table.head, ["---"] * len(table.head), *(map(_cell, row) for row in table.rows)]
            lines += ["", f"## {table.title}", "", *(f"| {' | '.join(row)} |" for row in head)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A text of the data in a table: it opens neither a cell nor an element, a link or an emphasis."""
    text = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{mark}" if mark in "\\|`*_[]!" else mark for mark in text)
