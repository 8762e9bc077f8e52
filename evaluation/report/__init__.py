"""A run's reports, from its records: `report.json`, `report.md`, and `report.html` with a gallery of all samples.

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
from evaluation.records import RunFolder
from evaluation.report.gallery import write_gallery
from evaluation.report.markdown import markdown
from evaluation.report.page import about, page
from evaluation.report.sections import sections
from evaluation.settings import EvalConfig
from evaluation.summary import summarise


def main(argv: Sequence[str]) -> None:
    """`python -m evaluation report`: the reports of a run again, from its records."""
    config = parse_command(
        EvalConfig,
        config_name="eval",
        argv=argv,
        prog="python -m evaluation report",
        description="Make the report of a run again, or of an unfinished one, from its records. Options as of the run.",
    )
    folder = RunFolder(config.out)
    if not folder.exists():
        raise ValueError(f"no run at {folder.path}; start one with the same command without the word report")
    finish(folder, config)


def finish(folder: RunFolder, config: EvalConfig) -> None:
    """Write the reports and print the main table."""
    print(markdown(sections(write_reports(folder, config, read_tasks(config)))[:1]))
    print(f"report: {folder.path / 'report.html'}")


def write_reports(folder: RunFolder, config: EvalConfig, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Write the three reports into the run folder and return what `report.json` holds.

    Raises `ValueError` if a sample is not the one that the folder has records of.
    """
    wanted = {key for task in tasks.values() for key in task.samples.ids[: len(task)]}
    records = {
        name: {key: row for key, row in folder.records(name).read().items() if key[0] in wanted}
        for name in config.systems
    }
    report = summarise(records, list(tasks), config.reference, config.systems, read_prices(config.prices))
    parts = sections(report)
    for name, text in (("report.json", json.dumps(report, indent=2) + "\n"), ("report.md", markdown(parts))):
        write_atomically(folder.path / name, text.encode())
    gallery = write_gallery(folder, tasks, records)  # last: it may take a while, and goes on where it was interrupted
    write_atomically(folder.path / "report.html", page(report, parts, about(config, tasks), gallery).encode())
    return report
