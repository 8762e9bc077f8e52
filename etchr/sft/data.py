"""From Parquet rows to micro-batches: what is trained on, at which size, read and decoded ahead of time.

`PairData` looks at every row once at the start, headers only, so that a wrong row is known before anything is spent.
`StepLoader` then gives the micro-batches of a step; it runs in worker processes where `data.num_workers` says so.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from etchr.editor import geometry
from etchr.families import TASKS
from etchr.images import peek_image
from etchr.sample import EditSample, from_row
from etchr.sft import released
from etchr.sft.cache import TensorCache, image_key
from etchr.training.inputs import headers
from etchr.training.mixture import DataSet, open_sets, repeats
from etchr.training.plan import Plan, share

log = logging.getLogger(__name__)

Size = tuple[int, int]  # (width, height) in pixels


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


class PairData:
    """The training pairs of some data sets: prompts, tasks and sizes in memory, pictures read when needed."""

    def __init__(
        self,
        sets: Sequence[DataSet],
        prompt_of: Callable[[EditSample], str],
        sizing: Sizing,
        bad_rows: str = "stop",
    ) -> None:
        """Raises `ValueError` for data that are none, and for the first bad row unless `bad_rows` is skip."""
        tables = open_sets(sets)
        self.files, self.table = tables.files, tables.table
        self.sets, self.sizing, self.bad_rows = sets, sizing, bad_rows
        self.num_skipped = 0
        rows: list[int] = []
        self.prompts: list[str] = []
        self.tasks: list[str] = []
        self.families: list[str] = []
        self.sizes: list[tuple[Size, Size]] = []
        for number, row in enumerate(tqdm(headers(self.table), "check data", len(self.table), leave=False)):
            try:
                sample = from_row(row, peek_image)
                if sample.edit_image is None:
                    raise ValueError(f"row {sample.id!r} has no edit_image to learn from")
                prompt, sizes = prompt_of(sample), sizing.sizes(*sample.image.size)
            except ValueError as error:
                if bad_rows == "stop":
                    raise ValueError(f"{error}; data.bad_rows=skip leaves such rows out") from None
                self.num_skipped += 1
                log.warning("skipped: %s", error)
                continue
            rows.append(number)
            self.prompts.append(prompt)
            self.tasks.append(sample.task)
            self.families.append(sample.family)
            self.sizes.append(sizes)
        if not rows:
            raise ValueError(f"none of the {len(self.table)} rows in {', '.join(map(str, self.files[:3]))} can be used")
        self.row_numbers = np.array(rows)
        self.places = tables.places[self.row_numbers]

    def __len__(self) -> int:
        return len(self.row_numbers)

    def row(self, index: int) -> dict[str, Any]:
        """The raw Parquet row of pair `index`."""
        row: dict[str, Any] = self.table[int(self.row_numbers[index])]
        return row

    def buckets(self) -> np.ndarray:
        """A number per pair (R,); pairs of equal target and condition size have equal ones."""
        number: dict[tuple[Size, Size], int] = {}
        return np.array([number.setdefault(sizes, len(number)) for sizes in self.sizes])

    def plan(self, weights: dict[str, float], global_batch_size: int, seed: int, bucketing: bool = True) -> Plan:
        """The order in which the pairs are trained on; `ValueError` for weights of unknown tasks or too few pairs."""
        if unknown := sorted(set(weights) - set(self.tasks) - set(TASKS)):  # a preset's weights fit part of its data
            raise ValueError(f"data.weights names {unknown}; the data hold: {', '.join(sorted(set(self.tasks)))}")
        costs = np.array([tw * th + cw * ch for (tw, th), (cw, ch) in self.sizes])
        times = repeats(self.sets, self.places, self.families, seed)
        times *= [weights.get(task, 1.0) for task in self.tasks]
        plan = Plan(self.buckets(), costs, times, global_batch_size, seed, bucketing)
        if not plan.batches_per_epoch:
            raise ValueError(
                f"{int(times.sum())} training pairs are fewer than one global batch of {global_batch_size}; "
                "give more data or a smaller global_batch_size"
            )
        return plan


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
    sizes: tuple[Size, Size]  # (target, condition)
    counts: list[bool]  # False: stands in for a pair that could not be read, or keeps processes in step
    failures: list[str] = field(default_factory=list)  # one sentence per pair that could not be read


class StepLoader(torch.utils.data.Dataset[list[MicroBatch]]):
    """step -> the micro-batches of one process."""

    def __init__(
        self, data: PairData, plan: Plan, cache: TensorCache, rank: int, num_processes: int, batch_size: int
    ) -> None:
        self.data, self.plan, self.cache = data, plan, cache
        self.rank, self.num_processes, self.batch_size = rank, num_processes, batch_size
        self._epoch: tuple[int, np.ndarray] | None = None

    def rows(self, step: int) -> np.ndarray:
        """The pairs (G,) of the whole global batch."""
        epoch, index = divmod(step, self.plan.batches_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self.plan.epoch(epoch))
        rows: np.ndarray = self._epoch[1][index]
        return rows

    def __getitem__(self, step: int) -> list[MicroBatch]:
        rows = self.rows(step)
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
                if self.data.bad_rows == "stop" and torch.utils.data.get_worker_info() is None:
                    raise ValueError(f"{error}; data.bad_rows=skip leaves such rows out") from None
                if count:
                    batch.failures.append(str(error))
                target, condition = (Picture("", pixels=torch.zeros(3, h, w, dtype=torch.uint8)) for w, h in sizes)
            batch.counts.append(count and target.key != "")
            batch.targets.append(target)
            batch.conditions.append(condition)
        return batch

    def _pictures(self, row: dict[str, Any], sizes: tuple[Size, Size], cached: bool) -> tuple[Picture, Picture]:
        way = self.data.sizing.way
        target = Picture(image_key(row["edit_image"]["bytes"], sizes[0], f"target {way}"))
        via = f" via {sizes[0][0]}x{sizes[0][1]}" if way == "released" else ""  # it is resized twice there
        condition = Picture(image_key(row["image"]["bytes"], sizes[1], f"condition {way}{via}"))
        for picture in (target, condition):
            picture.tokens = self.cache.get(picture.key) if cached else None
        if target.tokens is None or condition.tokens is None:
            sample = from_row(row)
            assert sample.edit_image is not None  # checked with the headers
            target.pixels = _pixels(self.data.sizing.target(sample.edit_image))
            condition.pixels = _pixels(self.data.sizing.condition(sample.image))
        return target, condition


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
