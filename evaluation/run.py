"""Run an evaluation: every system over every sample, edits and model calls overlapping, records as they finish.

Systems that share an editor run together, so that the editor does not idle while the last answers of one system come
in; one editor is in memory at a time. A sample waits for the editor or for a model, never for other samples: model
calls are bounded by the model's `max_concurrency`, edits by the batcher's room, samples in flight by the sum of both
and by the pixels of their pictures together.
Under `accelerate launch` every process takes its share of the samples.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from etchr.concurrent import Room, for_each
from etchr.editor.batching import LOOKAHEAD
from etchr.editor.protocol import Editor
from etchr.mllm.answers import ground_truth
from etchr.mllm.journal import JournaledModel
from etchr.mllm.judge import Judge
from etchr.mllm.protocol import MLLM, Sampling, opened
from etchr.mllm.settings import ModelConfig, build_model, model_fingerprint
from etchr.router import Router
from etchr.sample import EditSample
from evaluation import factory
from evaluation.factory import Task
from evaluation.recording import Recorder
from evaluation.records import EvalFolder, Record, RecordFile, is_whole
from evaluation.settings import EditingConfig, EvalConfig, SystemConfig
from evaluation.shards import Shard, this_shard
from evaluation.store import EditStore
from evaluation.systems import SYSTEMS, run_system
from evaluation.systems.base import Models, Setup, noise_of
from evaluation.systems.prompting import edit_prompt

HOPELESS = 20  # unscored samples without a single scored one, after which a system is given up

BuildModel = Callable[[ModelConfig], MLLM]
BuildEditor = Callable[[SystemConfig, EditingConfig], Editor]


def evaluate(
    config: EvalConfig,
    build_model: BuildModel = build_model,
    build_editor: BuildEditor = factory.build_editor,
    shard: Shard | None = None,
) -> EvalFolder:
    """Run what is not yet recorded in `config.out`; the run folder with complete records.

    Everything that can be wrong with the options is checked before a model is loaded. Raises `ValueError` for bad
    options and `OSError` when records cannot be written; what was recorded before stays valid.
    """
    shard = shard or this_shard()
    tasks = factory.read_tasks(config)
    checked = check(config, tasks)
    folder = EvalFolder(config.out)
    with folder.locked() if shard.is_main else nullcontext():  # one lock for all processes
        if shard.is_main:
            folder.claim(factory.fingerprint(config, tasks))
        shard.barrier()
        run = _Run(config, tasks, checked, folder, shard, build_model, build_editor)
        asyncio.run(run.all_systems())
        shard.barrier()
    return folder


class Checked(NamedTuple):
    """What is known of a sample from its headers."""

    digest: str
    noise: str  # samples of one noise, such as a question with its options turned, share their edits
    pixels: int  # of all its pictures


def check(config: EvalConfig, tasks: dict[str, Task]) -> dict[str, Checked]:
    """What is known of every sample, by its id; `ValueError` if a system cannot run on one. No pixel is decoded."""
    for name, system in config.systems.items():
        EvalFolder(config.out).records(name)  # refuses names that are no file names
        if system.editor is not None:
            factory.check_editor(system)
    routers = {name: factory.router_of(config, system) for name, system in config.systems.items()}
    checked: dict[str, Checked] = {}
    for name, task in tasks.items():
        if task.benchmark.needs_judge and config.judge is None:
            raise ValueError(f"{task.benchmark.title} is graded by a model: set judge.kind=http, or judge.kind=reader")
        for index in tqdm(range(len(task)), desc=f"check {name}", unit="sample", leave=False):
            sample = task.samples.peek(index)
            _check_sample(config, sample, routers)
            pictures = (sample.image, sample.edit_image, *sample.more_images)
            pixels = sum(math.prod(picture.size) for picture in pictures if picture is not None)
            checked[sample.id] = Checked(factory.sample_digest(sample), noise_of(sample), pixels)
    return checked


def _check_sample(config: EvalConfig, sample: EditSample, routers: Mapping[str, Router]) -> None:
    ground_truth(sample)
    for name, system in config.systems.items():
        drawn = system.editor is not None or system.remote is not None
        if drawn and system.prompt != "enhanced" and (system.route == "label" or system.prompt == "instruction"):
            edit_prompt(system, sample, routers[name])
        if SYSTEMS[system.kind].needs_truth and sample.edit_image is None:
            raise ValueError(f"system {name} needs ground-truth edits, sample {sample.id!r} has none")


@dataclass(frozen=True)
class EvalJob:
    """One sample to be run through one system, or a record of that which still wants its edit judged."""

    system: str
    task: Task
    index: int
    repeat: int
    unjudged: Record | None = None


class _Run:
    """What the jobs of a run share."""

    def __init__(
        self,
        config: EvalConfig,
        tasks: dict[str, Task],
        checked: dict[str, Checked],
        folder: EvalFolder,
        shard: Shard,
        build_model: BuildModel,
        build_editor: BuildEditor,
    ) -> None:
        self.config, self.tasks, self.checked = config, tasks, checked
        self.folder, self.shard = folder, shard
        self.room = Room(config.pixels_in_flight)
        self._build_model, self._build_editor = build_model, build_editor
        self.models: dict[str, JournaledModel] = {}  # by role
        self.own_models: dict[str, JournaledModel] = {}  # by system, of those that have one of their own

    async def all_systems(self) -> None:
        """Run the jobs that are left, one editor after the other."""
        async with AsyncExitStack() as stack:
            journal = self.folder.journal(self.shard.rank)
            stack.callback(journal.close)
            opened_models: dict[str, JournaledModel] = {}

            async def ready(config: ModelConfig) -> JournaledModel:
                identity = model_fingerprint(config)
                place = str((identity, config.base_urls))
                if place not in opened_models:  # roles that name one model, at one place, share its connections
                    model = await stack.enter_async_context(opened(self._build_model(config)))
                    opened_models[place] = JournaledModel(model, identity, journal)
                return opened_models[place]

            self.models = {role: await ready(config) for role, config in self._roles().items()}
            own = {name: system.model for name, system in self.config.systems.items() if system.model is not None}
            self.own_models = {name: await ready(config) for name, config in own.items()}
            config = self.config
            seed, judge = config.editing.seed, self.models.get("judge")
            self.recorder = Recorder(
                self.folder,
                {key: known.digest for key, known in self.checked.items()},
                None if judge is None else Judge(judge, config.judge_max_tokens, seed, "judge_max_tokens"),
                self.models.get("edit_judge"),
                seed,
                config.max_tokens,
            )
            for names in by_editor(self.config.systems):
                jobs = list(self._left(names))
                if jobs:
                    await self._run_group(names, jobs)
                elif self.shard.is_main:
                    tqdm.write(f"{', '.join(names)}: all recorded")

    def _roles(self) -> dict[str, ModelConfig]:
        config = self.config
        roles = {"reasoner": config.reasoner, "verifier": config.verifier or config.reasoner}
        return roles | {name: role for name in ("judge", "edit_judge") if (role := getattr(config, name)) is not None}

    def _left(self, names: Iterable[str]) -> Iterator[EvalJob]:
        """The jobs of this process that are not recorded; `ValueError` if a recorded sample has changed since.

        What shares an edit or a reply stays in one process: the samples of one noise, all systems and repeats of them.
        """
        numbers = {noise: number for number, noise in enumerate(dict.fromkeys(c.noise for c in self.checked.values()))}
        for name in names:
            done = self.folder.records(name).read()
            for repeat in range(self.config.repeats):
                for task in self.tasks.values():
                    for index in range(len(task)):
                        sample_id = task.samples.ids[index]
                        record = done.get((sample_id, repeat))
                        if record is not None and record["sample"] != self.checked[sample_id].digest:
                            raise ValueError(
                                f"sample {sample_id!r} of {task.benchmark.name} is not the one that {self.folder.path} "
                                "has a record of; choose another out=FOLDER or remove that one"
                            )
                        if self.shard.takes(numbers[self.checked[sample_id].noise]) and not is_whole(record):
                            unjudged = None if record is None or record["unscored"] is not None else record
                            yield EvalJob(name, task, index, repeat, unjudged)

    async def _run_group(self, names: list[str], jobs: list[EvalJob]) -> None:
        """Run jobs of systems with one editor, the first error stops the rest."""
        config = self.config
        async with AsyncExitStack() as stack:
            edits = self._edits(config.systems[names[0]])
            if edits is not None:
                await stack.enter_async_context(edits)
            setups = {name: self._setup(name, edits) for name in names}
            files = {name: self.folder.records(name, self.shard.rank) for name in names}
            for file in files.values():
                stack.callback(file.close)
            workers = config.concurrency
            if edits is not None:
                workers += LOOKAHEAD * edits.batch_size * edits.workers
            total = sum(map(len, self.tasks.values())) * config.repeats * len(names)
            done = total - len(jobs) if self.shard.num_shards == 1 else 0
            bar = stack.enter_context(
                tqdm(total=done + len(jobs), initial=done, unit="sample", disable=self.shard.quiet)
            )
            hopeful = [name for name in names if self._has_scored(name)]
            all_jobs = Counter(job.system for job in jobs) if self.shard.num_shards == 1 else {}
            progress = _Progress(bar, all_jobs, hopeful)

            async def run(job: EvalJob) -> None:
                await self._run_job(job, setups[job.system], files[job.system], progress)

            await for_each(run, jobs, workers)

    async def _run_job(self, job: EvalJob, setup: Setup, file: RecordFile, progress: "_Progress") -> None:
        async with self.room.taken(self.checked[job.task.samples.ids[job.index]].pixels):
            sample = await asyncio.to_thread(job.task.samples.__getitem__, job.index)
            if job.unjudged is not None:
                record = await self.recorder.judge_again(job.unjudged, sample)
            else:
                trace = await run_system(_repeated(setup, job.repeat), sample)
                record = await self.recorder.record(job.system, job.task.benchmark, sample, job.repeat, trace)
        file.append(record)
        progress.note(job.system, record)

    def _has_scored(self, name: str) -> bool:
        """Whether a sample of a system has ever been scored here."""
        return any(record["unscored"] is None for record in self.folder.records(name).read().values())

    def _setup(self, name: str, edits: EditStore | None) -> Setup:
        config = self.config
        system, router = config.systems[name], factory.router_of(config, config.systems[name])
        reasoner: MLLM = self.own_models.get(name, self.models["reasoner"])
        verifier = self.own_models.get(name) if config.verifier is None else None
        sampling = Sampling(config.temperature, config.max_tokens, config.editing.seed)
        return Setup(
            system,
            Models(reasoner, verifier or self.models["verifier"], router, sampling, config.editing.seed),
            edits,
        )

    def _edits(self, system: SystemConfig) -> EditStore | None:
        editing = self.config.editing
        if system.editor is None and system.remote is None:
            return None
        remote = system.remote is not None
        device = factory.local_device() if editing.cache and not remote else "cpu"
        return EditStore(
            factory.kept_identity(system, editing, device),
            lambda: self._build_editor(system, editing),
            Path(editing.cache) if editing.cache else None,
            batch_size=1 if remote else editing.batch_size,
            workers=system.remote.max_concurrency if system.remote is not None else 1,
        )


def _repeated(setup: Setup, repeat: int) -> Setup:
    """The setup of a sample's `repeat`-th run: other noise and, at a temperature, another sampling seed."""
    if not repeat:
        return setup
    models, sampling = setup.models, setup.models.sampling
    if sampling.temperature > 0 and sampling.seed is not None:
        models = replace(models, sampling=replace(sampling, seed=sampling.seed + 1000 * repeat))
    return replace(setup, models=models, repeat=repeat)


def by_editor(systems: dict[str, SystemConfig]) -> list[list[str]]:
    """Names of the systems that share an editor, in the order in which editors are first named."""
    groups: dict[str, list[str]] = {}
    for name, system in systems.items():
        groups.setdefault(str((system.editor, system.lora, system.remote)), []).append(name)
    return list(groups.values())


class _Progress:
    """The bar of a group: how many are right so far; and when to give a system up."""

    def __init__(self, bar: Any, jobs: Mapping[str, int], hopeful: Iterable[str] = ()) -> None:
        """`jobs` counts those of each system, where there are no more; of `hopeful` ones samples were scored before."""
        self.bar, self.jobs, self.hopeful = bar, jobs, set(hopeful)
        self.right: dict[str, int] = {}
        self.scored: dict[str, int] = {}
        self.failed: dict[str, int] = {}

    def note(self, system: str, record: Record) -> None:
        """Take a record in; `ValueError` if none of a system's first `HOPELESS`, or of all it has, could be scored."""
        right, scored = bool(record["correct"]), record["correct"] is not None
        for counts, more in ((self.right, right), (self.scored, scored), (self.failed, not scored)):
            counts[system] = counts.get(system, 0) + more
        hopeless = self.failed[system] >= min(HOPELESS, self.jobs.get(system, HOPELESS))
        if hopeless and not self.scored[system] and system not in self.hopeful:
            raise ValueError(
                f"{system}: none of the first {self.failed[system]} samples could be scored; the last one: "
                f"{record['unscored']}. Mend that and start the same command again"
            )
        self.bar.set_description(system, refresh=False)
        failed = {"unscored": self.failed[system]} if self.failed[system] else {}
        share = 100 * self.right[system] / max(self.scored[system], 1)
        self.bar.set_postfix({"right": f"{share:.1f} %", **failed}, refresh=False)
        self.bar.update()
