"""From options to objects: the editors and data of a run. Heavy imports happen here, late."""

import hashlib
import inspect
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etchr.editor.protocol import Editor
from etchr.families import TASKS
from etchr.mllm import prompts
from etchr.mllm.settings import model_fingerprint
from etchr.router import DEFAULT_ROUTER, Router
from etchr.run_folder import content_digest
from etchr.sample import SampleSet, read_parquet
from evaluation.settings import EditingConfig, EvalConfig, SystemConfig


def editor_folder(system: SystemConfig) -> str:
    """Where a system's editor lies; `nano` is the one kept in the repository."""
    if system.editor == "nano":
        from etchr.editor.klein import NANO_BASE

        return str(NANO_BASE)
    return str(system.editor)


def check_editor(system: SystemConfig) -> None:
    """`ValueError` if a system's editor or its LoRA is plainly none; nothing is loaded."""
    from etchr.editor.klein import check_folder

    check_folder(editor_folder(system))
    if system.lora is not None and not Path(system.lora).exists():
        raise ValueError(f"no LoRA at {system.lora}; train one first, as scripts/quickstart.sh does, or give another")


def build_editor(system: SystemConfig, editing: EditingConfig) -> Editor:
    """Load a system's editor."""
    from etchr.editor.klein import KleinEditor

    return KleinEditor.load(
        editor_folder(system),
        lora=system.lora,
        batch_size=editing.batch_size,
        num_inference_steps=editing.num_inference_steps,
        guidance_scale=editing.guidance_scale,
        max_pixels=editing.max_pixels,
    )


def read_data(config: EvalConfig) -> dict[str, SampleSet]:
    """The test set of every task; `ValueError` with the command that makes it where one is missing."""
    sets: dict[str, SampleSet] = {}
    seen: dict[str, Path] = {}  # records are keyed by the id alone
    for task in config.tasks or TASKS:
        path = Path(config.data) / task / "test.parquet"
        if not path.is_file():
            raise ValueError(f"no test data at {path}; make it with: python -m data_prep {task} out={config.data}")
        samples = read_parquet(path)
        count = min(len(samples), config.num_samples or len(samples))
        sets[task] = SampleSet(samples.table.select(range(count)))
        for key in sets[task].table["id"]:
            if key in seen:
                raise ValueError(f"{path} holds the id {key!r}, which {seen[key]} holds too; ids must be unique")
            seen[key] = path
    return sets


def fingerprint(config: EvalConfig) -> dict[str, Any]:
    """What decides a run's results, as JSON: two runs with equal fingerprints may share their records.

    Concurrency, batch size, the number of samples, groups and the gallery do not decide what a sample's record holds;
    files count by content, wherever they lie.
    """
    systems = {}
    for name, system in config.systems.items():
        systems[name] = asdict(system)
        del systems[name]["group"]
        if system.editor is not None:
            systems[name]["editor"] = content_digest(Path(editor_folder(system))) or system.editor
        if system.lora is not None:
            systems[name]["lora"] = content_digest(Path(system.lora))
    editing = asdict(config.editing)
    del editing["batch_size"]
    return {
        "systems": systems,
        "data": {t: content_digest(Path(config.data) / t / "test.parquet") for t in config.tasks or TASKS},
        "editing": editing,
        "router": {str(k): v for k, v in Router.load(config.router or DEFAULT_ROUTER).meta_prompts.items()},
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        "prompts": hashlib.sha256(inspect.getsource(prompts).encode()).hexdigest()[:16],
        "reasoner": model_fingerprint(config.reasoner),
        "verifier": model_fingerprint(config.verifier) if config.verifier else None,
    }
