"""Everything a run needs to go on exactly: adapter weights, their average, optimizer states and the step.

A checkpoint is a folder of safetensors files that appears whole or not at all. It is the same whether one process made
it, many with copies of the model (DDP) or many with slices of it (FSDP2): tensors are gathered under their names.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from etchr.run_folder import remove_folder, whole_folder
from etchr.training.state import GATHER, TrainState

LOCAL = StateDictOptions(ignore_frozen_params=True)
SPREAD = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)

Tensors = dict[str, Tensor]


class Checkpoints:
    """The checkpoints of a run folder, oldest first; `keep` of them stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def path(self, step: int) -> Path:
        """The folder of the checkpoint after `step` steps."""
        return self.folder / f"step_{step:08d}"

    def steps(self) -> list[int]:
        """Steps after which there is a complete checkpoint."""
        names = [path.name for path in self.folder.glob("step_*") if path.is_dir()]
        return sorted(int(name[5:]) for name in names if name[5:].isdecimal())

    def save(self, step: int, state: TrainState, is_main: bool) -> None:
        """Write the state after `step` steps; all processes call it, the main one writes.

        Raises `OSError` if it cannot be written, in which case the checkpoints before it are as they were.
        """
        files = {"adapter": state.weights()}
        if state.ema is not None:
            files["average"] = state.averaged_weights()
        moments: Any = {}
        if state.optimizer.state:  # else torch would make one by a step without a gradient, which Adam counts
            moments = get_optimizer_state_dict(state.model, state.optimizer, options=GATHER)  # empty elsewhere
        files["optimizer"] = _flat(moments.get("state", {}))
        if not is_main:
            return
        for stale in self.folder.glob(".step_*.part"):  # of a run that was killed and now saves at other steps
            shutil.rmtree(stale, ignore_errors=True)
        try:
            with whole_folder(self.path(step)) as part:
                for name, tensors in files.items():
                    save_file({key: value.contiguous() for key, value in tensors.items()}, part / f"{name}.safetensors")
                note: dict[str, Any] = {"step": step, "sha256": {name: _sha256(part, name) for name in files}}
                note |= {} if state.ema is None else {"average_updates": state.ema.optimization_step}
                (part / "state.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
        except (OSError, SafetensorError) as error:
            kept = f"the one of step {self.steps()[-1]} is whole" if self.steps() else "there is none yet"
            raise OSError(f"cannot write the checkpoint of step {step} to {self.folder} ({error}); {kept}") from None
        for old in self.steps()[: -self.keep]:
            remove_folder(self.path(old))

    def read(self, step: int, name: str) -> Tensors:
        """One file of a checkpoint: adapter, average or optimizer. `ValueError` if it is damaged."""
        path = self.path(step) / f"{name}.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise _damaged(path, error) from None

    def check(self, step: int) -> dict[str, Any]:
        """The note of a checkpoint; `ValueError` if it is of another step, or a file is not what was written."""
        folder = self.path(step)
        path = folder / "state.json"
        try:
            note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if note["step"] != step:
                raise ValueError(f"it is of step {note['step']}")
            for name, digest in note["sha256"].items():
                path = folder / f"{name}.safetensors"
                if _sha256(folder, name) != digest:
                    raise ValueError("other bytes than were written")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(path, error) from None
        return note

    def restore(self, step: int, state: TrainState) -> None:
        """Put what there was after `step` steps into a state built from the same options."""
        model, optimizer, note = state.model, state.optimizer, self.check(step)
        if state.ema is not None:  # the average takes its tensors from the model, which then gets its own
            set_model_state_dict(model, dict(self.read(step, "average")), options=SPREAD)
            state.ema.optimization_step = int(note["average_updates"])
            state.ema.shadow_params = [parameter.detach().clone() for parameter in state.parameters]
        set_model_state_dict(model, dict(self.read(step, "adapter")), options=SPREAD)
        tensors = self.read(step, "optimizer")
        if not tensors:  # nothing was learned before that step
            return
        groups = get_optimizer_state_dict(model, optimizer, options=LOCAL)["param_groups"]
        moments: Any = {"state": _nested(tensors), "param_groups": groups}
        set_optimizer_state_dict(model, optimizer, moments, options=SPREAD)


def _sha256(folder: Path, name: str) -> str:
    with (folder / f"{name}.safetensors").open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged ({error}); remove {path.parent} to go on from the one before")


def _flat(state: dict[str, dict[str, Any]]) -> Tensors:
    return {f"{name}|{part}": torch.as_tensor(value) for name, parts in state.items() for part, value in parts.items()}


def _nested(tensors: Tensors) -> dict[str, dict[str, Tensor]]:
    state: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, part = key.partition("|")
        state.setdefault(name, {})[part] = value
    return state
