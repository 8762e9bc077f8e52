"""CharXiv as it is published, small: the authors' repository, the hub's Parquet file, and files in the authors' form
whose sentences are made up."""

import json
from pathlib import Path

from tests.evaluation.benchmarks.published import png, write_parquet

FIGURES = {  # by number: colour, place, templates, answers, reasoning question, its answer, its kind, who wrote it
    3: (
        "red",
        [1, 2],
        [1, 8, 18, 15],
        ["(b) OPT", "0.10", "1 by 2", "Not Applicable"],
        "Which falls?",
        "Joint-CNN",
        1,
        3,
    ),
    17: ("blue", [0, 0], [2, 11, 13, 19], ["T (K)", "Yes", "A, B, C", "1"], "How do they run? ", "up then down", 2, 4),
    240: ("green", "the inner subplot", [16, 4, 17, 12], ["decreases", "10^-3", "9", "3"], "At what q?", "0.01", 3, 1),
    999: ("white", "left-most subplot", [5, 6, 7, 10], ["2019", "0", "1.00", "4"], "By how much?", "9.17", 4, 2),
}


def descriptive(figure: int) -> dict:
    _, place, templates, answers, *_ = FIGURES[figure]
    return {"figure_id": figure, "num_subplots": 2, "subplot_loc": place, "qids": templates, "answers": answers}


def reasoning(figure: int) -> dict:
    *_, query, answer, kind, source = FIGURES[figure]
    return {"figure_id": figure, "query": query, "answer": answer, "inst_category": kind, "qa_source": source}


def write_json(folder: Path, dq: dict | None = None, rq: dict | None = None) -> Path:
    """The question files, with other rows where these are given."""
    folder.mkdir(parents=True, exist_ok=True)
    dq = {str(figure): descriptive(figure) for figure in FIGURES} if dq is None else dq
    rq = {str(figure): reasoning(figure) for figure in FIGURES} if rq is None else rq
    (folder / "descriptive_val.json").write_text(json.dumps(dq))
    (folder / "reasoning_val.json").write_text(json.dumps(rq))
    return folder


def write_images(folder: Path) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for figure, (colour, *_) in FIGURES.items():
        (folder / "images" / f"{figure}.jpg").write_bytes(png(colour=colour))


def write_repository(folder: Path) -> Path:
    write_json(folder / "data")
    write_images(folder)
    return folder


def write_flat(folder: Path) -> Path:
    write_images(write_json(folder))
    return folder


def write_hub(folder: Path) -> Path:
    """`val.parquet` with the hub's columns."""
    import datasets

    rows = []
    for figure, (colour, place, templates, answers, query, answer, kind, source) in FIGURES.items():
        described = isinstance(place, str)
        row = {
            "image": {"bytes": png(colour=colour), "path": None},
            "category": "cs",
            "year": "20",
            "original_figure_path": "src/a.jpg",
            "original_id": "2004.10956",
            "figure_path": f"images/{figure}.jpg",
            "num_subplots": 2,
            "subplot_row": None if described else place[0],
            "subplot_col": None if described else place[1],
            "subplot_loc": place if described else None,
        }
        for number, (template, told) in enumerate(zip(templates, answers, strict=True), 1):
            row |= {f"descriptive_q{number}": template, f"descriptive_a{number}": told}
        rows.append(
            row | {"reasoning_q": query, "reasoning_a": answer, "reasoning_a_type": kind, "reasoning_q_source": source}
        )
    text, whole = datasets.Value("string"), datasets.Value("int16")
    kinds = {
        name: datasets.Image() if name == "image" else whole if isinstance(value, int) else text
        for name, value in rows[0].items()
    }
    write_parquet(rows, folder / "val.parquet", kinds)
    return folder


# What a copy of the authors' repository holds, in other words: the names, shapes and marks are theirs.
GROUPS = ("title", "ocr", "quant", "bool", "enum", "trend", "layout")
CONSTANTS = (
    "DESCRIPTIVE_RESP_INST = {\n"
    + "".join(f'    {number}: """{{}}q{number}?\n    * hint {number} """,\n' for number in range(1, 18))
    + '    18: "whole q18?",\n    19: "whole q19?",\n}\n'
    + 'DESCRIPTIVE_GRADING_PREFIX = """\n<|NUM_TRIPLETS|> to grade, keys [<|JSON_KEYS|>].\n'
    + 'Asked: <|OVERARCHING_QUESTION|>\n"""\n'
    + "DESCRIPTIVE_GRADING_QMAP = {"
    + ", ".join(f'{number}: "Q{number}?"' for number in range(1, 20))
    + "}\n"
    + "DESCRIPTIVE_GRADING_ICL = {"
    + ", ".join(f'"{n}": """\nRubric {n}: \\lambda {{x}}\n"""' for n in GROUPS)
    + "}\n"
    + 'REASONING_GRADING_PREFIX = """\nGrade this.\n"""\n'
    + "REASONING_GRADING_INST = {"
    + ", ".join(
        f'{kind}: """Rules {kind} {{"score": 0}}\n* <|question|>\n* <|ground_truth|>\n* <|response|>\nend"""'
        for kind in (1, 2, 3, 4)
    )
    + "}\n"
    + 'REASONING_RESP_INST = {1: "{} one", 2: "{} two", 3: "{} three", 4: "{} four {} "}\n'
)
DESCRIPTIVE_UTILS = """
def other(x):
    prefix = "of another function"

def descriptive_query_helper(qid, subplot_loc):
    if isinstance(subplot_loc, list):
        if subplot_loc[0] == 0:
            prefix = "[one] "
        else:
            prefix = f"[row {subplot_loc[0]} col {subplot_loc[1]}] "
    elif isinstance(subplot_loc, str):
        prefix = f"[at {subplot_loc}] "
    return prefix
"""
REASONING_UTILS = """
def get_number_instruction(answer):
    if True:
        inst = "* whole."
    else:
        inst = f"* {num_decimal} places."
    return inst
"""


def write_authors(folder: Path, constants: str = CONSTANTS, beside: bool = True) -> Path:
    """The authors' `src`, its constants.py."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "constants.py").write_text(constants)
    if beside:
        (folder / "descriptive_utils.py").write_text(DESCRIPTIVE_UTILS)
        (folder / "reasoning_utils.py").write_text(REASONING_UTILS)
    return folder / "constants.py"
