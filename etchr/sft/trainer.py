"""The trainer of Stage I: LoRA on the transformer of a klein editor, everything else frozen.

What a step sees depends on (seed, step) alone, so a run that is killed ends as an unbroken one, and so do one process
and many.
"""

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from etchr.flow.schedule import inference_mu
from etchr.runtime import Runtime, grad_norm
from etchr.seeds import hash_seed
from etchr.sft.data import MicroBatch, Sizing, StepLoader
from etchr.sft.encode import PairEncoder, open_caches
from etchr.sft.inputs import read_inputs
from etchr.sft.logger import SftLogger
from etchr.sft.objective import draw, pair_noise, sft_loss
from etchr.sft.settings import SftConfig
from etchr.sft.validation import SftValidation
from etchr.training.adapter import write_adapter
from etchr.training.optim import lr_factor
from etchr.training.run import Run, open_run
from etchr.training.state import TrainState, build_state

log = logging.getLogger(__name__)


def train(config: SftConfig) -> Path:
    """Run a training, or go on with the one in `config.out`; the folder of the finished adapter.

    Raises `ValueError` for what the options, the data or the base cannot do, before the base's weights are read where
    that can be known; `OSError` where the disk is full. Checkpoints written before stay whole.
    """
    runtime = Runtime(config.device, config.model.dtype, config.adapter.needs_autocast, config.threads)
    inputs, sizing = read_inputs(config, runtime)
    with open_run(config, runtime, inputs) as run:
        if not run.is_finished():
            state = build_state(config, runtime, inputs.base)
            trainer = SftTrainer(config, run, state, sizing)
            trainer.fit()
            trainer.write()
    return run.adapter


class SftTrainer:
    """The loop of a run."""

    def __init__(self, config: SftConfig, run: Run, state: TrainState, sizing: Sizing) -> None:
        """Opens the caches of what is encoded, and fills them where the options say so."""
        self.config, self.run, self.state, self.runtime = config, run, state, run.runtime
        inputs, runtime, data = run.inputs, run.runtime, config.data
        self.lr_factor = lr_factor(config.optim, inputs.total, config.global_batch_size)
        with runtime.main_first():
            latents, texts = open_caches(data.cache, data.cache_dir, state.editor, config.flow.released_rounding)
        self.encoder = PairEncoder(state.editor, latents, texts, config.flow.released_rounding)
        place = runtime.rank, runtime.num_processes
        self.loader = StepLoader(inputs.data, inputs.plan, sizing, latents, *place, config.batch_size)
        self.validation: SftValidation | None = None
        if inputs.held_out is not None:
            reader = StepLoader(inputs.held_out, inputs.plan, sizing, latents, 0, 1, config.batch_size)
            self.validation = SftValidation(config.validation, inputs.held_out, reader, self.encoder, config.batch_size)
        if data.precompute:
            self._precompute()

    def _precompute(self) -> None:
        """Fill the caches, then free the text encoder's memory."""
        runtime = self.runtime
        used = np.flatnonzero(self.run.inputs.plan.repeats).tolist()  # none of those over a cap
        if self.config.data.cache == "disk":  # in memory each process needs all of it
            used = used[runtime.rank :: runtime.num_processes]
        self.encoder.fill(self.loader, used, runtime.is_main)
        if self.validation is not None:
            self.encoder.fill(self.validation.loader, self.validation.indices, runtime.is_main)
        self.encoder.text([""])
        self.state.editor.text_encoder.to("cpu")
        runtime.wait()

    def fit(self) -> None:
        """From the last checkpoint to the last step."""
        config, run, state, total = self.config, self.run, self.state, self.run.inputs.total
        start = run.begin(state)
        self.journal = SftLogger(run, state.editor, start)
        stream = self._stream(range(start, total))
        state.model.train()
        show = self.runtime.is_main
        bar = tqdm(range(start, total), "SFT", initial=start, total=total, unit="step", disable=not show)
        for step in bar:
            lr = config.optim.lr * self.lr_factor(step)
            loss, norm, num_pairs = self.step(next(stream), step, lr)
            done = step + 1
            self.journal.step(done, loss, norm, lr, run.inputs.plan.batch(step), num_pairs)
            bar.set_postfix(loss=f"{self.journal.last.get('loss', loss):.4f}", refresh=False)
            if self.validation is not None and (done % config.validation.every == 0 or done == total):
                self._validate(self.validation, done)
            if done % config.save_every == 0 or done == total:
                begin = time.perf_counter()
                run.save(done, state)
                self.journal.pause(time.perf_counter() - begin)
        self.journal.close()

    def step(self, batches: list[MicroBatch], step: int, lr: float) -> tuple[float, float, float]:
        """One optimizer step; its loss over the whole global batch, the gradient norm, and the number of its pairs."""
        config, runtime, model = self.config, self.runtime, self.state.model
        num_pairs = self._count(batches)
        draws = draw(config.flow, config.data.prompt_dropout, self._mus(step), config.seed, step)
        torch.manual_seed(hash_seed(config.seed, step, -1 - runtime.rank))  # for the adapter's dropout

        # ----- gradient step
        total = 0.0
        for number, batch in enumerate(batches):
            pairs = self.encoder(batch, draws.dropped[batch.positions].tolist())
            noise = pair_noise(pairs.target.shape, batch.positions, config.seed, step)
            counts = torch.tensor(batch.counts, dtype=torch.float32, device=runtime.device)
            with runtime.accumulating(model, last=number == len(batches) - 1):
                with runtime.autocast():
                    levels = draws.levels[batch.positions]
                    losses = sft_loss(model, pairs, noise, levels, config.flow.released_rounding)
                loss = (losses * counts).sum() / num_pairs
                runtime.backward(loss * runtime.num_processes)  # processes average their gradients
            total += float(loss.detach())
        (total,) = runtime.sum(total)
        norm = grad_norm(self.state.parameters, config.optim.clip)
        if not math.isfinite(total + norm):
            raise ValueError(
                f"the loss is {total}, its gradient norm {norm} at step {step}; lower optim.lr, or set optim.clip"
            )
        self.state.update(lr)
        # -----
        return total, norm, num_pairs

    def _stream(self, steps: range) -> Iterator[list[MicroBatch]]:
        """The micro-batches of the steps, read ahead by worker processes where there are any."""
        workers = self.config.data.num_workers
        return iter(torch.utils.data.DataLoader(self.loader, batch_size=None, sampler=steps, num_workers=workers))

    def _mus(self, step: int) -> Tensor:
        """The inference shift (G,) of every pair of a global batch."""
        editor, inputs = self.state.editor, self.run.inputs
        side, steps = editor.pixel_side, editor.settings.num_inference_steps
        targets = [inputs.data.sizes[row][0] for row in inputs.plan.batch(step)]
        return torch.tensor([inference_mu(editor.scheduler, (w // side) * (h // side), steps) for w, h in targets])

    def _count(self, batches: list[MicroBatch]) -> float:
        """How many pairs of the global batch count; `ValueError` if an unreadable one is to stop the run."""
        failures = [failure for batch in batches for failure in batch.failures]
        if self.config.data.bad_rows == "stop":
            if failures:
                raise self.run.inputs.data.refusal(failures[0])
            return float(self.config.global_batch_size)
        for failure in failures:
            log.warning("skipped: %s", failure)
        (count,) = self.runtime.sum(float(sum(sum(batch.counts) for batch in batches)))
        return max(count, 1.0)

    def _validate(self, validation: SftValidation, step: int) -> None:
        """Loss and pictures with the weights that would be saved now."""
        begin, state = time.perf_counter(), self.state
        state.model.eval()
        with state.averaged(), self.runtime.autocast():
            losses = validation.loss(state.model, self.runtime)
            page = validation.pictures(state.editor, self.runtime)
        state.model.train()
        self.journal.validation(step, losses, page, time.perf_counter() - begin)

    def write(self) -> None:
        """Write the adapter and its model card."""
        config, run, measures = self.config, self.run, self.journal.last
        weights = self.state.averaged_weights()
        if self.runtime.is_main:
            total = run.inputs.total
            settings: dict[str, Any] = {
                "global batch": config.global_batch_size,
                "warm-up steps": config.optim.warmup_steps,
                "gradient clipping": config.optim.clip,
                "weight average": config.optim.ema,
                "noise levels": config.flow.draw,
                "prompt dropout": config.data.prompt_dropout,
                "geometry": config.data.geometry,
                "adapter dtype": config.adapter.dtype,
            }
            write_adapter(
                run.adapter,
                run,
                self.state,
                weights,
                stage="SFT",
                steps=total,
                num_samples=total * config.global_batch_size,
                settings=settings,
                metrics={name: measures[name] for name in ("loss", "val_loss") if name in measures},
            )
            log.info("adapter: %s", run.adapter)
        self.runtime.wait()
