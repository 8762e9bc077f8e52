"""`python -m evaluation table`: the paper's main table, or the ablation, from runs that a YAML file names."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from etchr.checks import one_of
from etchr.config import parse_command
from etchr.run_folder import write_atomically
from evaluation.table.formats import WRITERS
from evaluation.table.lines import note, table_of
from evaluation.table.numbers import compute
from evaluation.table.sheet import read_sheet


@dataclass
class TableConfig:
    """Options of `python -m evaluation table`."""

    rows: str = "configs/table/paper.yaml"  # YAML file of rows; its own comments say what stands there
    out: str = "outputs/table"  # folder for table.json and the formats
    formats: list[str] = field(default_factory=lambda: list(WRITERS))  # md, tex (booktabs), html
    skip_missing: bool = False  # leave the cells of a row empty whose run does not exist, instead of stopping

    def __post_init__(self) -> None:
        for name in self.formats:
            one_of("format", name, tuple(WRITERS))


def main(argv: Sequence[str]) -> None:
    """Write the table and print it."""
    config = parse_command(
        TableConfig,
        config_name=None,
        argv=argv,
        prog="python -m evaluation table",
        description="Make a table of any set of runs: Pass@1 with intervals, beside published numbers, and with "
        "differences on the same samples. Reads records alone; needs neither data nor models.",
    )
    sheet = read_sheet(Path(config.rows))
    found = compute(sheet, config.skip_missing)
    shown = sheet.title, table_of(found), note(found)
    texts = {name: WRITERS[name](*shown) for name in config.formats}
    texts["json"] = json.dumps(found, indent=2) + "\n"
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(folder / f"table.{name}", text.encode())
    print(WRITERS["md"](*shown))
    print(f"written: {', '.join(str(folder / f'table.{name}') for name in texts)}")
