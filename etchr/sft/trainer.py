"""The trainer of Stage I: LoRA on the transformer of a klein editor, everything else frozen.

What a step sees depends on (seed, step) alone, so a run that is killed ends as an unbroken one, and so do one process
and many. What is checked and built before the first step is in `setup.py`.
"""

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from etchr.checkpoint import Checkpoints, averaged, trainable
from etchr.editor.card import CARD_FILE
from etchr.editor.klein import KleinEditor
from etchr.flow.schedule import inference_mu
from etchr.run_folder import RunFolder
from etchr.runtime import Runtime, grad_norm
from etchr.seeds import hash_seed
from etchr.sft.data import MicroBatch, StepLoader
from etchr.sft.finish import write_adapter
from etchr.sft.journal import Journal
from etchr.sft.objective import draw, pair_noise, sft_loss
from etchr.sft.settings import SftConfig
from etchr.sft.setup import Inputs, Training, build, fingerprint, read_inputs
from etchr.training.base import base_dtype
from etchr.training.optim import lr_factor
from etchr.training.start import claim, run_folder

log = logging.getLogger(__name__)


def train(config: SftConfig) -> Path:
    """Run a training, or go on with the one in `config.out`; the folder of the finished adapter.

    Raises `ValueError` for what the options, the data or the base cannot do, before the base's weights are read where
    that can be known; `OSError` where the disk is full. Checkpoints written before stay whole.
    """
    autocast = base_dtype(config.model, config.device) == "bfloat16" and config.adapter.dtype == "float32"
    runtime = Runtime(config.device, autocast, config.threads)
    inputs = read_inputs(config, runtime)
    total = config.steps or max(int(config.epochs * inputs.plan.batches_per_epoch), 1)
    decides = fingerprint(config, inputs)
    with run_folder(runtime, config.out, inputs.base, decides) as folder:
        checkpoints = Checkpoints(folder.path / "checkpoints", config.keep_checkpoints)
        adapter = folder.path / "adapter"
        if total in checkpoints.steps() and (adapter / CARD_FILE).is_file():
            log.info("%s is finished", adapter)
        else:
            run = build(config, runtime, inputs)
            claim(runtime, folder, config, decides)
            _fit(config, runtime, inputs, run, checkpoints, folder, total)
            _finish(config, runtime, inputs, run, adapter, total)
        runtime.close()
    return adapter


def _fit(
    config: SftConfig,
    runtime: Runtime,
    inputs: Inputs,
    run: Training,
    checkpoints: Checkpoints,
    folder: RunFolder,
    total: int,
) -> None:
    """From the last checkpoint to the last step."""
    factor = lr_factor(config.optim, total, config.global_batch_size)
    start = max(checkpoints.steps(), default=0)
    if start:
        checkpoints.restore(start, run.model, run.optimizer, run.average)
        log.info("going on from step %d", start)
    journal = Journal(config, runtime, folder, run.editor, inputs.data, start, total)
    stream = _stream(run.loader, start, total, config.data.num_workers)
    run.model.train()
    bar = tqdm(range(start, total), "SFT", initial=start, total=total, unit="step", disable=not runtime.is_main)
    for step in bar:
        lr = config.optim.lr * factor(step)
        loss, norm, num_pairs = _step(config, runtime, run, next(stream), step, lr)
        done = step + 1
        journal.step(done, loss, norm, lr, run.loader.rows(step), num_pairs)
        bar.set_postfix(loss=f"{journal.last.get('loss', loss):.4f}", refresh=False)
        if run.validation is not None and (done % config.validation.every == 0 or done == total):
            _validate(run, runtime, journal, done)
        if done % config.save_every == 0 or done == total:
            begin = time.perf_counter()
            checkpoints.save(done, run.model, run.optimizer, run.average, runtime.is_main)
            journal.pause(time.perf_counter() - begin)
    run.measures = journal.last
    journal.close()


def _finish(config: SftConfig, runtime: Runtime, inputs: Inputs, run: Training, adapter: Path, total: int) -> None:
    """Write the adapter and its model card."""
    with averaged(run.model, run.average):
        weights = trainable(run.model)
    if runtime.is_main:
        write_adapter(adapter, config, run.editor, weights, inputs.router, inputs.data, total, run.measures)
        log.info("adapter: %s", adapter)
    runtime.wait()


def _step(
    config: SftConfig, runtime: Runtime, run: Training, batches: list[MicroBatch], step: int, lr: float
) -> tuple[float, float, float]:
    """One optimizer step; its loss over the whole global batch, the gradient norm, and the number of pairs in it."""
    num_pairs = _count(batches, config, runtime)
    draws = draw(config.flow, config.data.prompt_dropout, _mus(run.editor, run.loader, step), config.seed, step)
    torch.manual_seed(hash_seed(config.seed, step, -1 - runtime.rank))  # for the adapter's dropout

    # ----- gradient step
    total = 0.0
    for number, batch in enumerate(batches):
        pairs = run.encoder(batch, draws.dropped[batch.positions].tolist())
        noise = pair_noise(pairs.target.shape, batch.positions, config.seed, step)
        counts = torch.tensor(batch.counts, dtype=torch.float32, device=runtime.device)
        with runtime.accumulating(run.model, last=number == len(batches) - 1):
            with runtime.autocast():
                levels = draws.levels[batch.positions]
                losses = sft_loss(run.model, pairs, noise, levels, config.flow.released_rounding)
            loss = (losses * counts).sum() / num_pairs
            runtime.backward(loss * runtime.num_processes)  # processes average their gradients
        total += float(loss.detach())
    (total,) = runtime.sum(total)
    norm = grad_norm(run.parameters, config.optim.clip)
    if not math.isfinite(total + norm):
        raise ValueError(
            f"the loss is {total}, its gradient norm {norm} at step {step}; lower optim.lr, or set optim.clip"
        )
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    run.optimizer.step()
    run.optimizer.zero_grad()
    if run.average is not None:
        run.average.step(run.parameters)
    # -----
    return total, norm, num_pairs


def _stream(loader: StepLoader, start: int, total: int, num_workers: int) -> Iterator[list[MicroBatch]]:
    """The micro-batches of the steps from `start` on, read ahead by worker processes where there are any."""
    steps = range(start, total)
    return iter(torch.utils.data.DataLoader(loader, batch_size=None, sampler=steps, num_workers=num_workers))


def _mus(editor: KleinEditor, loader: StepLoader, step: int) -> Tensor:
    """The inference shift (G,) of every pair of a global batch."""
    side, steps = editor.pixel_side, editor.settings.num_inference_steps
    targets = [loader.data.sizes[row][0] for row in loader.rows(step)]
    return torch.tensor([inference_mu(editor.scheduler, (w // side) * (h // side), steps) for w, h in targets])


def _count(batches: list[MicroBatch], config: SftConfig, runtime: Runtime) -> float:
    """How many pairs of the global batch count; `ValueError` if an unreadable one is to stop the run."""
    failures = [failure for batch in batches for failure in batch.failures]
    if config.data.bad_rows == "stop":
        if failures:
            raise ValueError(f"{failures[0]}; data.bad_rows=skip leaves such rows out")
        return float(config.global_batch_size)
    for failure in failures:
        log.warning("skipped: %s", failure)
    (count,) = runtime.sum(float(sum(sum(batch.counts) for batch in batches)))
    return max(count, 1.0)


def _validate(run: Training, runtime: Runtime, journal: Journal, step: int) -> None:
    """Loss and pictures with the weights that would be saved now."""
    assert run.validation is not None
    begin = time.perf_counter()
    run.model.eval()
    with averaged(run.model, run.average), runtime.autocast():
        losses = run.validation.loss(run.model, runtime)
        page = run.validation.pictures(run.editor)
    run.model.train()
    journal.validation(step, losses, page, time.perf_counter() - begin)
