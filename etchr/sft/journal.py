"""What a training says about itself while it runs: `metrics.jsonl`, pictures, wandb, and the machine it ran on."""

import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from etchr.editor.flops import StepFlops
from etchr.editor.klein import KleinEditor
from etchr.images import encode_png
from etchr.run_folder import JsonLines, RunFolder, write_atomically
from etchr.runtime import Runtime, Tracker, environment, matmul_rate
from etchr.sft.data import PairData
from etchr.sft.encode import pixel_side
from etchr.sft.settings import SftConfig


class Journal:
    """The main process writes; the others keep silent. Times leave validation and checkpoints out."""

    def __init__(
        self,
        config: SftConfig,
        runtime: Runtime,
        folder: RunFolder,
        editor: KleinEditor,
        data: PairData,
        start: int,
        total: int,
    ) -> None:
        self.config, self.runtime, self.data, self.total = config, runtime, data, total
        self.pictures = folder.path / "validation"
        self.last: dict[str, float] = {}  # the newest value of every measure
        rank = editor.transformer.peft_config["default"].r
        self._editor, self._flops = editor, StepFlops(dict(editor.transformer.config), rank)
        self._side = pixel_side(editor)
        self._pair_flops(0)  # the first count takes seconds, which belong to no step
        self._rate = matmul_rate(runtime.device, editor.dtype) * runtime.num_processes
        self._lines = JsonLines(folder.path / "metrics.jsonl")
        self._tracker: Tracker | None = None
        if runtime.is_main:
            kept = [line for line in self._lines if line["step"] <= start]  # later ones will be measured again
            self._lines.replace(kept)
            for line in kept:
                self.last |= line
            note: dict[str, Any] = {"options": sys.argv[1:], "num_processes": runtime.num_processes}
            note |= {"distribution": runtime.distribution, **environment(runtime.device)}
            note["matmul_tflops_per_process"] = round(self._rate / runtime.num_processes / 1e12, 4)
            write_atomically(folder.path / "environment.json", json.dumps(note, indent=2).encode() + b"\n")
            self._tracker = Tracker(config.wandb.mode, config.wandb.project, folder.path, _shareable(asdict(config)))
        self._begin()

    def _begin(self) -> None:
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._pairs = self._work = self._skipped = self._pause = 0.0
        self._since = time.perf_counter()

    def step(self, step: int, loss: float, norm: float, lr: float, rows: np.ndarray, num_counted: float) -> None:
        """Take note of a step; every `log_every` steps, and at the last, a line with their means."""
        self._losses.append(loss)
        self._norms.append(norm)
        self._pairs += num_counted
        self._skipped += len(rows) - num_counted
        self._work += sum(self._pair_flops(int(row)) for row in rows)
        if step % self.config.log_every and step != self.total:
            return
        seconds = time.perf_counter() - self._since - self._pause
        self.write(
            step,
            {
                "loss": _mean(self._losses),
                "grad_norm": _mean(self._norms),
                "lr": lr,
                "pairs_per_s": self._pairs / seconds,
                "seconds_per_step": seconds / len(self._losses),
                "mfu": self._work / seconds / self._rate,
                "peak_memory_gb": self.runtime.peak_memory_gb(),
                "num_skipped": self._skipped,
            },
        )
        self._begin()

    def _pair_flops(self, row: int) -> float:
        """Model FLOPs of a pair's forward and backward, without what checkpointing computes again."""
        target, condition = ((w // self._side) * (h // self._side) for w, h in self.data.sizes[row])
        return self._flops.per_pair(target, condition, self._editor.settings.max_sequence_length)

    def validation(self, step: int, losses: dict[str, float], page: Image.Image | None, seconds: float) -> None:
        """Take note of a validation that took `seconds`, which count to no step."""
        self._pause += seconds
        path = None
        if page is not None and self.runtime.is_main:
            self.pictures.mkdir(parents=True, exist_ok=True)
            path = self.pictures / f"step_{step:08d}.png"
            write_atomically(path, encode_png(page))
        self.write(step, losses, str(path) if path else None)

    def pause(self, seconds: float) -> None:
        """Seconds that were spent on something else than steps."""
        self._pause += seconds

    def write(self, step: int, values: dict[str, float], picture: str | None = None) -> None:
        """One line of metrics.jsonl."""
        self.last |= {"step": step, **values}
        if self.runtime.is_main:
            self._lines.append({"step": step, **{name: _short(value) for name, value in values.items()}})
            assert self._tracker is not None
            self._tracker.log(step, values, picture)

    def close(self) -> None:
        """Close the file and the tracker."""
        self._lines.close()
        if self._tracker is not None:
            self._tracker.close()


def _shareable(options: dict[str, Any]) -> dict[str, Any]:
    """Options without the places of files on this machine: of a path its last part is kept."""

    def share(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: share(part) for name, part in value.items()}
        if isinstance(value, list):
            return [share(part) for part in value]
        return Path(value).name if isinstance(value, str) and value.startswith(("/", "~", ".")) else value

    return share(options)


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)


def _short(value: float) -> float:
    """Six significant digits: enough to compare curves, short to read."""
    return float(f"{value:.6g}") if math.isfinite(value) else value
