"""The paper's main table as data: Pass@1 in percent, read from its published picture (arXiv 2605.23897).

No row says how often it was run, nor gives an interval. The paper's mean is the plain mean of the eleven columns.
"""

from typing import NamedTuple


class Column(NamedTuple):
    """A column of the table and what lies behind a cell of it."""

    title: str
    num_samples: int
    num_units: int  # independent ones: a question put several times, or a figure asked about several times, is one
    unit: str


class PublishedRow(NamedTuple):
    """A system's scores, in the order of `COLUMNS`, and their mean as printed."""

    kind: str  # tools, unified, direct or evr
    scores: tuple[float, ...]
    mean: float


# By the name of the benchmark here. 200 of each procedural task is inferred: every printed value is a multiple of 0.5.
COLUMNS: dict[str, Column] = {
    "vstar": Column("V*", 191, 191, "question"),
    "hrbench_4k": Column("HR-Bench 4K", 800, 200, "question"),
    "hrbench_8k": Column("HR-Bench 8K", 800, 200, "question"),
    "chartqa": Column("ChartQA", 2500, 2500, "question"),
    "charxiv_dq": Column("CharXiv DQ", 4000, 1000, "figure"),
    "charxiv_rq": Column("CharXiv RQ", 1000, 1000, "question"),
    "mazes": Column("Maze", 200, 200, "maze"),
    "lakes": Column("Frozen Lake", 200, 200, "map"),
    "coco_jigsaw": Column("COCO jigsaw", 200, 200, "photo"),
    "viewspatial": Column("ViewSpatial P-RelDir", 842, 842, "question"),
    "dl3dv_2k": Column("DL3DV-2k", 2000, 2000, "question"),  # as its name says
}

TABLE: dict[str, PublishedRow] = {
    "DeepEyesV2": PublishedRow("tools", (81.8, 77.9, 73.8, 88.4, 78.6, 48.9, 0.5, 0.0, 6.5, 39.3, 69.0), 51.34),
    "Thyme": PublishedRow("tools", (81.2, 77.1, 71.9, 86.5, 66.1, 45.3, 0.0, 2.0, 6.5, 39.2, 70.8), 49.69),
    "Bagel-Zebra-CoT": PublishedRow("unified", (50.8, 51.9, 45.8, 71.8, 62.8, 37.4, 0.0, 1.5, 5.5, 28.6, 64.9), 38.27),
    "ThinkMorph-7B": PublishedRow("unified", (65.8, 59.6, 50.9, 76.4, 61.2, 28.1, 6.5, 31.0, 10.5, 32.2, 62.4), 44.05),
    "Qwen3-VL-8B": PublishedRow("direct", (84.8, 78.1, 74.5, 86.7, 85.0, 47.9, 27.5, 9.5, 9.5, 41.1, 70.8), 55.95),
    "Qwen3-VL-8B + ETCHR": PublishedRow(
        "evr", (86.9, 80.6, 75.3, 88.4, 86.8, 49.7, 38.5, 13.5, 13.0, 57.2, 78.6), 60.77
    ),
    "Gemini-3.1-Flash-Lite": PublishedRow(
        "direct", (69.6, 81.5, 74.5, 81.2, 93.8, 68.6, 40.0, 62.5, 27.5, 46.6, 70.1), 65.08
    ),
    "Gemini-3.1-Flash-Lite + ETCHR": PublishedRow(
        "evr", (72.3, 82.9, 75.1, 83.3, 94.6, 70.8, 51.5, 69.0, 36.0, 57.8, 82.7), 70.55
    ),
    "Kimi K2.5": PublishedRow("direct", (85.9, 85.6, 80.6, 93.7, 98.3, 77.1, 95.5, 52.5, 44.5, 54.9, 73.4), 76.55),
    "Kimi K2.5 + ETCHR": PublishedRow("evr", (87.4, 86.8, 81.1, 94.1, 98.4, 77.9, 98.0, 57.0, 70.5, 57.7, 83.9), 81.16),
}
MODELS = tuple(name for name, row in TABLE.items() if row.kind == "direct")  # the understanding models


def score(system: str, benchmark: str) -> float:
    """A cell of the table."""
    return TABLE[system].scores[list(COLUMNS).index(benchmark)]


def gain(model: str, benchmark: str) -> float:
    """What ETCHR adds to an understanding model, in points."""
    return score(f"{model} + ETCHR", benchmark) - score(model, benchmark)
