"""The picture sheet: a row for each task, of its first sample: source, ground truth, and what the systems drew.

Under an edit stands what was answered with it and, in colour, whether that is right.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from PIL import Image, ImageDraw, ImageFont

from etchr.images import encode_png, to_rgb
from etchr.pages import short
from etchr.run_folder import write_atomically
from etchr.sample import EditSample
from evaluation.factory import Task
from evaluation.records import EvalFolder, Record
from evaluation.report.gallery import Records, check_same
from evaluation.report.pictures import Pictures
from evaluation.settings import EvalConfig, SystemConfig
from evaluation.systems import SYSTEMS

NAME = "sheet.png"  # in the run folder
MOST = 8  # systems, unless some are asked for
SIDE, GAP, LABEL, HEAD, CAPTION = 128, 12, 190, 42, 22  # px: of a picture, between, of the text before, above, below
WORDS = {"question": "asked", "instruction": "told what to draw", "enhanced": "told by the model"}
INK, SOFT, GOOD, BAD = "#1c2330", "#626c7d", "#1a7f4b", "#c0362c"


@dataclass(frozen=True)
class SheetRow:
    """A picture of the sheet, and what stands under it."""

    image: Image.Image | None
    caption: str = ""
    colour: str = SOFT


def write_sheet(folder: EvalFolder, config: EvalConfig, tasks: Mapping[str, Task], records: Records) -> bool:
    """Write the sheet of a run; whether there is one: not where no system draws, or before the first record.

    Raises `ValueError` if a sample's data are not those that its records are of.
    """
    names = shown_systems(config)
    pictures = Pictures(folder.path)
    rows = [row for task in tasks.values() if (row := _row(task, names, records, pictures)) is not None]
    path = folder.path / NAME
    if not names or not rows:
        path.unlink(missing_ok=True)
        return False
    head = ["source", "ground truth", *(f"{name}\n{_prompted(config.systems[name])}" for name in names)]
    data = encode_png(draw(head, rows))
    if not path.is_file() or path.read_bytes() != data:
        write_atomically(path, data)
    return True


def shown_systems(config: EvalConfig) -> list[str]:
    """The systems of the sheet: those asked for, else those that draw, each edit once, and of seeds the first."""
    if config.sheet:
        return list(config.sheet)
    firsts: dict[str, str] = {}
    groups: set[str] = set()
    for name, system in config.systems.items():
        if _draws_one_edit(system) and system.group not in groups:
            firsts.setdefault(_edits(system), name)
            groups |= {system.group} if system.group else set()
    return list(firsts.values())[:MOST]


def _draws_one_edit(system: SystemConfig) -> bool:
    kind = SYSTEMS[system.kind]
    return kind.is_routed and kind.calls(system).edits == 1


def _prompted(system: SystemConfig) -> str:
    return WORDS[system.prompt] if SYSTEMS[system.kind].has_editor else ""


def _edits(system: SystemConfig) -> str:
    """What decides a system's edits."""
    keys = ("editor", "lora", "remote", "prompt", "route", "router")
    written = (system.model,) if system.prompt == "enhanced" else ()
    return str([*(getattr(system, key) for key in keys), *written])


def _row(
    task: Task, names: Sequence[str], records: Records, pictures: Pictures
) -> tuple[str, str, list[SheetRow]] | None:
    """Task, question and pictures of its first sample; None without a record of it."""
    key = task.samples.ids[0], 0
    found = [records[name].get(key) for name in names]
    some = next((record for rows in records.values() if (record := rows.get(key)) is not None), None)
    if some is None:
        return None
    sample = task.samples[0]
    check_same(task, task.samples.peek(0), some, pictures.root)
    truth = SheetRow(sample.edit_image and _small(sample.edit_image), f"answer {sample.answer}")
    shown = [SheetRow(_small(sample.image)), truth, *(_shown(record, pictures) for record in found)]
    return task.benchmark.name, _question(sample), shown


def _question(sample: EditSample) -> str:
    options = [f"{letter} {words}" for letter, words in zip(ascii_uppercase, sample.choices or (), strict=False)]
    return f"{sample.question} {' / '.join(options)}"


def _shown(record: Record | None, pictures: Pictures) -> SheetRow:
    if record is None:
        return SheetRow(None)
    if record["unscored"] is not None:
        return SheetRow(None, "unscored")
    edit = record["edit"] or {}
    image = pictures.open(edit["file"]) if edit.get("file") else None
    right = record["correct"]
    words = f"{'right' if right else 'wrong'}: {record['answer']}"
    if record["verdict"] is not None and not record["used_edit"]:
        words = f"not used, {words}"
    return SheetRow(image and _small(image), words, GOOD if right else BAD)


def _small(image: Image.Image) -> Image.Image:
    """A picture as large as its place, small ones pixel by pixel."""
    scale = SIDE / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    return to_rgb(image).resize((width, height), Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)


def draw(head: Sequence[str], rows: Sequence[tuple[str, str, Sequence[SheetRow]]]) -> Image.Image:
    """The sheet: a column of texts, then pictures under their heads."""
    width, height = LABEL + len(head) * (SIDE + GAP), HEAD + len(rows) * (SIDE + CAPTION + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    pen, font, large = ImageDraw.Draw(sheet), ImageFont.load_default(12), ImageFont.load_default(15)
    for place, words in enumerate(head):
        lines = "\n".join(_cut(line, SIDE + GAP - 4, font) for line in words.splitlines())
        pen.multiline_text((LABEL + place * (SIDE + GAP), 6), lines, INK, font)
    for number, (task, question, shown) in enumerate(rows):
        top = HEAD + number * (SIDE + CAPTION + GAP)
        pen.text((GAP, top), _cut(task, LABEL - 2 * GAP, large), INK, large)
        wrapped = textwrap.wrap(short(question, 150), 25, max_lines=6, placeholder=" ...")
        pen.multiline_text((GAP, top + 22), "\n".join(wrapped), SOFT, font)
        for place, each in enumerate(shown):
            left = LABEL + place * (SIDE + GAP)
            if each.image is not None:
                sheet.paste(each.image, (left, top))
            pen.text((left, top + SIDE + 3), _cut(each.caption, SIDE + GAP - 4, font), each.colour, font)
    return sheet


def _cut(words: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """`words` on one line, cut to a width."""
    line = short(words, 80)
    while line and font.getlength(line) > width:
        line = line.removesuffix("...")[:-1] + "..." if len(line) > 4 else ""
    return line
