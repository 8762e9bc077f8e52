"""What a training of either stage reads, checked before any weights are: base, adapter, data, and what they decide."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etchr.editor import lora, lora_files
from etchr.editor.folder import EditorSettings, check_folder, named_folder
from etchr.editor.klein import KleinEditor
from etchr.router import DEFAULT_ROUTER, Router
from etchr.run_folder import content_digest
from etchr.runtime import Runtime
from etchr.sample import EditSample
from etchr.training.data import SampleTable, Size, prompt_maker
from etchr.training.mixture import data_sets
from etchr.training.plan import Plan

# Options that do not decide the weights that come out, so a run may be continued with others.
FREE = ("out", "threads", "save_every", "keep_checkpoints", "wandb", "validation", "device")
FREE_OF_DATA = ("router", "paths")  # these count by content


@dataclass(frozen=True)
class Inputs:
    """What a training reads, checked; no weights yet."""

    base: str  # the klein folder or hub id
    router: Router
    data: SampleTable
    held_out: SampleTable | None
    plan: Plan
    total: int  # steps, or iterations
    fingerprint: dict[str, Any]  # what decides the weights that come out, as JSON


def check_base(config: Any, runtime: Runtime, merged: str | None = None) -> tuple[str, int]:
    """The base's folder or hub id, and the area of its pictures in pixels; no weights are read.

    Raises `ValueError` if it is no base, or if the adapter of the options or the one to be `merged` does not fit it.
    """
    if runtime.is_sharded and config.optim.name == "muon":
        raise ValueError("optim.name=muon needs whole matrices; use adamw with FSDP, or DDP with muon")
    base, init = named_folder(config.model.base), config.adapter.init
    check_folder(base)
    settings = EditorSettings.read(base, max_pixels=config.model.max_pixels)
    if settings.is_distilled:
        raise ValueError(
            f"model.base={base} is a distilled klein, whose few steps training would undo; give a klein-base"
        )
    stage_one = None if merged is None else lora_files.read(merged)
    if Path(base).exists():
        transformer = KleinEditor.load(base, device="meta").transformer
        shapes = lora.targeted_shapes(transformer)
        if init is None:
            lora.attach(transformer, config.adapter.rank, config.adapter.alpha)
        else:
            lora_files.check(lora_files.read(init), shapes)
        if stage_one is not None:
            lora_files.check(stage_one, shapes, partial=True)
    return base, settings.max_pixels


def read_data(
    config: Any,
    runtime: Runtime,
    base: str,
    sizes_of: Callable[[EditSample], tuple[Size, ...]],
    *,
    batch: str,
    num_steps: int | None,
    free: tuple[str, ...],
    free_of_data: tuple[str, ...] = (),
) -> Inputs:
    """Read the data that the options name; see `SampleTable` for `sizes_of`.

    `batch` names the option that says how many samples a step or an iteration takes; of these there are `num_steps`, or
    what `config.epochs` gives. The options `free` and `free_of_data`, beside those of both stages, decide nothing.
    Raises `ValueError` for data that cannot be trained on.
    """
    data, validation = config.data, config.validation
    router = Router.load(data.router or DEFAULT_ROUTER)
    prompt_of, bad_rows = prompt_maker(data.prompt, router), getattr(data, "bad_rows", None)
    sets, kept_back = data_sets(data, validation)
    held_out = None
    with runtime.main_first():  # the others find the Arrow files that the first one made
        table = SampleTable(sets, prompt_of, sizes_of, bad_rows)
        if kept_back:
            try:
                held_out = SampleTable(kept_back, prompt_of, sizes_of, bad_rows)
            except ValueError as error:
                raise ValueError(f"{error}; or train without looking, validation.every=0") from None
    how = {"bucketing": getattr(data, "bucketing", True), "wrap": getattr(data, "last_batch", "drop") == "wrap"}
    plan = table.plan(data.weights, getattr(config, batch), config.seed, **how, name=batch)
    total = num_steps or max(int(config.epochs * plan.batches_per_epoch), 1)

    options = {name: value for name, value in asdict(config).items() if name not in (*FREE, *free)}
    for name in (*FREE_OF_DATA, *free_of_data):
        del options["data"][name]
    options["data"] |= table.about(with_sets=data.mixture is not None)
    options["data"]["meta_prompts"] = {str(k): v for k, v in router.meta_prompts.items()}
    options["model"]["base"] = content_digest(Path(base)) or base
    options["model"]["dtype"] = runtime.dtype
    if config.adapter.init is not None:
        options["adapter"]["init"] = content_digest(Path(config.adapter.init))
    return Inputs(base, router, table, held_out, plan, total, options)
