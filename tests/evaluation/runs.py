"""A run in a temporary folder, with fakes for model and editor."""

import json
from pathlib import Path

from evaluation.factory import read_tasks
from evaluation.report import write_reports
from evaluation.run import evaluate
from evaluation.settings import EditingConfig, EvalConfig, SystemConfig
from tests.evaluation.fakes import TableEditor, TableModel, write_data, write_editor


class Run:
    """Data of the cases, an editor's folder and a run folder."""

    def __init__(self, folder: Path, cases) -> None:
        self.folder, self.cases = folder, list(cases)
        self.model, self.editor = TableModel(self.cases), TableEditor(self.cases)
        self.data = write_data(self.cases, folder / "data")
        self.klein = str(write_editor(folder / "klein"))
        self.out = folder / "out"

    def config(self, systems=None, **options) -> EvalConfig:
        tasks = list(dict.fromkeys(case.task for case in self.cases))
        values = {"data": str(self.data), "tasks": tasks, "out": str(self.out), "concurrency": 4} | options
        values.setdefault("editing", EditingConfig(cache=None))
        return EvalConfig(systems=systems or {"direct": SystemConfig()}, **values)

    def edits(self, kind="evr", **options) -> SystemConfig:
        return SystemConfig(kind, self.klein, **options)

    def __call__(self, config: EvalConfig):
        """Run and report; what report.json holds."""
        folder = evaluate(config, build_model=lambda _: self.model, build_editor=lambda *_: self.editor)
        write_reports(folder, config, read_tasks(config))
        return json.loads((folder.path / "report.json").read_text())

    def records(self, system: str) -> dict:
        lines = (self.out / "records" / f"{system}.jsonl").read_text().splitlines()
        return {record["sample_id"]: record for record in map(json.loads, lines)}
