"""Sheets of pictures to look at while a training runs."""

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

COLOURS = ("royalblue", "darkorange", "seagreen", "crimson", "purple")
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


def chart(title: str, curves: dict[str, list[tuple[float, float]]], size: tuple[int, int] = (720, 360)) -> Image.Image:
    """Curves of (x, y) points over one another, with a legend; both axes span the points."""
    font = ImageFont.load_default(13)
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    left, top, right, bottom = 50, 44, size[0] - 14, size[1] - 28
    points = [point for curve in curves.values() for point in curve]
    (x0, x1), (y0, y1) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))
    x1, y1 = max(x1, x0 + 1e-9), max(y1, y0 + 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (x - x0) / (x1 - x0) * (right - left), bottom - (y - y0) / (y1 - y0) * (bottom - top)

    pen.text((left, 4), title, "black", font)
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
        pen.line([place(x0, y), place(x1, y)], "gainsboro")
        pen.text((4, place(x0, y)[1] - 8), f"{y:.3g}", "dimgray", font)
        pen.text((place(x, y0)[0], bottom + 6), f"{x:.0f}", "dimgray", font, anchor="ma")
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        pen.line([place(x, y) for x, y in curve], colour, 2)
        pen.text((left + 170 * number, 22), name, colour, font)
    return page
