"""What Stage I says about itself while it runs: loss, speed, utilisation."""

import time

import numpy as np
from PIL import Image

from etchr.editor.flops import StepFlops
from etchr.editor.klein import KleinEditor
from etchr.training.hardware import matmul_rate
from etchr.training.metrics_logger import MetricsLogger
from etchr.training.run import Run


class SftLogger(MetricsLogger):
    """The lines of Stage I. Times leave validation and checkpoints out."""

    def __init__(self, run: Run, editor: KleinEditor, start: int) -> None:
        self.config, self.runtime, self.data, self.total = run.config, run.runtime, run.inputs.data, run.inputs.total
        rank = editor.transformer.peft_config["default"].r
        self._editor, self._flops = editor, StepFlops(dict(editor.transformer.config), rank)
        self._side = editor.pixel_side
        self._pair_flops(0)  # the first count takes seconds, which belong to no step
        rate = matmul_rate(self.runtime.device, editor.dtype)
        self._rate = rate * self.runtime.num_processes
        super().__init__(run, start, {"matmul_tflops_per_process": round(rate / 1e12, 4)})
        self._begin()

    def _begin(self) -> None:
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._pairs = self._work = self._skipped = self._pause = 0.0
        self._since = time.perf_counter()

    def step(self, step: int, loss: float, norm: float, lr: float, rows: np.ndarray, num_counted: float) -> None:
        """Take note of a step; every `log_every` steps, at a checkpoint and at the last, a line with their means.

        A run that goes on from a checkpoint so averages the same steps as one that was never stopped.
        """
        self._losses.append(loss)
        self._norms.append(norm)
        self._pairs += num_counted
        self._skipped += len(rows) - num_counted
        self._work += sum(self._pair_flops(int(row)) for row in rows)
        if step % self.config.log_every and step % self.config.save_every and step != self.total:
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
        self.write(step, losses, page)

    def pause(self, seconds: float) -> None:
        """Seconds that were spent on something else than steps."""
        self._pause += seconds


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)
