"""Sheets of pictures to look at while a training runs."""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

CELL = 192  # px of a picture's longer side in the sheet, at least


def even(tasks: Sequence[str], count: int) -> list[int]:
    """Up to `count` indices, evenly over the tasks, the first ones of each."""
    by_task: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        by_task.setdefault(task, []).append(index)
    turns = max(map(len, by_task.values()), default=0)
    order = [rows[turn] for turn in range(turns) for rows in by_task.values() if turn < len(rows)]
    return order[:count]


def sheet(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """Rows of pictures under a caption each, columns under `heads`."""
    font = ImageFont.load_default(14)
    gap, line = 8, 22
    height = line + sum(line + CELL + gap for _ in rows)
    page = Image.new("RGB", (len(heads) * (CELL + gap) + gap, height), "white")
    pen = ImageDraw.Draw(page)
    for column, head in enumerate(heads):
        pen.text((gap + column * (CELL + gap), 3), head, "black", font)
    top = line
    for caption, images in rows:
        pen.text((gap, top + 3), _fitting(caption, page.width - 2 * gap, font), "dimgray", font)
        for column, image in enumerate(images):
            scale = CELL / max(image.size)
            size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
            way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
            page.paste(image.resize(size, way), (gap + column * (CELL + gap), top + line))
        top += line + CELL + gap
    return page


def _fitting(text: str, width: int, font: Any) -> str:
    text = " ".join(text.split())[:300]
    while text and font.getlength(text) > width:
        text = text[:-4].rstrip(". ") + "..." if len(text) > 7 else ""
    return text


def chart(title: str, curves: dict[str, list[tuple[float, float]]]) -> bytes:
    """Curves of (x, y) points over one another, with a legend: 720 x 360 px of PNG, equal for equal points."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state; a second to load

    figure = Figure(figsize=(7.2, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), marker="." if len(curve) == 1 else "", label=name)
    axes.set_title(title, loc="left")
    axes.grid(alpha=0.4)
    axes.legend(frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
