"""Run an evaluation: every system over every sample, edits and model calls overlapping, records as they finish."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import fields
from typing import Any

from tqdm import tqdm

from etchr.editor.batching import EditBatcher
from etchr.editor.protocol import Editor
from etchr.evr import EvrSettings, Trace
from etchr.mllm.answers import ground_truth, is_correct
from etchr.mllm.protocol import MLLM, opened
from etchr.mllm.settings import ModelConfig, build_model
from etchr.router import DEFAULT_ROUTER, Router
from etchr.sample import EditSample, SampleSet
from evaluation import factory
from evaluation.edit_check import edit_matches
from evaluation.records import Record, RecordFile, RunFolder
from evaluation.settings import EditingConfig, EvalConfig, SystemConfig
from evaluation.systems import Models, edit_prompt, run_system

HOPELESS = 20  # unscored samples without a single scored one, after which a system is given up

BuildModel = Callable[[ModelConfig], MLLM]
BuildEditor = Callable[[SystemConfig, EditingConfig], Editor]


def evaluate(
    config: EvalConfig,
    build_model: BuildModel = build_model,
    build_editor: BuildEditor = factory.build_editor,
) -> RunFolder:
    """Run what is not yet recorded in `config.out`; the run folder with complete records.

    Everything that can be wrong with the options is checked before a model is loaded. Raises `ValueError` for bad
    options and `OSError` when records cannot be written; what was recorded before stays valid.
    """
    data = factory.read_data(config)
    router = Router.load(config.router or DEFAULT_ROUTER)
    _check(config, data, router)
    folder = RunFolder(config.out)
    with folder.locked():
        folder.claim(factory.fingerprint(config))
        asyncio.run(_evaluate(config, data, router, folder, build_model, build_editor))
    return folder


def _check(config: EvalConfig, data: dict[str, SampleSet], router: Router) -> None:
    for name, system in config.systems.items():
        RunFolder(config.out).records(name)  # refuses names that are no file names
        if system.editor is not None:
            factory.check_editor(system)
    for task, samples in data.items():
        for sample in tqdm(samples, desc=f"check {task}", unit="sample", leave=False):  # one bad row is found now
            _check_sample(config, task, sample, router)


def _check_sample(config: EvalConfig, task: str, sample: EditSample, router: Router) -> None:
    if sample.task != task:
        raise ValueError(f"sample {sample.id!r} lies in the data of {task} but belongs to the task {sample.task!r}")
    ground_truth(sample)
    for name, system in config.systems.items():
        if system.editor is not None:
            edit_prompt(system, sample, router)
        if system.kind == "oracle_edit" and sample.edit_image is None:
            raise ValueError(f"system {name} needs ground-truth edits, sample {sample.id!r} has none")


async def _evaluate(
    config: EvalConfig,
    data: dict[str, SampleSet],
    router: Router,
    folder: RunFolder,
    build_model: BuildModel,
    build_editor: BuildEditor,
) -> None:
    async with AsyncExitStack() as stack:
        reasoner = await stack.enter_async_context(opened(build_model(config.reasoner)))
        verifier = reasoner
        if config.verifier is not None:
            verifier = await stack.enter_async_context(opened(build_model(config.verifier)))
        settings = EvrSettings(config.temperature, config.max_tokens, config.editing.seed)
        models = Models(reasoner, verifier, router, settings, config.editing.seed)
        editor: Editor | None = None  # one in memory at a time; systems that share it come one after the other
        loaded: tuple[str | None, str | None] | None = None
        for name, system in config.systems.items():
            records = folder.records(name)
            done = {key for key, record in records.read().items() if record["unscored"] is None}
            left = [(samples, index) for samples in data.values() for index in _left(samples, done)]
            total = sum(map(len, data.values()))
            if not left:
                tqdm.write(f"{name}: {total} samples, all recorded")
                continue
            async with AsyncExitStack() as inner:
                batcher = None
                if system.editor is not None:
                    if editor is None or loaded != (system.editor, system.lora):
                        editor = None  # its memory is free before the next one is read
                        editor = await asyncio.to_thread(build_editor, system, config.editing)
                        loaded = (system.editor, system.lora)
                    batcher = await inner.enter_async_context(EditBatcher(editor, config.editing.batch_size))
                inner.callback(records.close)
                await _run_all(name, system, left, total, models, batcher, folder, records, config.concurrency)


def _left(samples: SampleSet, done: set[str]) -> list[int]:
    return [index for index, key in enumerate(samples.table["id"]) if key not in done]


async def _run_all(
    name: str,
    system: SystemConfig,
    left: list[tuple[SampleSet, int]],
    total: int,
    models: Models,
    batcher: EditBatcher | None,
    folder: RunFolder,
    records: RecordFile,
    concurrency: int,
) -> None:
    """Run the samples that are left, at most `concurrency` at a time; the first error stops the rest."""
    waiting = iter(left)
    right = scored = failed = 0
    with tqdm(total=total, initial=total - len(left), desc=name, unit="sample") as bar:

        async def worker() -> None:
            nonlocal right, scored, failed
            for samples, index in waiting:
                sample = samples[index]
                trace = await run_system(system, sample, models, batcher)
                record = to_record(name, sample, trace, folder)
                records.append(record)
                right, scored = right + bool(record["correct"]), scored + (record["correct"] is not None)
                failed += record["correct"] is None
                if failed >= HOPELESS and not scored:
                    raise ValueError(
                        f"{name}: none of the first {failed} samples could be scored; the last one: {trace.unscored}. "
                        "Mend that and start the same command again"
                    )
                bar.set_postfix({"right": f"{100 * right / max(scored, 1):.1f} %"}, refresh=False)
                bar.update()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(left))):
                    group.create_task(worker())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None


def to_record(system: str, sample: EditSample, trace: Trace, folder: RunFolder) -> Record:
    """A trace as JSON, graded; its edit goes into a file of its own."""
    proposal = trace.proposal
    edit: dict[str, Any] | None = None
    if proposal is not None:
        edit = {
            "editor": proposal.editor,
            "prompt": proposal.prompt,
            "seed": proposal.seed,
            "size": list(proposal.image.size),
            "file": folder.save_edit(system, sample.id, proposal.image),
            "matches": None if sample.edit_image is None else edit_matches(proposal.image, sample.edit_image),
        }
    values = {field.name: getattr(trace, field.name) for field in fields(trace) if field.name != "proposal"}
    correct = None if trace.unscored is not None else is_correct(trace.answer, sample)
    return {"system": system, "task": sample.task, **values, "edit": edit, "correct": correct}
