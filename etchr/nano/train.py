"""A FLUX.2-klein small enough to train on a laptop CPU, and the base *instruction* editor that the project starts from.

`python -m etchr.nano.train data=FOLDER out=FOLDER` builds the four parts on diffusers' and transformers' own classes
and trains two of them on explicit instructions ("Red box round the blue square."):

1. tokenizer: byte-level BPE on the prompts of the data, saved with the folder and never retrained;
2. text encoder: a random, frozen Qwen3;
3. VAE: reconstruction, then the latent statistics that klein keeps in `vae.bn`, then its decoder alone (`nano_vae.py`);
4. transformer: flow matching on the latents, as for the full-size model, at the noise levels that inference visits;
   in a second, shorter course mostly on what the first one leaves wrong.

Under `accelerate launch` the processes share every batch, and the encoding of the data. The result is a normal klein
folder of a few MB. It draws what it is told and has never seen a question: closing that gap is what Stage I is for. The
folder kept in the repository is `folder.NANO_BASE`; its README says how it was made.
"""

import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from etchr.editor.efficiency import compile_blocks
from etchr.editor.klein import KleinEditor
from etchr.flow.matching import interpolate, target_velocity
from etchr.flow.schedule import inference_mu, noise_levels, stratified_sigmas
from etchr.nano.data import Corpus, PixelPairs, encode_corpus
from etchr.nano.model import build
from etchr.nano.settings import Course, NanoConfig
from etchr.nano.vae import check_finite, train_vae, warm_then_linear
from etchr.run_folder import whole
from etchr.runtime import Runtime
from etchr.sample import EditSample, read_parquet
from etchr.seeds import hash_seed
from etchr.training.muon import Muon

log = logging.getLogger(__name__)

# ------------------------------------------------------------------------------------------------------ training


def train_transformer(
    editor: KleinEditor,
    corpus: Corpus,
    config: NanoConfig,
    course: Course,
    runtime: Runtime,
    checkpoint: Path | None = None,
) -> list[float]:
    """Flow matching on encoded pairs; leaves the averaged weights in the editor and returns the loss curve.

    With a `checkpoint` file the training goes on from it, and ends with the same weights as an unbroken one: what a
    step sees depends on (seed, step) alone, whatever the number of processes.
    """
    model = editor.transformer
    model.train().requires_grad_(True)
    compile_blocks(model, config.compile)
    average = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizers = _optimizers(model, config, course.rate)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, warm_then_linear(config.warmup_steps, course.steps)) for o in optimizers
    ]
    empty = editor.encode_text([""])[0]
    mu = inference_mu(editor.scheduler, corpus.grid.num_tokens, editor.settings.num_inference_steps)
    state = {"model": model, "average": average, "optimizers": optimizers, "schedules": schedules}
    start, curve = _resume(checkpoint, state, config, course)
    recent = 0.0
    todo, epoch = range(start, course.steps), corpus.epoch(course.emphasis)
    for step in (bar := tqdm(todo, "base", course.steps, unit="step", initial=start, disable=not runtime.is_main)):
        generator = torch.Generator().manual_seed(hash_seed(config.seed, course.first + step))
        rows = epoch[_batch(len(epoch), config.batch_size, course.first + step, config.seed)]
        x0, condition, text = corpus.targets[rows], corpus.sources[rows], corpus.text[corpus.prompt_of[rows]]
        dropped = torch.rand(len(rows), generator=generator) < config.prompt_dropout
        text = torch.where(dropped[:, None, None], empty, text)
        sigma = noise_levels(stratified_sigmas(len(rows), generator), "inference", mu).sigma
        noise = torch.randn(x0.shape, generator=generator)
        x0, condition, text, sigma, noise = (runtime.share(part) for part in (x0, condition, text, sigma, noise))

        # ----- gradient step
        velocity = editor.velocity(interpolate(x0, noise, sigma), sigma, text, condition, corpus.grid, corpus.grid)
        loss = F.mse_loss(velocity, target_velocity(x0, noise))
        check_finite(loss, step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        runtime.average_gradients(model.parameters())
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
            _checkpoint(checkpoint, state, config, course, step + 1, curve)
    model.load_state_dict(average)
    model.eval().requires_grad_(False)
    return curve


def _optimizers(model: nn.Module, config: NanoConfig, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the rest: three times as fast as AdamW alone at this size."""
    inside = [w for n, w in model.named_parameters() if "transformer_blocks" in n and w.ndim == 2]
    outside = [w for n, w in model.named_parameters() if not ("transformer_blocks" in n and w.ndim == 2)]
    return [
        Muon(inside, lr=config.muon_lr * rate, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(outside, lr=config.adamw_lr * rate, weight_decay=0.0, betas=(0.9, 0.99)),
    ]


def _batch(count: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Which of `count` things a step's batch holds: epochs of full batches, each in its own random order."""
    epoch, index = divmod(step, count // batch_size)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(hash_seed(seed, -1, epoch)))
    return order[index * batch_size : (index + 1) * batch_size]


def _checkpoint(
    path: Path, state: dict[str, Any], config: NanoConfig, course: Course, step: int, curve: list[float]
) -> None:
    with whole(path) as part:
        torch.save(
            {
                "config": asdict(config),
                "first": course.first,
                "step": step,
                "curve": curve,
                "model": state["model"].state_dict(),
                "average": state["average"],
                "optimizers": [o.state_dict() for o in state["optimizers"]],
                "schedules": [s.state_dict() for s in state["schedules"]],
            },
            part,
        )


def _resume(path: Path | None, state: dict[str, Any], config: NanoConfig, course: Course) -> tuple[int, list[float]]:
    """Load a checkpoint into `state`; the next step and the loss curve so far."""
    if path is None or not path.is_file():
        return 0, []
    saved = torch.load(path, weights_only=True)  # tensors and plain containers only: nothing in the file is run
    if saved["config"] != asdict(config):
        raise ValueError(f"{path} belongs to another configuration; remove it, or choose another out folder")
    if saved["first"] != course.first:  # left by a course that was finished
        return 0, []
    state["model"].load_state_dict(saved["model"])
    state["average"].update(saved["average"])
    for name in ("optimizers", "schedules"):
        for part, loaded in zip(state[name], saved[name], strict=True):
            part.load_state_dict(loaded)
    log.info("going on from step %d", saved["step"])
    return saved["step"], saved["curve"]


# ------------------------------------------------------------------------------------------------------- command


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
    pairs = PixelPairs.of(samples, runtime.num_processes)
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
        kept = KleinEditor.load(out, device="cpu", dtype="float32")
        editor.vae, editor.transformer = kept.vae, kept.transformer
        log.info("what is finished in %s is kept", out)
    else:
        begin = time.time()
        error = train_vae(editor, torch.cat([pairs.sources, pairs.targets]), config, runtime)
        made = {**origin, "num_samples": len(pairs.prompts), "torch": torch.__version__, "vae_l1": round(error, 4)}
        made |= {"num_processes": runtime.num_processes, "vae_seconds": round(time.time() - begin), "courses": []}
        if runtime.is_main:
            editor.save(out)
            _write_json(record, made)

    todo = config.courses()[len(made["courses"]) :]
    corpus = encode_corpus(editor, pairs, runtime) if todo else None
    del pairs
    checkpoint = out / "checkpoint.pt"
    for course in todo:
        assert corpus is not None
        begin = time.time()
        curve = train_transformer(editor, corpus, config, course, runtime, checkpoint)
        seconds = round(time.time() - begin)
        made["courses"].append({"seconds": seconds, "loss_per_100_steps": [round(value, 4) for value in curve]})
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
        prog="python -m etchr.nano.train",
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
            f"python -m data_prep all kind={kind} split=train num_samples=10000 seed=1 out={folder}"
        )
    return (sample for part in parts for sample in read_parquet(part, "train"))


if __name__ == "__main__":
    main()
