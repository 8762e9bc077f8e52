"""From Parquet rows to micro-batches: at which size pairs are trained on, read and decoded ahead of time.

`StepLoader` gives the micro-batches of a step; it runs in worker processes where `data.num_workers` says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from etchr.editor import geometry
from etchr.sample import EditSample, from_row
from etchr.sft import released
from etchr.sft.cache import TensorCache, image_key
from etchr.training.data import SampleTable, Size
from etchr.training.plan import Plan, share


@dataclass(frozen=True)
class Sizing:
    """How the two pictures of a pair are brought to size."""

    way: str  # native: both as at inference; released: as the released code
    max_pixels: int
    step: int = geometry.MULTIPLE_OF

    def __post_init__(self) -> None:
        if self.way == "native" and self.step**2 > self.max_pixels:
            raise ValueError(
                f"data.bucket_step={self.step} needs pictures of at least {self.step**2} pixels, and the area is "
                f"limited to {self.max_pixels}; choose a smaller step"
            )

    def sizes(self, width: int, height: int) -> tuple[Size, Size]:
        """(target, condition) sizes of a pair of `width` x `height` pictures."""
        if self.way == "released":
            target = released.target_size(width, height, self.max_pixels)
            return target, released.condition_size(*target)
        size = geometry.fit_size(
            width, height, max_pixels=self.max_pixels, multiple_of=self.step, min_side=max(self.step, geometry.MIN_SIDE)
        )
        return size, size

    def of_sample(self, sample: EditSample) -> tuple[Size, Size]:
        """As `sizes`; `ValueError` if the sample is no pair."""
        if sample.edit_image is None:
            raise ValueError(f"row {sample.id!r} has no edit_image to learn from")
        return self.sizes(*sample.image.size)

    def target(self, image: Image.Image) -> Image.Image:
        """The edit at its target size."""
        size = self.sizes(*image.size)[0]
        return released.cover(image, size) if self.way == "released" else _resized(image, size)

    def condition(self, image: Image.Image) -> Image.Image:
        """The source at its condition size."""
        target, condition = self.sizes(*image.size)
        if self.way == "released":  # two resizes in a row, as there
            return released.cover(released.cover(image, target), condition)
        return _resized(image, condition)


def _resized(image: Image.Image, size: Size) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


# --------------------------------------------------------------------------------------------------------- loading


@dataclass
class Picture:
    """One picture of a pair: its latent tokens where the cache has them, else its pixels."""

    key: str
    tokens: Tensor | None = None  # (N, C)
    pixels: Tensor | None = None  # (3, H, W) uint8


@dataclass
class MicroBatch:
    """Pairs of one size, read and decoded: lists have one entry per pair."""

    positions: list[int]  # in the step's global batch
    prompts: list[str]
    targets: list[Picture]
    conditions: list[Picture]
    sizes: tuple[Size, ...]  # (target, condition)
    counts: list[bool]  # False: stands in for a pair that could not be read, or keeps processes in step
    failures: list[str] = field(default_factory=list)  # one sentence per pair that could not be read


class StepLoader(torch.utils.data.Dataset[list[MicroBatch]]):
    """step -> the micro-batches of one process."""

    def __init__(
        self,
        data: SampleTable,
        plan: Plan,
        sizing: Sizing,
        cache: TensorCache,
        rank: int,
        num_processes: int,
        batch_size: int,
    ) -> None:
        self.data, self.plan, self.sizing, self.cache = data, plan, sizing, cache
        self.rank, self.num_processes, self.batch_size = rank, num_processes, batch_size

    def __getitem__(self, step: int) -> list[MicroBatch]:
        rows = self.plan.batch(step)
        buckets, costs = self.plan.buckets[rows].tolist(), self.plan.costs[rows].tolist()
        mine = share(buckets, costs, self.num_processes, self.batch_size)[self.rank]
        return [
            self.read([int(rows[p]) for p in positions], positions)
            if positions
            else self.read([int(rows[mine[0][0]])], mine[0][:1], count=False)
            for positions in mine
        ]

    def read(
        self, indices: Sequence[int], positions: Sequence[int], count: bool = True, cached: bool = True
    ) -> MicroBatch:
        """Pairs of one size by their numbers; a black pair that does not count stands in for one that cannot be read.

        With `bad_rows` stop that is a `ValueError` instead; in a worker it is left to who gets the batch's `failures`.
        Without `cached` all pixels are read, whatever the cache holds.
        """
        sizes = self.data.sizes[indices[0]]
        batch = MicroBatch(list(positions), [self.data.prompts[i] for i in indices], [], [], sizes, [])
        for index in indices:
            row = self.data.row(index)
            try:
                target, condition = self._pictures(row, sizes, cached)
            except ValueError as error:
                # From a worker, torch would hand on a traceback instead of the sentence.
                if self.data.bad_rows != "skip" and torch.utils.data.get_worker_info() is None:
                    raise self.data.refusal(error) from None
                if count:
                    batch.failures.append(str(error))
                target, condition = (Picture("", pixels=torch.zeros(3, h, w, dtype=torch.uint8)) for w, h in sizes)
            batch.counts.append(count and target.key != "")
            batch.targets.append(target)
            batch.conditions.append(condition)
        return batch

    def _pictures(self, row: dict[str, Any], sizes: tuple[Size, ...], cached: bool) -> tuple[Picture, Picture]:
        way = self.sizing.way
        target = Picture(image_key(row["edit_image"]["bytes"], sizes[0], f"target {way}"))
        via = f" via {sizes[0][0]}x{sizes[0][1]}" if way == "released" else ""  # it is resized twice there
        condition = Picture(image_key(row["image"]["bytes"], sizes[1], f"condition {way}{via}"))
        for picture in (target, condition):
            picture.tokens = self.cache.get(picture.key) if cached else None
        if target.tokens is None or condition.tokens is None:
            sample = from_row(row)
            assert sample.edit_image is not None  # checked with the headers
            target.pixels = _pixels(self.sizing.target(sample.edit_image))
            condition.pixels = _pixels(self.sizing.condition(sample.image))
        return target, condition


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
