"""The gallery of all samples: an index that goes into the page, details in files that the page loads on demand.

`report/samples-000.js`, ... hold `CHUNK` samples each: texts, and links to pictures. A file whose records have not
changed is left as it is, and so are thumbnails: a report that was interrupted, or of a run that went on, is quick.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from etchr.pages import script_json
from etchr.run_folder import write_atomically
from etchr.sample import EditSample
from evaluation.factory import Task, sample_digest
from evaluation.records import EvalFolder, Key, Record, edit_is_right
from evaluation.report.pictures import Links, Pictures

VERSION = 1  # of what a file of samples holds; another one makes them all anew
CHUNK = 25  # samples of a file
MAX_TEXT = 8000  # characters of a question, an answer or a reply that are shown
OUTCOMES = ("right", "wrong", "unscored", "none")
VERDICTS = ("none", "accepted", "rejected", "unparsable")
CODES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # one letter for outcome, verdict and edit

Records = Mapping[str, Mapping[Key, Record]]  # system -> (sample id, repeat) -> record


@dataclass(frozen=True)
class Entry:
    """One sample, or one of its repeats, with what the systems made of it."""

    task: Task
    index: int
    repeat: int
    records: list[Record | None]  # of every system

    @property
    def some(self) -> Record:
        """A record of any system: what it says of the sample holds for all."""
        return next(record for record in self.records if record is not None)


def write_gallery(folder: EvalFolder, tasks: Mapping[str, Task], records: Records) -> dict[str, Any]:
    """Write the files of samples and their pictures; the index for the page.

    Raises `ValueError` if a sample's data are not those that its records are of.
    """
    entries = _entries(tasks, records)
    pictures = Pictures(folder.path)
    place = folder.path / "report"
    chunks = [entries[start : start + CHUNK] for start in range(0, len(entries), CHUNK)]
    place.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for number, chunk in enumerate(tqdm(chunks, desc="gallery", unit="file", delay=2, leave=False)):
            path, head = place / f"samples-{number:03d}.js", f"// {_digest(chunk)}\n"
            if not _begins(path, head):
                items = list(threads.map(partial(_item, pictures=pictures), chunk))
                # A text that is parsed: in an object written in JavaScript, __proto__ would be no plain name.
                call = f"etchrSamples({number}, {script_json(json.dumps(items))});\n"
                write_atomically(path, (head + call).encode("ascii"))
    for path in place.glob("samples-*.js"):
        count = path.stem.removeprefix("samples-")
        if count.isdecimal() and int(count) >= len(chunks):  # of a report on more samples
            path.unlink()
    return _index(entries, list(records), list(tasks))


def _entries(tasks: Mapping[str, Task], records: Records) -> list[Entry]:
    """All samples of which there is a record, in the tasks' order."""
    repeats = sorted({repeat for rows in records.values() for _, repeat in rows})
    entries = []
    for task in tasks.values():
        for index in range(len(task)):
            for repeat in repeats:
                found = [rows.get((task.samples.ids[index], repeat)) for rows in records.values()]
                if any(found):
                    entries.append(Entry(task, index, repeat, found))
    return entries


def _digest(chunk: list[Entry]) -> str:
    """A digest of all that decides a file of samples: records hold a digest of their sample."""
    digest = hashlib.sha256(f"{VERSION}".encode())
    for entry in chunk:
        digest.update(json.dumps(entry.records).encode())
    return digest.hexdigest()[:32]


def _begins(path: Path, head: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(head)) == head.encode()


# ----------------------------------------------------------------------------------------------------------- index


def _index(entries: list[Entry], systems: list[str], tasks: list[str]) -> dict[str, Any]:
    """What the page needs to filter all samples: a few letters a sample."""
    categories = sorted({entry.some["category"] for entry in entries if entry.some["category"]})
    number = {name: index for index, name in enumerate(categories)}
    return {
        "systems": systems,
        "tasks": tasks,
        "categories": categories,
        "chunk": CHUNK,
        "outcomes": OUTCOMES,
        "verdicts": VERDICTS,
        "letters": CODES,
        "id": [entry.some["sample_id"] for entry in entries],
        "task": [tasks.index(entry.task.benchmark.name) for entry in entries],
        "category": [number.get(entry.some["category"], -1) for entry in entries],
        "repeat": [entry.repeat for entry in entries],
        "codes": ["".join(_code(entry.records[place]) for entry in entries) for place in range(len(systems))],
    }


def _code(record: Record | None) -> str:
    """Outcome + 4 verdict + 16 edit, as a letter."""
    if record is None:
        return CODES[OUTCOMES.index("none")]
    outcome = 2 if record["correct"] is None else 0 if record["correct"] else 1
    verdict = VERDICTS.index(record["verdict"] or "none")
    right = edit_is_right(record)
    edit = 0 if right is None else 1 if right else 2
    return CODES[outcome + 4 * verdict + 16 * edit]


# --------------------------------------------------------------------------------------------------------- details


def _item(entry: Entry, pictures: Pictures) -> dict[str, Any]:
    """What the page shows of one sample."""
    head, record = entry.task.samples.peek(entry.index), entry.some
    check_same(entry.task, head, record, pictures.root)
    sources, target = _data_pictures(entry, head, pictures)
    return {
        "id": head.id,
        "repeat": entry.repeat,
        "question": _cut(head.question),
        "choices": [_cut(choice) for choice in head.choices or ()],
        "truth": _cut(head.answer),
        "category": record["category"],
        "path_length": record["path_length"],
        "sources": sources,
        "target": target,
        "runs": [each and _run(each, pictures) for each in entry.records],
    }


def check_same(task: Task, head: EditSample, record: Record, run: Path) -> None:
    """`ValueError` if a sample, of which the headers are enough, is not the one that a record is of."""
    if sample_digest(head) != record["sample"]:
        raise ValueError(
            f"sample {head.id!r} of {task.benchmark.name} is not the one that {run} has a record of; "
            "give the data of the run, or remove the run"
        )


def _data_pictures(entry: Entry, head: EditSample, pictures: Pictures) -> tuple[list[Links], Links | None]:
    """The sample's own pictures, and its ground-truth edit. Decoded only if they are to be made."""
    sample = cache(lambda: entry.task.samples[entry.index])
    shown = []
    for place, picture in enumerate(head.sources):
        digest = _name(getattr(picture, "digest", None) or f"{entry.some['sample']} {place}")

        def load(place: int = place) -> Image.Image:
            return sample().sources[place]

        shown.append(pictures.of_data(digest, picture.size, load))
    if head.edit_image is None:
        return shown, None

    def target() -> Image.Image:
        edit = sample().edit_image
        assert edit is not None
        return edit

    return shown, pictures.of_data(_name(f"target {entry.some['sample']}"), head.edit_image.size, target)


def _name(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:20]


def _run(record: Record, pictures: Pictures) -> dict[str, Any]:
    """What one system made of the sample; of what only some systems have, what is there."""
    edit = record["edit"] or {}
    run: dict[str, Any] = {key: record[key] for key in ("verdict", "used_edit", "correct", "parts", "seconds")}
    run |= {key: _cut(record[key]) for key in ("answer", "answer_text", "verdict_text", "judged", "unscored")}
    run |= {"prompt": _cut(edit.get("prompt")), "matches": edit.get("matches"), "edit_judged": edit.get("judged")}
    run["image"] = pictures.of_file(edit["file"]) if edit.get("prompt") is not None else None
    if "routed" in record:
        run["routed"] = record["routed"]
    for key in ("attempts", "turns"):
        if key in record:
            run[key] = [_step(step, pictures) for step in record[key]]
    return run


def _step(step: Mapping[str, Any], pictures: Pictures) -> dict[str, Any]:
    """An attempt or a turn."""
    shown = {key: _cut(value) if isinstance(value, str) else value for key, value in step.items() if key != "file"}
    return shown | ({"image": pictures.of_file(step["file"])} if "file" in step else {})


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}… ({len(text):,} characters)"
