"""The report as one HTML page: texts from data go in as JSON, which the page shows as text only.

Its own scripts may load what lies in `report/`, and it shows pictures that lie beside it; see `etchr.pages.fill`. That
holds for a page that is opened as a file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etchr.mllm.settings import ModelConfig
from etchr.pages import fill
from evaluation.factory import Task
from evaluation.report.sections import SHEET, Section, bars
from evaluation.settings import EvalConfig, SystemConfig
from evaluation.systems import SYSTEMS
from evaluation.tabular import Table, text_of

HERE = Path(__file__).parent
PROMPTS = {
    "question": "asked the question",
    "instruction": "told what to draw, by the sample's own instruction",
    "enhanced": "told what to draw, by the model",
}
ROUTES = {"rule": "family by a local rule", "model": "family by the model"}


def about(config: EvalConfig, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """What the page says of the run: who was compared, on what, with which models. Names only, no address."""
    models = {role: getattr(config, role) for role in ("reasoner", "verifier", "judge", "edit_judge")}
    return {
        "systems": [[name, _system(system)] for name, system in config.systems.items()],
        "tasks": [
            [
                name,
                task.benchmark.title,
                len(task),
                task.benchmark.expected,
                task.benchmark.rule,
                task.benchmark.licence,
            ]
            for name, task in tasks.items()
        ],
        "models": [[role, _model(model)] for role, model in models.items() if model is not None],
        "repeats": config.repeats,
        "temperature": config.temperature,
    }


def _system(system: SystemConfig) -> str:
    """A system in words."""
    words = [SYSTEMS[system.kind].about]
    if SYSTEMS[system.kind].has_editor:
        editor = system.remote.model if system.remote is not None else system.editor and Path(system.editor).name
        words.append(f"editor {editor}" if editor else "")
        words.append(f"with {'/'.join(Path(system.lora).parts[-2:])}" if system.lora else "")
        words.append(PROMPTS[system.prompt])
        words.append(ROUTES.get(system.route, ""))
    words.append(f"model {_model(system.model)}" if system.model is not None else "")
    return "; ".join(filter(None, words))


def _model(config: ModelConfig) -> str:
    return "the embedded reader" if config.kind == "reader" else config.model


def page(
    report: Mapping[str, Any],
    parts: Sequence[Section],
    run: Mapping[str, Any],
    gallery: Mapping[str, Any],
    picture: str | None = None,
) -> str:
    """The page; `run` is what `about` gives, `gallery` what `write_gallery` gives, `picture` the file of the sheet."""
    style, tables, details = (
        (HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "gallery.js")
    )
    data = {
        "report": report,
        "sections": [section._asdict() | {"tables": list(map(_cells, section.tables))} for section in parts],
        "bars": bars(report),
        "run": run,
        "gallery": gallery,
        "sheet": picture and {"file": picture, "title": SHEET},
    }
    title = " / ".join(report["systems"])
    return fill(HERE / "template.html", title, style, [tables, details], images="'self'", data=data)


def _cells(table: Table) -> dict[str, Any]:
    return {"head": table.head, "rows": [list(map(text_of, row)) for row in table.rows]}
