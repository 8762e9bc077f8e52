"""From options to objects: the editors and data of a run. Heavy imports happen here, late."""

import hashlib
import inspect
import json
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from etchr import editor as editors
from etchr.editor.folder import find_lora, named_folder
from etchr.editor.protocol import Editor
from etchr.families import TASKS
from etchr.mllm import prompts
from etchr.mllm.judge import JUDGE_TOKENS, grader_version
from etchr.mllm.settings import model_fingerprint
from etchr.router import DEFAULT_ROUTER, DEFAULT_WORDS, Router
from etchr.run_folder import content_digest
from etchr.sample import EditSample
from evaluation.benchmarks import find_benchmark
from evaluation.benchmarks.benchmark import Benchmark, LoadOptions, Samples
from evaluation.settings import EditingConfig, EvalConfig, SystemConfig
from evaluation.systems import SYSTEMS


@dataclass(frozen=True)
class Task:
    """A benchmark and those of its samples that a run uses."""

    benchmark: Benchmark
    samples: Samples
    count: int

    def __len__(self) -> int:
        return self.count


def check_editor(system: SystemConfig) -> None:
    """`ValueError` if a system's editor or its LoRA is plainly none; nothing is loaded."""
    editors.check_editor(str(system.editor), system.lora)
    if system.lora is not None:
        find_lora(system.lora)


def build_editor(system: SystemConfig, editing: EditingConfig) -> Editor:
    """Load a system's editor, or connect to its endpoints; `ValueError` where they do not answer."""
    if system.remote is not None:
        from etchr.editor.remote import RemoteEditor

        remote = system.remote if editing.max_pixels is None else replace(system.remote, max_pixels=editing.max_pixels)
        return RemoteEditor.connect(remote, editing.num_inference_steps, editing.guidance_scale)
    return editors.load_editor(
        str(system.editor),
        lora=system.lora,
        batch_size=editing.batch_size,
        num_inference_steps=editing.num_inference_steps,
        guidance_scale=editing.guidance_scale,
        max_pixels=editing.max_pixels,
    )


def edit_identity(system: SystemConfig, editing: EditingConfig) -> dict[str, Any]:
    """What decides a system's edits beside picture, prompt and seed: the weights by content, wherever they lie.

    Weights on the hub are known by their id alone; see `kept_identity`.
    """
    chosen = {key: getattr(editing, key) for key in ("num_inference_steps", "guidance_scale", "max_pixels")}
    if system.remote is not None:
        remote = {key: getattr(system.remote, key) for key in ("model", "max_pixels", "extra_body")}
        return {"remote": remote, **chosen}
    name = str(system.editor)
    if name in editors.EDITORS:
        found = find_spec(editors.EDITORS[name].split(":")[0])
        code = found and found.origin and content_digest(Path(found.origin))
        return {"editor": name, "code": code, **chosen}
    weights = {"editor": content_digest(Path(named_folder(name))) or name}
    return {**weights, "lora": system.lora and content_digest(find_lora(system.lora)), **chosen}


def kept_identity(
    system: SystemConfig, editing: EditingConfig, device: str, cache: Path | None = None
) -> dict[str, Any]:
    """What edits that are kept for other runs go by: `edit_identity`, the commit of weights on the hub, the device.

    A run's own identity has neither: a run goes on when its weights have been downloaded meanwhile, and elsewhere. The
    device decides the number format (`KleinEditor.load`), and with it the last bits of every pixel; a CPU goes unsaid.
    `cache` is the folder of the hub's cache; None: where it lies by default.
    """
    identity = edit_identity(system, editing)
    if system.remote is None:
        if (commit := hub_commit(named_folder(str(system.editor)), cache)) is not None:
            identity["commit"] = commit
        if device != "cpu":
            identity["device"] = device
    return identity


def hub_commit(editor: str, cache: Path | None = None) -> str | None:
    """The commit at which the hub's cache holds the weights called `editor`; None for a folder, or for what it lacks.

    Nothing is asked of the hub.
    """
    if Path(editor).exists():
        return None
    from huggingface_hub import try_to_load_from_cache

    there = try_to_load_from_cache(editor, "model_index.json", cache_dir=cache)
    return Path(there).parent.name if isinstance(there, str) else None


def local_device() -> str:
    """Where a local editor runs."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def read_tasks(config: EvalConfig) -> dict[str, Task]:
    """The test set of every task; `ValueError` that says how it is had where one is missing."""
    options = LoadOptions(config.option_seed, config.charxiv_split, config.charxiv_constants)
    tasks: dict[str, Task] = {}
    seen: dict[str, str] = {}  # records are keyed by the id alone
    for word in config.tasks or TASKS:
        benchmark, folder = find_benchmark(word, Path(config.data), Path(config.benchmarks))
        if benchmark.name in tasks:
            raise ValueError(f"tasks has {benchmark.name} twice; a set of your own may set another name: in its YAML")
        samples = benchmark.load(folder, options)
        count = min(len(samples), config.num_samples or len(samples))
        if not count:
            raise ValueError(f"{benchmark.title}: no samples in {folder}")
        tasks[benchmark.name] = Task(benchmark, samples, count)
        for key in samples.ids[:count]:
            if key in seen:
                raise ValueError(
                    f"{benchmark.name} holds the id {key!r}, which {seen[key]} holds too; ids must be unique"
                )
            seen[key] = benchmark.name
    return tasks


def sample_digest(sample: EditSample) -> str:
    """A digest of a sample from its headers: its pictures as files, its question, and what its answer is graded by."""
    pictures = [sample.image, sample.edit_image, *sample.more_images]
    values = [
        sample.id,
        sample.question,
        sample.choices,
        sample.answer,
        {key: sample.meta.get(key) for key in ("answer_type", "grid", "instruction", "cluster", "grading")},
        [getattr(picture, "digest", None) for picture in pictures],
    ]
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def fingerprint(config: EvalConfig, tasks: dict[str, Task]) -> dict[str, Any]:
    """What decides a run's results, as JSON: two runs with equal fingerprints may share their records.

    Concurrency, batch size, the number of samples and repeats, and groups do not decide what a sample's record holds;
    files count by content, wherever they lie; every record holds a digest of its sample.
    """
    systems = {}
    for name, system in config.systems.items():
        systems[name] = asdict(system)
        for key in ("group", "remote", "model", "router"):
            del systems[name][key]
        if system.editor is not None or system.remote is not None:
            systems[name] |= edit_identity(system, config.editing)
        if system.model is not None:
            systems[name]["model"] = model_fingerprint(system.model)
        if system.router is not None:
            systems[name]["router"] = meta_prompts(system.router)
        if system.route == "rule" or SYSTEMS[system.kind].by_rule:
            systems[name]["rule"] = content_digest(DEFAULT_WORDS)
    editing = asdict(config.editing)
    del editing["batch_size"], editing["cache"]
    roles = {role: getattr(config, role) for role in ("reasoner", "verifier", "judge", "edit_judge")}
    models = {role: model and model_fingerprint(model) for role, model in roles.items()}
    if models["judge"] and config.judge_max_tokens != JUDGE_TOKENS:  # a reply that is not cut off is another one
        models["judge"]["max_tokens"] = config.judge_max_tokens
    return {
        "systems": systems,
        "tasks": {name: _task_identity(config, task) for name, task in tasks.items()},
        "editing": editing,
        "router": meta_prompts(config.router),
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        "grader": grader_version(),
        "prompts": hashlib.sha256(inspect.getsource(prompts).encode()).hexdigest()[:16],
        **models,
    }


def router_of(config: EvalConfig, system: SystemConfig) -> Router:
    """The meta-prompts of a system: its own, else the run's."""
    return Router.load(system.router or config.router or DEFAULT_ROUTER)


def meta_prompts(path: str | None) -> dict[str, str]:
    """The meta-prompts in a router's file as JSON; those of the default one without a path."""
    router = Router.load(path or DEFAULT_ROUTER)
    listed = {family: " + candidates" for family in router.with_candidates}
    return {str(family): words + listed.get(family, "") for family, words in router.meta_prompts.items()}


def _task_identity(config: EvalConfig, task: Task) -> dict[str, Any]:
    drawn = {"option_seed": config.option_seed} if task.benchmark.draws_options else {}
    return task.benchmark.identity() | drawn
