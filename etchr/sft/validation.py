"""Evidence while a training runs: the loss on held-out pairs at fixed noise levels, and pictures to look at."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from etchr.editor import geometry
from etchr.editor.klein import KleinEditor
from etchr.flow.schedule import NoiseLevels
from etchr.runtime import Runtime
from etchr.sample import EditSample
from etchr.seeds import hash_seed
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

    def pictures(self, editor: KleinEditor, runtime: Runtime) -> Image.Image | None:
        """A sheet of source, edit and ground truth, one sample a row, edited as at inference.

        The processes share the work, and each gets the whole.
        """
        samples: dict[int, EditSample] = {}
        for index in even(self.data.tasks, self.config.num_pictures):
            with suppress(ValueError):  # an unreadable one has no weight in the loss either
                samples[index] = self.data.sample(index)
        edits: list[tuple[int, Image.Image]] = []
        sizes = {row: editor.fitted_size(sample.image) for row, sample in samples.items()}  # of the data's: to train at
        chunks = chunks_of_one_size(list(samples), sizes, editor.batch_size)
        for chunk, is_mine in in_step(chunks, runtime.rank, runtime.num_processes):
            sources = [geometry.fit(samples[row].image, max_pixels=editor.settings.max_pixels) for row in chunk]
            text = torch.cat([self.encoder.text([self.data.prompts[row]]) for row in chunk])
            made = editor.edit_batch(sources, text, [hash_seed(self.config.seed, row) for row in chunk])
            edits += zip(chunk, made, strict=True) if is_mine else ()
        found = dict(runtime.gather_objects(edits))
        rows = [
            (self.data.prompts[row], [sample.image, found[row], sample.edit_image or sample.image])
            for row, sample in samples.items()
        ]
        return sheet(["source", "edit", "ground truth"], rows) if rows else None
