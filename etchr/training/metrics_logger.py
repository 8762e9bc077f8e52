"""What a training says about itself while it runs: `metrics.jsonl`, pictures, wandb, and the machine it ran on."""

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from etchr.images import encode_png
from etchr.jsonl import JsonLines
from etchr.run_folder import write_atomically
from etchr.training.hardware import environment
from etchr.training.run import Run
from etchr.training.tracker import Tracker


class MetricsLogger:
    """The main process writes; the others keep silent. What was written after the step `start` is measured again."""

    def __init__(self, run: Run, start: int, note: dict[str, Any] | None = None) -> None:
        """`note` joins hardware and versions in environment.json; the options go to wandb, without places of files."""
        folder, runtime, wandb = run.folder, run.runtime, run.config.wandb
        self.is_main = runtime.is_main
        self.last: dict[str, float] = {}  # the newest value of every measure
        self.kept: list[dict[str, Any]] = []  # the lines of a run that goes on
        self.folder = folder
        self._pictures = folder / "validation"
        self._lines = JsonLines(folder / "metrics.jsonl")
        self._tracker: Tracker | None = None
        if runtime.is_main:
            self.kept = [line for line in self._lines if _step(line, self._lines.path) <= start]
            self._lines.replace(self.kept)
            for line in self.kept:
                self.last |= line
            about = {"options": sys.argv[1:], "num_processes": runtime.num_processes}
            about |= {"distribution": runtime.distribution, **environment(runtime.device), **(note or {})}
            write_atomically(folder / "environment.json", json.dumps(about, indent=2).encode() + b"\n")
            self._tracker = Tracker(wandb.mode, wandb.project, folder, _shareable(asdict(run.config)))

    def write(self, step: int, values: dict[str, float], page: Image.Image | None = None, name: str = "") -> None:
        """One line of metrics.jsonl, and a sheet of pictures `validation/[name_]step_*.png`."""
        self.last |= {"step": step, **values}
        if not self.is_main:
            return
        path = None
        if page is not None:
            self._pictures.mkdir(parents=True, exist_ok=True)
            path = self._pictures / f"{name and name + '_'}step_{step:08d}.png"
            write_atomically(path, encode_png(page))
        self._lines.append({"step": step, **{key: _short(value) for key, value in values.items()}})
        assert self._tracker is not None
        self._tracker.log(step, values, str(path) if path else None)

    def close(self) -> None:
        """Close the file and the tracker."""
        self._lines.close()
        if self._tracker is not None:
            self._tracker.close()


def _step(line: dict[str, Any], path: Path) -> int:
    step = line.get("step")
    if not isinstance(step, int):
        raise ValueError(f"{path} holds a damaged line ({json.dumps(line)[:40]}); remove that line and start again")
    return step


def _shareable(options: dict[str, Any]) -> dict[str, Any]:
    """Options without the places of servers and of files on this machine: of a path its last part is kept."""

    def share(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: share(part) for name, part in value.items() if name not in ("base_urls", "extra_body")}
        if isinstance(value, list):
            return [share(part) for part in value]
        return Path(value).name if isinstance(value, str) and value.startswith(("/", "~", ".")) else value

    return share(options)


def _short(value: float) -> float:
    """Six significant digits: enough to compare curves, short to read."""
    return float(f"{value:.6g}") if math.isfinite(value) else value
