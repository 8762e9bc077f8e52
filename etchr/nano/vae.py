"""Training of the nano VAE, and what it shares with that of the transformer."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from etchr.editor.klein import KleinEditor
from etchr.editor.tokens import patchify
from etchr.nano.settings import NanoConfig
from etchr.runtime import Runtime


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
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_then_linear(30, num_steps))
    size, error = pixels.shape[-1], math.nan
    for step in (bar := tqdm(range(num_steps), desc=name, unit="step", disable=not runtime.is_main)):
        rows = torch.randint(len(pixels), (config.vae_batch_size,), generator=generator)
        images = pixels[runtime.share(rows)]
        if step % 5:
            top, left = (int(torch.randint(size // 8 + 1, (), generator=generator)) * 4 for _ in range(2))
            images = images[..., top : top + size // 2, left : left + size // 2]
        images = (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)

        # ----- gradient step
        latents = vae.encode(images).latent_dist.mode()
        noise = torch.randn((len(rows), *latents.shape[1:]), generator=generator)
        decoded = vae.decode(latents + 0.02 * runtime.share(noise), return_dict=False)[0]
        loss = F.l1_loss(decoded, images) + F.mse_loss(decoded, images) + 1e-4 * latents.square().mean()
        check_finite(loss, step)
        optimizer.zero_grad()
        loss.backward()
        runtime.average_gradients(trained)
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


def warm_then_linear(warmup: int, total: int) -> Any:
    return lambda step: min((step + 1) / warmup, max(total - step, 0) / max(total - warmup, 1), 1.0)


def check_finite(loss: Tensor, step: int) -> None:
    if not torch.isfinite(loss):
        raise ValueError(f"the loss is {loss.item()} at step {step}; lower the learning rate")
