"""Evidence while a training runs: the loss on held-out pairs at fixed noise levels, and pictures to look at."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from etchr.editor import geometry
from etchr.editor.klein import KleinEditor
from etchr.flow.schedule import NoiseLevels
from etchr.runtime import Runtime
from etchr.sample import EditSample
from etchr.sft.data import StepLoader
from etchr.sft.encode import PairEncoder
from etchr.sft.objective import pair_noise, sft_loss
from etchr.sft.settings import SftValidationConfig
from etchr.training.data import SampleTable
from etchr.training.pictures import even, sheet
from etchr.training.plan import chunks_of_one_size, in_step

log = logging.getLogger(__name__)


@dataclass
class SftValidation:
    """Held-out pairs and how they are looked at; the same at every call."""

    config: SftValidationConfig
    data: SampleTable
    loader: StepLoader
    encoder: PairEncoder
    batch_size: int

    @property
    def indices(self) -> list[int]:
        """The pairs that the loss is measured on."""
        return even(self.data.tasks, self.config.num_samples)

    @torch.no_grad()
    def loss(self, model: Any, runtime: Runtime) -> dict[str, float]:
        """Mean velocity error at every sigma of the options and over all of them, unweighted.

        The processes share the work, and each gets the whole.
        """
        chunks = chunks_of_one_size(self.indices, self.data.sizes, self.batch_size)
        sums = [0.0] * len(self.config.sigmas)
        count = 0.0
        for chunk, is_mine in in_step(chunks, runtime.rank, runtime.num_processes):
            batch = self.loader.read(chunk, chunk)
            for failure in batch.failures:
                log.warning("left out of the validation: %s", failure)
            counts = torch.tensor(batch.counts, dtype=torch.float32) * is_mine
            pairs = self.encoder(batch)
            noise = pair_noise(pairs.target.shape, batch.positions, self.config.seed, 0)
            for index, sigma in enumerate(self.config.sigmas):
                level = torch.full((len(counts),), sigma)
                losses = sft_loss(model, pairs, noise, NoiseLevels(level, level, torch.ones_like(level)))
                sums[index] += float((losses.cpu() * counts).sum())
            count += float(counts.sum())
        *sums, count = runtime.sum(*sums, count)
        sigmas = self.config.sigmas
        means = {f"val_loss_{sigma:g}": total / max(count, 1) for sigma, total in zip(sigmas, sums, strict=True)}
        return {"val_loss": sum(means.values()) / len(means), **means} if means else {}

    def pictures(self, editor: KleinEditor) -> Image.Image | None:
        """A sheet of source, edit and ground truth, one sample a row, edited as at inference."""
        indices = even(self.data.tasks, self.config.num_pictures)
        samples: list[EditSample] = []
        prompts: list[str] = []
        for index in indices:
            try:
                samples.append(self.data.sample(index))
            except ValueError:  # has no weight in the loss either
                continue
            prompts.append(self.data.prompts[index])
        if not samples:
            return None
        edits: list[
            Image.Image
        ] = []  # one by one: a picture of 9B with guidance fills what a training step leaves free
        for number, (sample, prompt) in enumerate(zip(samples, prompts, strict=True)):
            source = geometry.fit(sample.image, max_pixels=editor.settings.max_pixels)
            edits += editor.edit_batch([source], self.encoder.text([prompt]), [self.config.seed + number])
        rows = [
            (prompt, [sample.image, edit, sample.edit_image or sample.image])
            for sample, prompt, edit in zip(samples, prompts, edits, strict=True)
        ]
        return sheet(["source", "edit", "ground truth"], rows)
