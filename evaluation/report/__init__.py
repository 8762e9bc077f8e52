"""A run's reports, from its records: `report.json`, `report.md`, and `report.html` with a gallery of all samples.

Both open with the picture sheet (`sheet.png`) and the table of Pass@1; the statistics stand below.

Needs neither a model nor an editor, so a report can be made again, or of an unfinished run, at any time. The page lies
in the run folder and opens from there; what it loads on demand, the samples' texts and thumbnails, lies in `report/`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etchr.config import parse_command
from etchr.run_folder import write_atomically
from evaluation.cost import read_prices
from evaluation.factory import Task, read_tasks
from evaluation.records import EvalFolder
from evaluation.report.gallery import write_gallery
from evaluation.report.markdown import markdown
from evaluation.report.page import about, page
from evaluation.report.sections import main_table, sections
from evaluation.report.sheet import NAME as SHEET_FILE
from evaluation.report.sheet import write_sheet
from evaluation.report.story import sentence, tell
from evaluation.settings import EvalConfig
from evaluation.summary import outcomes_of, summarise
from evaluation.tabular import text_table


def main(argv: Sequence[str]) -> None:
    """`python -m evaluation report`: the reports of a run again, from its records."""
    config = parse_command(
        EvalConfig,
        config_name="eval",
        argv=argv,
        prog="python -m evaluation report",
        description="Make the report of a run again, or of an unfinished one, from its records. Options as of the run.",
    )
    folder = EvalFolder(config.out)
    if not folder.exists():
        raise ValueError(f"no run at {folder.path}; start one with the same command without the word report")
    finish(folder, config)


def finish(folder: EvalFolder, config: EvalConfig) -> None:
    """Write the reports; print the main table, what it shows in one line, and where the pictures are."""
    report = write_reports(folder, config, read_tasks(config))
    print("Pass@1 in percent, with the 95 % interval of the mean\n")
    print("\n".join(text_table(main_table(report))))
    if story := sentence(report.get("story", ())):
        print(f"\n{story}")
    sheet = folder.path / SHEET_FILE
    where = {"pictures": sheet if sheet.is_file() else None, "all samples": folder.path / "report.html"}
    print("\n" + "\n".join(f"{what}: {path}" for what, path in where.items() if path is not None))


def write_reports(folder: EvalFolder, config: EvalConfig, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Write the three reports into the run folder and return what `report.json` holds.

    Raises `ValueError` if a sample is not the one that the folder has records of.
    """
    wanted = {key for task in tasks.values() for key in task.samples.ids[: len(task)]}
    records = {
        name: {key: row for key, row in folder.records(name).read().items() if key[0] in wanted}
        for name in config.systems
    }
    report = summarise(records, list(tasks), config.reference, config.systems, read_prices(config.prices))
    if config.story:
        outcomes = {name: outcomes_of(rows, list(tasks)) for name, rows in records.items()}
        report["story"] = tell(config.story, report, outcomes, list(tasks))
    parts = sections(report)
    write_atomically(folder.path / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    picture = SHEET_FILE if write_sheet(folder, config, tasks, records) else None
    write_atomically(folder.path / "report.md", markdown(parts, picture).encode())
    gallery = write_gallery(folder, tasks, records)  # last: it may take a while, and goes on where it was interrupted
    write_atomically(folder.path / "report.html", page(report, parts, about(config, tasks), gallery, picture).encode())
    return report
