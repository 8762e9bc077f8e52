"""Processes, devices and trackers: the one file that knows ranks. A single process is the simple case of many."""

import os
import platform
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate")


class Runtime:
    """What a trainer needs to know of the processes that train together; made by `accelerate launch`, or just one.

    Processes hold copies of the model (DDP) unless accelerate's config says `distributed_type: FSDP`; then each holds a
    slice (FSDP2). With `autocast` matrix products run in bfloat16 while the adapter's weights, gradients and their
    exchange between processes stay in fp32, in both cases.
    """

    def __init__(self, device: str = "auto", autocast: bool = False, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        use_cpu = device == "cpu" or not torch.cuda.is_available()
        patience = InitProcessGroupKwargs(timeout=timedelta(hours=24))  # the main process may prepare data for hours
        self.accelerator = Accelerator(cpu=use_cpu, mixed_precision="no", kwargs_handlers=[patience])
        self.device = self.accelerator.device
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)  # another run of this process may have raised it
        self.rank = self.accelerator.process_index
        self.num_processes = self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.is_sharded = self.num_processes > 1 and os.environ.get("ACCELERATE_USE_FSDP") == "true"
        self._autocast = autocast

    def prepare(self, model: Any) -> Any:
        """The model as these processes train it; build the optimizer afterwards, from the slices that FSDP makes."""
        if not self.is_sharded:
            return self.accelerator.prepare(model)
        # accelerate would cast what goes into every block to the autocast dtype, positions too, and reduce in it
        mesh = init_device_mesh(self.device.type, (self.num_processes,))
        policy = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
        for block in [module for module in model.modules() if type(module).__name__ in model._no_split_modules]:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        return fully_shard(model, mesh=mesh, mp_policy=policy)

    @property
    def distribution(self) -> str:
        """How the processes hold the model."""
        return "FSDP2" if self.is_sharded else "DDP" if self.num_processes > 1 else "one process"

    def autocast(self) -> AbstractContextManager[Any]:
        """Round every forward pass; does nothing unless it was asked for.

        Nothing is cached: a cast of weights that have changed since, or that was made without gradients, is stale.
        """
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast, cache_enabled=False)

    def accumulating(self, model: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged on leaving the last micro-batch of a step only."""
        if self.is_sharded:
            model.set_requires_gradient_sync(last)  # type: ignore[operator]
            return nullcontext()
        return nullcontext() if last else self.accelerator.no_sync(model)

    def backward(self, loss: Tensor) -> None:
        """Backward pass; processes average their gradients."""
        self.accelerator.backward(loss)

    def share(self, batch: Tensor) -> Tensor:
        """This process's rows of what all processes draw alike."""
        return batch[self.rank :: self.num_processes]

    def average_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """The mean over the processes of what `backward` left, for models that have no one forward to wrap in DDP."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if self.num_processes == 1 or not gradients:
            return
        mean = self.accelerator.reduce(torch.cat([grad.flatten() for grad in gradients]), "mean")
        for grad, part in zip(gradients, mean.split([grad.numel() for grad in gradients]), strict=True):
            grad.copy_(part.view_as(grad))

    def gather(self, mine: Tensor) -> Tensor:
        """The rows of all processes, each of which has its equal `share`, in the order they were in."""
        if self.num_processes == 1:
            return mine
        return self.accelerator.gather(mine).unflatten(0, (self.num_processes, -1)).transpose(0, 1).flatten(0, 1)

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the processes."""
        if self.num_processes == 1:
            return list(values)
        return self.accelerator.reduce(self._exact(values), "sum").tolist()

    def max(self, *values: float) -> list[float]:
        """The largest of each value over the processes."""
        if self.num_processes == 1:
            return list(values)
        return self.accelerator.gather(self._exact(values)[None]).amax(0).tolist()

    def _exact(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32 if self.device.type == "mps" else torch.float64).to(self.device)

    def wait(self) -> None:
        """Until all processes are here."""
        self.accelerator.wait_for_everyone()

    def main_first(self) -> AbstractContextManager[Any]:
        """The main process runs the block before the others."""
        return self.accelerator.main_process_first()

    def close(self) -> None:
        """This training is over everywhere. The processes stay together: they may have another one to do."""
        self.wait()

    def peak_memory_gb(self) -> float:
        """In 1e9 bytes: GPU memory since this was made, or the process's resident memory on a CPU since it began."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        status = Path(
            "/proc/self/status"
        )  # on Linux getrusage counts what the parent held when it started this process
        if status.is_file() and (lines := [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]):
            return int(lines[0].split()[1]) * 1024 / 1e9
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def grad_norm(parameters: Iterable[nn.Parameter], clip: float | None) -> float:
    """The norm of all gradients together, which are scaled down to `clip` if they are above it."""
    norm = nn.utils.clip_grad_norm_(parameters, clip or float("inf"))
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # a sharded model's norm is a DTensor


def join_processes() -> tuple[int, int]:
    """Rank and number of the processes that `accelerate launch` started, each bound to a GPU where there are any."""
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=24))
    return state.process_index, state.num_processes


def leave() -> None:
    """Leave the group of processes, after the last training; it cannot be joined again."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def wait_for_all() -> None:
    """Return once every process has called this."""
    PartialState().wait_for_everyone()


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int | None = None, seconds: float = 0.3) -> float:
    """Measured FLOP/s of square matrix products: what the hardware gives, to hold a training's FLOPs against."""
    size = size or (8192 if device.type == "cuda" else 1024)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(4):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (time.perf_counter() - begin) / 4)
    return 2 * size**3 / best


def environment(device: torch.device) -> dict[str, Any]:
    """Hardware and versions, for whoever reads a number later; nothing that names a machine or a user."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    versions = {package: metadata.version(package) for package in PACKAGES}
    return {"device": name, "cpus": os.cpu_count(), "threads": torch.get_num_threads(), **versions}


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


class Tracker:
    """Weights & Biases where it is asked for, in the main process; `metrics.jsonl` is written in any case."""

    def __init__(self, mode: str, project: str, folder: Path, config: dict[str, Any]) -> None:
        self._run: Any = None
        if mode != "disabled":
            import wandb

            name = folder.resolve().name
            identity = folder / "wandb_id"  # a run that is started again goes on in the same curve
            if not identity.is_file():
                identity.write_text(f"{os.urandom(6).hex()}", encoding="utf-8")
            self._run = wandb.init(
                project=project,
                name=name,
                id=identity.read_text(encoding="utf-8").strip(),
                resume="allow",
                dir=str(folder),
                mode=mode,  # type: ignore[arg-type]
                config=config,
                save_code=False,
            )

    def log(self, step: int, values: dict[str, float], picture: str | None = None) -> None:
        """Numbers, and a picture file, of a step."""
        if self._run is not None:
            import wandb

            pictures = {} if picture is None else {"validation/edits": wandb.Image(picture)}
            self._run.log({**values, **pictures}, step=step)

    def close(self) -> None:
        """Flush what is left."""
        if self._run is not None:
            self._run.finish()
