"""The samples that a training reads: looked at once at the start, headers only, so that a wrong row is known early."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from etchr.families import TASKS
from etchr.images import peek_image
from etchr.router import Router
from etchr.run_folder import content_digest
from etchr.sample import EditSample, find_files, from_row, read_parquet
from etchr.seeds import hash_seed
from etchr.training.mixture import DataSet
from etchr.training.plan import Plan

log = logging.getLogger(__name__)

Size = tuple[int, int]  # (width, height) in pixels


class SampleTable:
    """The samples of some data sets: prompts, tasks and sizes in memory, pictures read when needed."""

    def __init__(
        self,
        sets: Sequence[DataSet],
        prompt_of: Callable[[EditSample], str],
        sizes_of: Callable[[EditSample], tuple[Size, ...]],
        bad_rows: str | None = None,
    ) -> None:
        """`sizes_of`: the sizes at which a sample's pictures are trained on; `ValueError` if it cannot be trained on.

        Raises `ValueError` for data sets that are none, and for the first bad row unless `bad_rows` is skip; with None
        there is no such option to name. The samples that `sizes_of` is given have headers in the place of pictures.
        """
        self.sets, self.bad_rows = sets, bad_rows
        self.files, tables, places = [], [], []
        for number, one in enumerate(sets):
            for file in find_files(one.paths, one.split):
                self.files.append(file)
                tables.append(read_parquet(file).table)
                places += [number] * len(tables[-1])
        self._table = datasets.concatenate_datasets(tables)
        rows: list[int] = []
        self.prompts: list[str] = []
        self.tasks: list[str] = []
        self.families: list[str] = []
        self.sizes: list[tuple[Size, ...]] = []
        for number, row in enumerate(tqdm(_headers(self._table), "check data", len(self._table), leave=False)):
            try:
                sample = from_row(row, peek_image)
                prompt, sizes = prompt_of(sample), sizes_of(sample)
            except ValueError as error:
                if bad_rows != "skip":
                    raise self.refusal(error) from None
                log.warning("skipped: %s", error)
                continue
            rows.append(number)
            self.prompts.append(prompt)
            self.tasks.append(sample.task)
            self.families.append(sample.family)
            self.sizes.append(sizes)
        if not rows:
            raise ValueError(f"none of the {len(places)} rows in {', '.join(map(str, self.files[:3]))} can be used")
        self.num_skipped = len(places) - len(rows)
        self._rows = rows
        self.places = np.array(places)[rows]  # (R,) which data set a sample belongs to

    def __len__(self) -> int:
        return len(self._rows)

    def refusal(self, error: object) -> ValueError:
        """What is said of a bad row, with the way out where there is one."""
        return ValueError(f"{error}; data.bad_rows=skip leaves such rows out" if self.bad_rows else str(error))

    def row(self, index: int) -> dict[str, Any]:
        """The raw Parquet row of a sample."""
        return self._table[self._rows[index]]

    def sample(self, index: int) -> EditSample:
        """A sample, decoded."""
        return from_row(self.row(index))

    def about(self, with_sets: bool) -> dict[str, Any]:
        """What of the data decides a training, as JSON: files count by content, and rows by their data set."""
        rows = np.bincount(self.places, minlength=len(self.sets)).tolist()
        sets = [{**asdict(one), "paths": None, "rows": count} for one, count in zip(self.sets, rows, strict=True)]
        return {"files": [content_digest(file) for file in self.files], "mixture": sets if with_sets else None}

    def repeats(self, weights: dict[str, float], seed: int) -> np.ndarray:
        """How often each sample (R,) comes in an epoch: its data set's weight times its task's, 0 for those over a cap.

        Which samples of a family are used depends on the seed, the data set's name and its rows of that family alone.
        """
        times = np.array([one.weight for one in self.sets], dtype=float)[self.places]
        family_of = np.asarray(self.families)
        for number, one in enumerate(self.sets):
            for family, cap in one.caps.items():
                rows = np.flatnonzero((self.places == number) & (family_of == family))
                drawn = np.random.default_rng(hash_seed(seed, "cap", one.name, family)).permutation(rows)
                times[drawn[cap:]] = 0
        return times * [weights.get(task, 1.0) for task in self.tasks]

    def plan(
        self,
        weights: dict[str, float],
        batch_size: int,
        seed: int,
        *,
        bucketing: bool = True,
        wrap: bool = False,
        name: str = "batch_size",
    ) -> Plan:
        """The order in which the samples are trained on, in batches of one size of all their pictures.

        Raises `ValueError` for weights of unknown tasks, or for fewer samples than a batch, whose option is `name`.
        """
        if unknown := sorted(set(weights) - set(self.tasks) - set(TASKS)):  # a preset's weights fit part of its data
            raise ValueError(f"data.weights names {unknown}; the data hold: {', '.join(sorted(set(self.tasks)))}")
        times = self.repeats(weights, seed)
        buckets = {sizes: number for number, sizes in enumerate(dict.fromkeys(self.sizes))}
        plan = Plan(
            np.array([buckets[sizes] for sizes in self.sizes]),
            np.array([sum(width * height for width, height in sizes) for sizes in self.sizes]),
            times,
            batch_size,
            seed,
            bucketing,
            wrap,
        )
        if not plan.batches_per_epoch:
            raise ValueError(
                f"{int(times.sum())} samples are fewer than {name}={batch_size}; give more data or a smaller number"
            )
        return plan


def prompt_maker(kind: str, router: Router) -> Callable[[EditSample], str]:
    """Sample to editing prompt: meta-prompt and question, or the explicit instruction kept in its meta."""

    def make(sample: EditSample) -> str:
        if kind == "question":
            return router.prompt(sample.edit_question, sample.family)
        instruction = sample.meta.get("instruction")
        if not isinstance(instruction, str) or not instruction.strip():
            raise ValueError(f"row {sample.id!r} has no instruction in its meta; use data.prompt=question")
        return instruction

    return make


def _headers(table: Any) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow table in order; each image's bytes as a stream over the mapped file, not a copy."""
    for batch in table.data.table.to_batches(max_chunksize=1024):
        columns = {name: batch.column(name) for name in batch.schema.names}
        for index in range(batch.num_rows):
            row = {name: column[index] for name, column in columns.items()}
            yield {name: _picture(value) if "image" in name else value.as_py() for name, value in row.items()}


def _picture(cell: Any) -> dict[str, Any] | None:
    if not cell.is_valid:
        return None
    data = cell["bytes"].as_buffer() if cell["bytes"].is_valid else None
    return {"bytes": pa.BufferReader(data) if data and data.size else None, "path": cell["path"].as_py()}
