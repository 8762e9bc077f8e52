"""A FLUX.2-klein small enough to train on a laptop CPU, and the base *instruction* editor that the project starts from.

`python -m etchr.editor.nano data=FOLDER out=FOLDER` builds the four parts on diffusers' and transformers' own classes
and trains two of them on explicit instructions ("Red box round the blue square at row 2, column 3."):

1. tokenizer: byte-level BPE on the prompts of the data, saved with the folder and never retrained;
2. text encoder: a random, frozen Qwen3;
3. VAE: reconstruction, then the latent statistics that klein keeps in `vae.bn`;
4. transformer: flow matching on the latents, as for the full-size model.

Under `accelerate launch` the processes share every batch, and the encoding of the data. The result is a normal klein
folder of a few MB. It draws what it is told and has never seen a question: closing that
gap is what Stage I is for. The folder kept in the repository is `folder.NANO_BASE`; its README says how it was made.
"""

import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from etchr.editor.efficiency import compile_blocks
from etchr.editor.klein import KleinEditor
from etchr.editor.nano_model import build
from etchr.editor.tokens import patchify
from etchr.flow.matching import interpolate, target_velocity
from etchr.flow.schedule import stratified_sigmas
from etchr.runtime import Runtime
from etchr.sample import EditSample, read_parquet
from etchr.seeds import hash_seed

log = logging.getLogger(__name__)

# How often a task's samples come in an epoch. First words are bound to things; then what has to be drawn exactly.
FIRST = {"perception": 2, "chart": 2, "maze": 3, "jigsaw": 3, "view3d": 3}
SECOND = {"maze": 2, "frozen_lake": 3, "jigsaw": 5, "view3d": 7}


@dataclass
class NanoConfig:
    """Options of `python -m etchr.editor.nano`."""

    data: str = "outputs/nano/instructions"  # folder with <task>/train.parquet of explicit instructions
    questions: str = "outputs/nano/questions"  # the same of questions: the tokenizer learns their words, nothing else
    out: str = "outputs/nano/base"  # the finished klein folder
    seed: int = 0
    vae_steps: int = 4000
    decoder_steps: int = 3000  # further ones of the VAE's decoder alone
    vae_batch_size: int = 32
    vae_lr: float = 4e-3
    steps: int = 25000  # of the transformer, in a first course
    second_steps: int = 8000  # in a second course, its learning rate from the start again; 0: none
    batch_size: int = 16
    muon_lr: float = 0.02  # block matrices
    adamw_lr: float = 2e-3  # all other weights
    warmup_steps: int = 50
    prompt_dropout: float = 0.05  # share of samples that train the unconditional velocity, for guidance
    ema: float = 0.998
    emphasis: dict[str, int] = field(default_factory=FIRST.copy)  # how often a task's samples come in an epoch
    second_emphasis: dict[str, int] = field(default_factory=SECOND.copy)  # the same in the second course
    compile: str | None = None  # backend for the blocks; inductor is a third faster and needs a C++ compiler
    checkpoint_every: int = 500  # steps; the same command goes on from the last checkpoint
    threads: int = 0  # of a process; 0: torch's choice

    def __post_init__(self) -> None:
        for name in ("vae_steps", "vae_batch_size", "steps", "batch_size", "warmup_steps", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("decoder_steps", "second_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0")
        for name in ("prompt_dropout", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0 and below 1")
        for name in ("emphasis", "second_emphasis"):
            if bad := {task: count for task, count in getattr(self, name).items() if count < 1}:
                raise ValueError(f"{name}={bad} must be at least 1 for every task")

    def courses(self) -> list["NanoConfig"]:
        """The options of each course of the transformer's training."""
        if not self.second_steps:
            return [self]
        return [self, replace(self, steps=self.second_steps, emphasis=self.second_emphasis, seed=self.seed + 1)]


# ------------------------------------------------------------------------------------------------------ training


def train_vae(editor: KleinEditor, pixels: Tensor, config: NanoConfig, runtime: Runtime) -> float:
    """Train the VAE on uint8 images (N, 3, H, W) and set its latent statistics; the final mean absolute error.

    Its decoder goes on alone for `decoder_steps`: what it draws gets sharper, and the latents stay as they are.
    """
    vae = editor.vae.to(memory_format=torch.channels_last)  # twice as fast on a CPU
    vae.train().requires_grad_(True)
    generator = torch.Generator().manual_seed(config.seed + 1)
    error = _reconstruct(vae, pixels, config.vae_steps, "VAE", config, runtime, generator)
    set_latent_statistics(editor, pixels[torch.randperm(len(pixels), generator=generator)[:4096]])
    vae.encoder.requires_grad_(False)
    if config.decoder_steps:
        generator.manual_seed(config.seed + 2)
        error = _reconstruct(vae, pixels, config.decoder_steps, "decoder", config, runtime, generator)
    vae.eval().requires_grad_(False)
    return error


def _reconstruct(
    vae: Any,
    pixels: Tensor,
    num_steps: int,
    name: str,
    config: NanoConfig,
    runtime: Runtime,
    generator: torch.Generator,
) -> float:
    """Reconstruction by the parts of the VAE that need gradients; the mean absolute error at the end.

    Four of five steps see random half-size crops, which are four times as cheap. Noise on the latents makes the
    decoder forgive the sampler's small errors.
    """
    trained = [weight for weight in vae.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.vae_lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_then_linear(30, num_steps))
    size, error = pixels.shape[-1], math.nan
    for step in (bar := tqdm(range(num_steps), desc=name, unit="step", disable=not runtime.is_main)):
        rows = torch.randint(len(pixels), (config.vae_batch_size,), generator=generator)
        images = pixels[_share(rows, runtime)]
        if step % 5:
            top, left = (int(torch.randint(size // 8 + 1, (), generator=generator)) * 4 for _ in range(2))
            images = images[..., top : top + size // 2, left : left + size // 2]
        images = (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)

        # ----- gradient step
        latents = vae.encode(images).latent_dist.mode()
        noise = torch.randn((len(rows), *latents.shape[1:]), generator=generator)
        decoded = vae.decode(latents + 0.02 * _share(noise, runtime), return_dict=False)[0]
        loss = F.l1_loss(decoded, images) + F.mse_loss(decoded, images) + 1e-4 * latents.square().mean()
        _finite(loss, step)
        optimizer.zero_grad()
        loss.backward()
        _average_gradients(trained, runtime)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        # -----
        if step % 50 == 0 or step == num_steps - 1:
            error = F.l1_loss(decoded, images).item()
            bar.set_postfix(l1=f"{error:.4f}")
    return error


@torch.no_grad()
def set_latent_statistics(editor: KleinEditor, pixels: Tensor) -> None:
    """Put mean and variance of the *patchified* latents into `vae.bn`, where klein looks for them."""
    latents = torch.cat(
        [patchify(editor.vae.encode(batch.float() / 127.5 - 1).latent_dist.mode()) for batch in pixels.split(64)]
    )
    editor.vae.bn.running_mean.copy_(latents.mean((0, 2, 3)))
    editor.vae.bn.running_var.copy_(latents.var((0, 2, 3)))


def train_transformer(
    editor: KleinEditor, corpus: "Corpus", config: NanoConfig, runtime: Runtime, checkpoint: Path | None = None
) -> list[float]:
    """Flow matching on encoded pairs; leaves the averaged weights in the editor and returns the loss curve.

    With a `checkpoint` file the training goes on from it, and ends with the same weights as an unbroken one: what a
    step sees depends on (seed, step) alone, whatever the number of processes.
    """
    model = editor.transformer
    model.train().requires_grad_(True)
    compile_blocks(model, config.compile)
    average = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizers = _optimizers(model, config)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, _warm_then_linear(config.warmup_steps, config.steps)) for o in optimizers
    ]
    empty = editor.encode_text([""])[0]
    state = {"model": model, "average": average, "optimizers": optimizers, "schedules": schedules}
    start, curve = _resume(checkpoint, state, config)
    recent = 0.0
    todo, epoch = range(start, config.steps), corpus.epoch(config.emphasis)
    for step in (bar := tqdm(todo, "base", config.steps, unit="step", initial=start, disable=not runtime.is_main)):
        generator = torch.Generator().manual_seed(hash_seed(config.seed, step))
        rows = epoch[_batch(len(epoch), config.batch_size, step, config.seed)]
        x0, condition, text = corpus.targets[rows], corpus.sources[rows], corpus.text[corpus.prompt_of[rows]]
        dropped = torch.rand(len(rows), generator=generator) < config.prompt_dropout
        text = torch.where(dropped[:, None, None], empty, text)
        sigma = stratified_sigmas(len(rows), generator)
        noise = torch.randn(x0.shape, generator=generator)
        x0, condition, text, sigma, noise = (_share(part, runtime) for part in (x0, condition, text, sigma, noise))

        # ----- gradient step
        velocity = editor.velocity(interpolate(x0, noise, sigma), sigma, text, condition, corpus.grid, corpus.grid)
        loss = F.mse_loss(velocity, target_velocity(x0, noise))
        _finite(loss, step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        _average_gradients(list(model.parameters()), runtime)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        # -----
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                average[name].lerp_(weight, 1 - decay)
        recent += loss.item()
        if (step + 1) % 100 == 0:
            curve.append(runtime.sum(recent / 100)[0] / runtime.num_processes)
            bar.set_postfix(loss=f"{curve[-1]:.4f}")
            recent = 0.0
        if checkpoint and runtime.is_main and (step + 1) % config.checkpoint_every == 0:
            _checkpoint(checkpoint, state, config, step + 1, curve)
    model.load_state_dict(average)
    model.eval().requires_grad_(False)
    return curve


@dataclass(frozen=True)
class Corpus:
    """A data set encoded once: training the transformer then touches neither VAE nor text encoder."""

    sources: Tensor  # (N, T, C) clean latent tokens of the condition images
    targets: Tensor  # (N, T, C) clean latent tokens of the edits
    text: Tensor  # (P, L, D) embeddings of the distinct prompts
    prompt_of: Tensor  # (N,) row of `text`
    tasks: list[str]  # of the samples
    grid: Any  # token grid that all images share

    def epoch(self, emphasis: Mapping[str, int]) -> Tensor:
        """The samples of one epoch; those of a task come `emphasis[task]` times, once by default."""
        return torch.arange(len(self.tasks)).repeat_interleave(
            torch.tensor([emphasis.get(task, 1) for task in self.tasks])
        )


def encode_corpus(editor: KleinEditor, pairs: "Pairs", runtime: Runtime) -> Corpus:
    """Encode the pairs, every process its share of them."""

    def tokens(pixels: Tensor, what: str) -> tuple[Tensor, Any]:
        batches = tqdm(_share(pixels, runtime).split(64), desc=what, leave=False, disable=not runtime.is_main)
        parts = [editor.encode_image(batch.float() / 127.5 - 1) for batch in batches]
        mine = torch.cat([part for part, _ in parts])
        if runtime.num_processes == 1:
            return mine, parts[0][1]
        every = runtime.accelerator.gather(mine).unflatten(0, (runtime.num_processes, -1))
        return every.transpose(0, 1).flatten(0, 1), parts[0][1]

    distinct = list(dict.fromkeys(pairs.prompts))
    row = {prompt: index for index, prompt in enumerate(distinct)}
    source_tokens, grid = tokens(pairs.sources, "encode sources")
    return Corpus(
        sources=source_tokens,
        targets=tokens(pairs.targets, "encode edits")[0],
        text=editor.encode_text(distinct),
        prompt_of=torch.tensor([row[prompt] for prompt in pairs.prompts]),
        tasks=pairs.tasks,
        grid=grid,
    )


def _share(batch: Tensor, runtime: Runtime) -> Tensor:
    """This process's rows of what all processes draw alike."""
    return batch[runtime.rank :: runtime.num_processes]


def _average_gradients(weights: Sequence[Tensor], runtime: Runtime) -> None:
    """The mean of the processes' gradients; their shares of a batch are equal, so it is that of the whole batch."""
    if runtime.num_processes > 1:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        mean = runtime.accelerator.reduce(torch.cat([grad.flatten() for grad in gradients]), "mean")
        for grad, part in zip(gradients, mean.split([grad.numel() for grad in gradients]), strict=True):
            grad.copy_(part.view_as(grad))


def _optimizers(model: nn.Module, config: NanoConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the rest: three times as fast as AdamW alone at this size."""
    inside = [w for n, w in model.named_parameters() if "transformer_blocks" in n and w.ndim == 2]
    outside = [w for n, w in model.named_parameters() if not ("transformer_blocks" in n and w.ndim == 2)]
    return [
        torch.optim.Muon(inside, lr=config.muon_lr, momentum=0.95, weight_decay=0.0, adjust_lr_fn="original"),
        torch.optim.AdamW(outside, lr=config.adamw_lr, weight_decay=0.0, betas=(0.9, 0.99)),
    ]


def _warm_then_linear(warmup: int, total: int) -> Any:
    return lambda step: min((step + 1) / warmup, max(total - step, 0) / max(total - warmup, 1), 1.0)


def _batch(count: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Which of `count` things a step's batch holds: epochs of full batches, each in its own random order."""
    epoch, index = divmod(step, count // batch_size)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(hash_seed(seed, -1, epoch)))
    return order[index * batch_size : (index + 1) * batch_size]


def _checkpoint(path: Path, state: dict[str, Any], config: NanoConfig, step: int, curve: list[float]) -> None:
    part = path.with_suffix(".part")
    torch.save(
        {
            "config": asdict(config),
            "step": step,
            "curve": curve,
            "model": state["model"].state_dict(),
            "average": state["average"],
            "optimizers": [o.state_dict() for o in state["optimizers"]],
            "schedules": [s.state_dict() for s in state["schedules"]],
        },
        part,
    )
    part.replace(path)


def _resume(path: Path | None, state: dict[str, Any], config: NanoConfig) -> tuple[int, list[float]]:
    """Load a checkpoint into `state`; the next step and the loss curve so far."""
    if path is None or not path.is_file():
        return 0, []
    saved = torch.load(path, weights_only=True)  # tensors and plain containers only: nothing in the file is run
    if saved["config"] != asdict(config):
        raise ValueError(f"{path} belongs to another configuration; remove it, or choose another out folder")
    state["model"].load_state_dict(saved["model"])
    state["average"].update(saved["average"])
    for name in ("optimizers", "schedules"):
        for part, loaded in zip(state[name], saved[name], strict=True):
            part.load_state_dict(loaded)
    log.info("going on from step %d", saved["step"])
    return saved["step"], saved["curve"]


def _finite(loss: Tensor, step: int) -> None:
    if not torch.isfinite(loss):
        raise ValueError(f"the loss is {loss.item()} at step {step}; lower the learning rate")


# ------------------------------------------------------------------------------------------------------- command


@dataclass(frozen=True)
class Pairs:
    """The training pairs: uint8 pictures (N, 3, H, W), and of each its prompt and task."""

    sources: Tensor
    targets: Tensor
    prompts: list[str]
    tasks: list[str]

    @classmethod
    def of(cls, samples: Iterable[EditSample], multiple: int = 1) -> "Pairs":
        """The largest `multiple` of pairs; `ValueError` for one without an edit, or for pictures of several sizes."""
        sources, targets, prompts, tasks = [], [], [], []
        for sample in samples:
            if sample.edit_image is None:
                raise ValueError("every training sample needs an edit_image")
            sources.append(np.asarray(sample.image))
            targets.append(np.asarray(sample.edit_image))
            prompts.append(sample.question)
            tasks.append(sample.task)
        if len({picture.shape for picture in (*sources, *targets)}) > 1:
            raise ValueError("the training pictures differ in size; make them with one size=N")
        count = len(prompts) // multiple * multiple

        def stack(pictures: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(pictures[:count])).permute(0, 3, 1, 2).contiguous()

        return cls(stack(sources), stack(targets), prompts[:count], tasks[:count])


def train(
    samples: Iterable[EditSample], config: NanoConfig, words: Sequence[str] = (), runtime: Runtime | None = None
) -> dict[str, Any]:
    """Build and train a nano base editor in `config.out`; what its making cost.

    `words` are further texts that the tokenizer must know. An interrupted training in the same folder goes on: a
    finished VAE is kept, the transformer continues from its last checkpoint, a finished training is left alone.
    Raises `ValueError` for data that cannot be trained on, or if the folder was made from other options or data.
    """
    runtime = runtime or Runtime(device="cpu", threads=config.threads)
    for name in ("batch_size", "vae_batch_size"):
        if getattr(config, name) % runtime.num_processes:
            raise ValueError(f"{name}={getattr(config, name)} must be a multiple of {runtime.num_processes} processes")
    pairs = Pairs.of(samples, runtime.num_processes)
    if len(pairs.prompts) < config.batch_size:
        raise ValueError(f"{len(pairs.prompts)} samples are fewer than one batch of {config.batch_size}")
    out = Path(config.out)
    record = out / "training.json"
    texts = [*pairs.prompts, *words]
    origin = {"config": asdict(config), "data": _digest(pairs.sources, pairs.targets, texts)}
    editor = build(texts, config.seed)
    if record.is_file():
        made = json.loads(record.read_text(encoding="utf-8"))
        if {key: made.get(key) for key in origin} != origin:
            raise ValueError(f"{out} was made from other options or data; choose another out=FOLDER or remove that one")
        if len(made["courses"]) == len(config.courses()):
            log.info("the editor in %s is finished", out)
            return made
        kept = KleinEditor.load(out, device="cpu", dtype="float32")
        editor.vae, editor.transformer = kept.vae, kept.transformer
        log.info("the VAE in %s and %d courses of the transformer are kept", out, len(made["courses"]))
    else:
        begin = time.time()
        error = train_vae(editor, torch.cat([pairs.sources, pairs.targets]), config, runtime)
        made = {**origin, "num_samples": len(pairs.prompts), "torch": torch.__version__, "vae_l1": round(error, 4)}
        made |= {"num_processes": runtime.num_processes, "vae_seconds": round(time.time() - begin), "courses": []}
        if runtime.is_main:
            editor.save(out)
            _write_json(record, made)

    corpus = encode_corpus(editor, pairs, runtime)
    del pairs
    for number, course in enumerate(config.courses()[len(made["courses"]) :], len(made["courses"])):
        begin, checkpoint = time.time(), out / f"checkpoint-{number}.pt"
        curve = train_transformer(editor, corpus, course, runtime, checkpoint)
        rounded = [round(value, 4) for value in curve]
        made["courses"].append({"seconds": round(time.time() - begin), "loss_per_100_steps": rounded})
        if runtime.is_main:
            editor.save(out)
            _write_json(record, made)
            checkpoint.unlink(missing_ok=True)
        runtime.wait()
    return made


def _digest(sources: Tensor, targets: Tensor, texts: Sequence[str]) -> str:
    digest = hashlib.sha256("\0".join(texts).encode())
    for pixels in (sources, targets):
        digest.update(pixels.numpy().tobytes())
    return digest.hexdigest()[:16]


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    from etchr.config import parse_command
    from etchr.router import Router

    config = parse_command(
        NanoConfig,
        config_name=None,
        argv=sys.argv[1:] if argv is None else argv,
        prog="python -m etchr.editor.nano",
        description="Build and train the nano base editor on explicit instructions.",
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    samples = _read(config.data, "instruction")
    router = Router.load()
    words = [router.prompt(sample.question, sample.family) for sample in _read(config.questions, "question")]
    try:
        train(samples, config, words)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    log.info("nano base editor: %s", config.out)


def _read(folder: str, kind: str) -> Iterator[EditSample]:
    parts = sorted(path.parent for path in Path(folder).glob("*/train.parquet"))
    if not parts:
        raise SystemExit(
            f"no <task>/train.parquet in {folder}; make it with: "
            f"python -m data_prep all kind={kind} split=train num_samples=4000 seed=1 out={folder}"
        )
    return (sample for part in parts for sample in read_parquet(part, "train"))


if __name__ == "__main__":
    main()
