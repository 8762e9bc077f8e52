"""The machine that a training runs on: what it is, and what it gives."""

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate")


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
