"""Processes and devices: the one file that knows ranks. A single process is the simple case of many."""

import os
import resource
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, gather_object
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

T = TypeVar("T")


class Runtime:
    """What a trainer needs to know of the processes that train together; made by `accelerate launch`, or just one.

    Processes hold copies of the model (DDP) unless accelerate's config says `distributed_type: FSDP`; then each holds a
    slice (FSDP2). Matrix products with an fp32 adapter on a bfloat16 base run in bfloat16 (under autocast, where its
    layers do not see to that), while the adapter's weights, gradients and their exchange between processes stay in
    fp32, in both cases.
    """

    def __init__(self, device: str = "auto", dtype: str = "float32", autocast: bool = True, threads: int = 0) -> None:
        """`dtype` of the frozen base: bfloat16, float32; auto: bfloat16 on a GPU, float32 on a CPU.

        `autocast`: round every forward pass where the base is bfloat16.
        """
        if threads:
            torch.set_num_threads(threads)
        use_cpu = device == "cpu" or not torch.cuda.is_available()
        patience = InitProcessGroupKwargs(timeout=timedelta(hours=24))  # the main process may prepare data for hours
        # DDP exchanges gradients in buckets; as views of these they exist once, not twice
        buckets = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
        self.accelerator = Accelerator(cpu=use_cpu, mixed_precision="no", kwargs_handlers=[patience, buckets])
        self.device = self.accelerator.device
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)  # another run of this process may have raised it
        self.rank = self.accelerator.process_index
        self.num_processes = self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.is_sharded = self.num_processes > 1 and os.environ.get("ACCELERATE_USE_FSDP") == "true"
        self.dtype = dtype if dtype != "auto" else "float32" if use_cpu else "bfloat16"
        self._autocast = self.dtype == "bfloat16" and autocast

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
        """Round every forward pass; does nothing unless dtypes and layers ask for it.

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

    def gather_objects(self, mine: list[T]) -> list[T]:
        """What all processes have, one process behind the other."""
        return list(mine) if self.num_processes == 1 else gather_object(mine)

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
