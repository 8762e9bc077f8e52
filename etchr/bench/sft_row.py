"""One row of the benchmark, in a process of its own: what is built, warmed up and timed."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etchr.sft.settings import SftConfig

FROZEN_PARTS = ("VAE encode", "text encode")  # measured with nano's weights


@dataclass(frozen=True)
class BenchRow:
    """One line of the table: pairs of one size, one way to train them, or one frozen part of nano."""

    size: str
    pair: str
    batch_size: int
    what: str  # of VARIANTS or FROZEN_PARTS
    config: SftConfig
    device: str  # cpu or cuda
    warmup_steps: int

    @property
    def dtype(self) -> str:
        """What the products are computed in."""
        if self.config.model.dtype != "auto":
            return self.config.model.dtype
        return "bfloat16" if self.device == "cuda" else "float32"

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of each picture in tokens."""
        width, height = (int(side) // (8 if self.size == "nano" else 16) for side in self.pair.split("x"))
        return height, width

    @property
    def tokens(self) -> tuple[int, int, int]:
        """Target, condition and text tokens of one pair."""
        from etchr.editor.folder import NANO_BASE, EditorSettings

        settings = EditorSettings.read(NANO_BASE) if self.size == "nano" else EditorSettings()
        return math.prod(self.grid), math.prod(self.grid), settings.max_sequence_length


_ready: dict[str, Any] = {}  # what `prepare` leaves for `measure`


def prepare(row: BenchRow) -> dict[str, Any]:
    """Build what the row needs and warm it up; its process's memory before that."""
    import torch

    from etchr.runtime import Runtime

    runtime = Runtime(row.config.device, row.dtype, row.config.adapter.needs_autocast, row.config.threads)
    torch.manual_seed(0)
    before = runtime.peak_memory_gb()
    build = _frozen_part if row.what in FROZEN_PARTS else _training_step
    _ready.update(row=row, runtime=runtime, run=build(row, runtime))
    if row.device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # making the model is not training it
    for _ in range(row.warmup_steps):
        _ready["run"]()
    return {"before_gb": before}


def measure(num_steps: int) -> dict[str, Any]:
    """Seconds per step, peak memory so far, and what the hardware gives at this moment."""
    import torch

    from etchr.training.hardware import matmul_rate

    row, runtime = _ready["row"], _ready["runtime"]
    synchronise: Callable[[], None] = torch.cuda.synchronize if row.device == "cuda" else lambda: None
    synchronise()
    begin = time.perf_counter()
    for _ in range(num_steps):
        _ready["run"]()
    synchronise()
    seconds = (time.perf_counter() - begin) / num_steps
    peak = runtime.peak_memory_gb()
    return {"seconds": seconds, "peak_gb": peak, "matmul": matmul_rate(runtime.device, getattr(torch, row.dtype))}


def _training_step(row: BenchRow, runtime: Any) -> Callable[[], None]:
    import torch

    from etchr.editor.tokens import Grid
    from etchr.runtime import grad_norm
    from etchr.sft.objective import Pairs, draw, pair_noise, sft_loss
    from etchr.training.optim import build_optimizer
    from etchr.training.state import attach

    config, dtype = row.config, getattr(torch, row.dtype)
    transformer = _transformer(row.size, row.device, dtype, config.model.quantisation)
    attach(transformer, config.model, config.adapter, config.seed)
    model = runtime.prepare(transformer)
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(parameters, config.optim)

    batch, (image, _, text), grid = row.batch_size, row.tokens, Grid(*row.grid)
    channels, width = transformer.config.in_channels, transformer.config.joint_attention_dim
    shapes = ((batch, image, channels), (batch, image, channels), (batch, text, width))
    target, condition, words = (torch.randn(shape, device=runtime.device, dtype=dtype) for shape in shapes)
    pairs = Pairs(target, condition, words, grid, grid)
    noise = pair_noise(target.shape, list(range(batch)), seed=0, step=0)
    levels = draw(config.flow, 0.0, torch.zeros(batch), seed=0, step=0).levels

    def step() -> None:
        with runtime.autocast():
            losses = sft_loss(model, pairs, noise, levels)
        runtime.backward(losses.mean())
        grad_norm(parameters, config.optim.clip)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _transformer(size: str, device: str, dtype: Any, quantisation: str | None) -> Any:
    from tempfile import TemporaryDirectory

    from etchr.editor import efficiency
    from etchr.editor.shapes import random_transformer

    if quantisation is None:
        return random_transformer(size, device, dtype)
    efficiency.check_quantisation(quantisation, device)
    settings = efficiency.quantisation(quantisation, dtype).quant_mapping["transformer"]
    with TemporaryDirectory() as folder:  # diffusers quantises what it reads
        made = random_transformer(size, device, dtype)
        made.save_pretrained(folder)
        return type(made).from_pretrained(folder, torch_dtype=dtype, quantization_config=settings).to(device)


def _frozen_part(row: BenchRow, runtime: Any) -> Callable[[], None]:
    import itertools

    import torch

    from etchr.editor.folder import NANO_BASE
    from etchr.editor.klein import KleinEditor

    editor = KleinEditor.load(NANO_BASE, device=str(runtime.device), dtype=row.dtype)
    width, height = map(int, row.pair.split("x"))
    pixels = torch.rand(2 * row.batch_size, 3, height, width) * 2 - 1
    number = itertools.count()

    def encode() -> None:
        if row.what == "VAE encode":
            editor.encode_image(pixels)
        else:  # prompts that differ, for those that were seen are remembered
            editor.encode_text([f"On which side of circle {next(number)} is its dot?" for _ in range(row.batch_size)])

    return encode


def guarded(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What `function` returns, or why this machine cannot do it."""
    try:
        return function(*args)
    except (ImportError, ValueError, RuntimeError, MemoryError, OSError) as error:  # torch's own are RuntimeErrors
        return {"reason": (str(error).strip().splitlines() or [type(error).__name__])[0][:200]}
