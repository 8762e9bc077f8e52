"""A run whose model falls silent after so many calls."""

import asyncio
from pathlib import Path

from evaluation.factory import read_tasks
from evaluation.report import write_reports
from evaluation.run import evaluate
from evaluation.settings import EvalConfig, SystemConfig
from tests.evaluation.fakes import MUMBLE, REJECT, Case, TableModel

CASES = [
    Case(task, str(i), source="\\boxed{7}" if i % 3 else "\\boxed{5}", verdict=(REJECT, MUMBLE)[i % 2])
    for task in ("maze", "jigsaw")
    for i in range(8)
]


class Stoppable(TableModel):
    """Replies `calls` times."""

    def __init__(self, log: Path, calls: int) -> None:
        super().__init__(CASES)
        self.log, self.calls = log, calls

    async def think(self, key: str) -> None:
        if len(self.asked) > self.calls:
            await asyncio.Event().wait()
        with self.log.open("a") as stream:
            stream.write(key + "\n")


def run(data: Path, out: Path, log: Path, calls: int) -> None:
    """Evaluate and report; each call leaves a line in `log`: the id of the sample that it was about."""
    systems = {"direct": SystemConfig(), "oracle": SystemConfig("oracle_edit")}
    config = EvalConfig(systems=systems, data=str(data), tasks=["maze", "jigsaw"], out=str(out), concurrency=3)
    folder = evaluate(config, build_model=lambda _: Stoppable(log, calls))
    write_reports(folder, config, read_tasks(config))
