"""Made-up inputs in the published formats of the sources, large enough to measure: photographs in name only.

Each maker writes into an empty folder what a source needs for about `count` rows, and gives the options that point the
source to it. Pictures have the sizes of the real ones, and as PNG as many bytes a pixel as photographs (1.4 to 2.0).
"""

import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from etchr.boxes import Box, draw_boxes

COCO, CHART, VIDEO, RELEASED = (640, 480), (850, 600), (960, 540), (1024, 1024)  # px
CANVAS = (2048, 1536)  # px, of which the photographs are cut
GRAIN = 6  # standard deviation of the noise in a photograph, of 255
FRAMES, ROWS_A_SCENE = 48, 8


@dataclass(frozen=True)
class Case:
    """A source as it is measured."""

    source: str  # of python -m data_prep
    make: Callable[[Path, int], list[str]]
    count: int  # rows that are measured
    items: Callable[[int], int] = lambda count: count  # of the source, for so many rows


@cache
def _canvas() -> NDArray[np.uint8]:
    """Clouds of colour at many scales."""
    rng, (width, height) = np.random.default_rng(0), CANVAS
    total, strength = np.zeros((height, width, 3), np.float32), 1.0
    for across in (3, 6, 12, 24, 48, 96, 192):
        coarse = rng.integers(0, 256, (across * height // width, across, 3), dtype=np.uint8)
        layer = Image.fromarray(coarse).resize(CANVAS, Image.Resampling.BICUBIC)
        total += strength * (np.asarray(layer, np.float32) - 128)
        strength *= 0.6
    total += rng.normal(0, GRAIN, (height, width, 1)).astype(np.float32)
    return (total / 1.6 + 128).clip(0, 255).astype(np.uint8)


def photo(number: int, size: tuple[int, int]) -> Image.Image:
    """A picture with the statistics of a photograph, another one for each number."""
    rng = np.random.default_rng(number)
    x, y = (int(rng.integers(0, whole - side)) for whole, side in zip(CANVAS, size, strict=True))
    cut = _canvas()[y : y + size[1], x : x + size[0]]
    return Image.fromarray(cut[:, :: rng.choice((-1, 1))][:: rng.choice((-1, 1))].copy())


def encoded(image: Image.Image, form: str = "JPEG") -> bytes:
    """The bytes of a picture file."""
    stream = io.BytesIO()
    image.save(stream, form, quality=90)
    return stream.getvalue()


def photos(folder: Path, count: int, size: tuple[int, int] = COCO) -> None:
    """So many photographs, named by their numbers as COCO's."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:012d}.jpg").write_bytes(encoded(photo(number, size)))


def chart(number: int) -> Image.Image:
    """A chart of many bars with labels; its edges are smooth, so that it has the 40 kB of RefChartQA's."""
    rng, size = np.random.default_rng(number), (2 * CHART[0], 2 * CHART[1])
    image = Image.new("RGB", size, "white")
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(22)
    canvas.text((100, 20), f"Share of respondents by year and group, survey {number}, in per cent", "black", font)
    for step in range(11):
        canvas.line((100, 100 + 90 * step, size[0] - 20, 100 + 90 * step), (220, 220, 220), 3)
        canvas.text((30, 88 + 90 * step), f"{100 - 10 * step}", "black", font)
    for bar in range(14):
        top, left = int(rng.integers(130, 850)), 120 + 110 * bar
        canvas.rectangle((left, top, left + 50, 1000), tuple(int(part) for part in rng.integers(0, 200, 3)))
        canvas.text((left, top - 30), f"{(1000 - top) / 9:.1f}", "black", font)
        canvas.text((left, 1010 + 40 * (bar % 3)), f"{2003 + bar} (est.)", "black", font)
    return image.resize(CHART, Image.Resampling.LANCZOS)


# ------------------------------------------------------------------------------------------------------- the makers


def vstar(root: Path, count: int) -> list[str]:
    """SEAL's records about GQA's photographs, with one or two boxes each."""
    for folder in ("gqa/images", "coco2014/train2014", "coco2017/train2017"):
        (root / folder).mkdir(parents=True)
    photos(root / "gqa/images", count)
    records = [
        {
            "image": f"gqa/images/{number:012d}.jpg",
            "conversations": [
                {"from": "human", "value": f"<image>\nWhat is the colour of thing {number}?"},
                {"from": "gpt", "value": "The thing is blue."},
            ],
            "target_instances": [
                {"name": f"thing {n}", "bbox": [40 + 200 * n, 60, 120, 90]} for n in range(1 + number % 2)
            ],
        }
        for number in range(count)
    ]
    (root / "GQA_data.json").write_text(json.dumps(records), encoding="utf-8")
    return [f"root={root}", "files=[GQA_data.json]", "pictures=[gqa]"]


def refchartqa(root: Path, count: int) -> list[str]:
    """RefChartQA's rows, each about a chart of its own."""
    rows = [
        {
            "id": f"RefChartQA_human_train_{number}",
            "image": {"bytes": encoded(chart(number), "PNG"), "path": f"{number}.png"},
            "query": f"What is the value of bar {number % 10}?",
            "label": "51.5",
            "response": "<box>1,2,3,4</box><grounding-sep>51.5",
            "type": "human",
            "grounding_bboxes": [{"x": 60.0 + 55 * (number % 14), "y": 100.0, "w": 27.0, "h": 200.0}],
        }
        for number in range(count)
    ]
    _write(rows, root / "data" / "train-00000-of-00001.parquet")
    return [f"root={root}"]


def jigsaws(root: Path, count: int) -> list[str]:
    """A folder of photographs."""
    photos(root, count)
    return [f"photos={root}"]


def spatial_ssrl(root: Path, count: int) -> list[str]:
    """Spatial-SSRL's table and its pictures of shuffled patches."""
    photos(root / "images" / "shuffle", count)
    rows = [
        {"problem": "<image>Restore the picture.", "answer": "[2 0 3 1]", "images": [f"images/shuffle/{n:012d}.jpg"]}
        for n in range(count)
    ]
    _write(rows, root / "spatialssrl.parquet")
    return [f"spatial_ssrl={root}"]


def dl3dv(root: Path, count: int) -> list[str]:
    """Scenes of DL3DV-10K at 540 lines: somebody walks about a place with a camera."""
    for number in range(scenes(count)):
        folder = root / "1K" / f"{number:064x}"
        (folder / "images_4").mkdir(parents=True)
        frames = []
        for frame, pose in enumerate(_walk(number)):
            name = f"frame_{frame + 1:05d}.png"
            (folder / "images_4" / name).write_bytes(encoded(_lit(number * FRAMES + frame), "PNG"))
            frames.append({"file_path": f"images/{name}", "transform_matrix": pose.tolist(), "colmap_im_id": frame})
        lens = {"w": 3840, "h": 2160, "fl_x": 2400.0, "fl_y": 2410.0, "cx": 1920.0, "cy": 1080.0}
        (folder / "transforms.json").write_text(json.dumps(lens | {"frames": frames}), encoding="utf-8")
    return [f"root={root}", "exclude=none"]


def scenes(count: int) -> int:
    """The scenes that give so many rows."""
    return -(-count // ROWS_A_SCENE)


def released(root: Path, count: int) -> list[str]:
    """ETCHR-SFT-400K as far as its form is known: lists of one picture, and prompts that tell their family."""
    rows = []
    for number in range(count):
        source = photo(number, RELEASED)
        edit = draw_boxes(source, [Box(200, 300, 150, 120)])
        rows.append(
            {
                "source_image": [{"bytes": encoded(source), "path": f"gqa/{number}.jpg"}],
                "target_image": [{"bytes": encoded(edit), "path": None}],
                "prompt": f"Draw a red box for the question. Where is thing {number}?",
            }
        )
    _write(rows, root / "train-00000-of-00001.parquet")
    return [f"root={root}"]


def mazes(root: Path, count: int) -> list[str]:
    return [f"num_mazes={count}"]


def lakes(root: Path, count: int) -> list[str]:
    return [f"num_lakes={count}"]


CASES = {
    "vstar": Case("vstar", vstar, 400),
    "refchartqa": Case("refchartqa", refchartqa, 400),
    "mazes": Case("mazes", mazes, 1600),
    "lakes": Case("lakes", lakes, 800),
    "jigsaws": Case("jigsaws", jigsaws, 400),
    "spatial_ssrl": Case("jigsaws", spatial_ssrl, 400),
    "dl3dv": Case("dl3dv", dl3dv, 128, scenes),
    "released": Case("released", released, 160),
}


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    """A Parquet file in one row group, as pandas writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _walk(seed: int) -> Iterator[NDArray[np.float64]]:
    """Camera-to-world poses about a place, looking roughly along +y, with the z axis up."""
    rng = np.random.default_rng(seed)
    for eye, turn in zip(rng.uniform(-1, 1, (FRAMES, 3)) * (1, 1, 0.05), rng.uniform(-25, 25, FRAMES), strict=True):
        back = -np.array([math.sin(math.radians(turn)), math.cos(math.radians(turn)), -0.1])
        back /= np.linalg.norm(back)
        right = np.cross((0, 0, 1), back)
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :4] = np.stack([right, np.cross(back, right), back, eye], axis=1)
        yield pose


def _lit(number: int) -> Image.Image:
    """A frame of which one third is plainly brighter, as the questions about light need."""
    pixels = np.asarray(photo(number, VIDEO)).astype(np.int16)
    third = VIDEO[0] // 3
    start = int(np.random.default_rng(number).integers(3)) * third
    pixels[:, start : start + third] += 50
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
