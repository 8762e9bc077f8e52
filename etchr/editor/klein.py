"""FLUX.2-klein as an image editor, on diffusers' own classes: load, encode, velocity, decode, edit.

The tensor-level pieces (`encode_text`, `encode_image`, `velocity`, `decode`) are the ones that training uses too, so
that a model is trained on exactly what it sees at inference. The same class runs 9B, 4B and the nano model; all that
differs is the folder. A folder saved here loads in `Flux2KleinPipeline.from_pretrained`, and a klein-base folder or hub
id loads here.
"""

import copy
import itertools
import json
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from etchr.editor import efficiency, geometry
from etchr.editor.folder import SETTINGS_FILE, EditorSettings, check_folder, read_json
from etchr.editor.protocol import References, paired
from etchr.editor.tokens import Grid, image_ids, patchify, text_ids, to_images, to_pixels, unpatchify
from etchr.flow.schedule import inference_sigmas
from etchr.flow.steps import euler_step
from etchr.pages import short

log = logging.getLogger(__name__)

TEXT_CACHE_ENTRIES = 64  # a prompt of klein 9B is 12.6 MB in bf16
CONDITION_TIME = 10  # time between condition pictures: the first is at 10, the next at 20; the target at 0 (diffusers)


class KleinEditor:
    """An `Editor` on FLUX.2-klein weights."""

    def __init__(
        self,
        transformer: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Any,
        settings: EditorSettings | None = None,
        name: str = "klein",
        batch_size: int = 16,
    ) -> None:
        self.transformer, self.vae = transformer, vae
        self.text_encoder, self.tokenizer = text_encoder, tokenizer
        self.scheduler = scheduler
        self.settings = settings or EditorSettings()
        efficiency.check_text_layers(self.settings.text_encoder_out_layers, text_encoder.config.num_hidden_layers)
        self.name = name
        self.batch_size = batch_size
        self._text: OrderedDict[str, Tensor] = OrderedDict()

    # ------------------------------------------------------------------------------------------------ folders

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        lora: str | Path | None = None,
        quantisation: str | None = None,
        batch_size: int = 16,
        **settings: Any,
    ) -> "KleinEditor":
        """Load a klein folder or hub id, with an optional LoRA; `settings` that are not None replace the folder's.

        `device` auto takes a GPU where there is one; `dtype` auto is bfloat16 there and float32 on a CPU. On `meta` no
        weights are read: shapes and parameter counts of a folder without its gigabytes. `quantisation` int8, fp8 or nf4
        shrinks the frozen transformer (see `efficiency.quantisation`); an adapter on it trains as usual.
        A distilled klein has 4 steps without guidance. Raises `ValueError` for what is not a FLUX.2-klein.
        """
        check_folder(folder, hub_must_answer=True)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        torch_dtype = (
            getattr(torch, dtype) if dtype != "auto" else (torch.float32 if device == "cpu" else torch.bfloat16)
        )
        read = EditorSettings.read(folder, **settings)
        encoder_config = Path(folder) / "text_encoder" / "config.json"
        if encoder_config.is_file():  # a hub id's is checked once it is there
            layer_count = read_json(encoder_config).get("num_hidden_layers")
            if not isinstance(layer_count, int):
                raise ValueError(f"{encoder_config}: num_hidden_layers={layer_count!r:.60} must be a whole number")
            efficiency.check_text_layers(read.text_encoder_out_layers, layer_count)
        if quantisation is not None:
            efficiency.check_quantisation(quantisation, device)
        try:
            if device == "meta":
                parts = _empty_parts(Path(folder), torch_dtype)
            else:
                parts = _read_parts(folder, torch_dtype, quantisation)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:  # of files that hold anything
            raise ValueError(f"{folder} cannot be read as a FLUX.2-klein: {type(error).__name__}: {error}") from None
        for name in ("transformer", "vae", "text_encoder"):
            parts[name].requires_grad_(False).eval().to(device)
        name = Path(folder).name + (f"+{quantisation}" if quantisation else "")
        if lora is not None:
            from etchr.editor import lora as adapters

            adapters.load(parts["transformer"], lora, dtype=torch_dtype, partial=True)
            parts["transformer"].requires_grad_(False)
            name += f"+{Path(lora).name}"
        return cls(**parts, settings=read, name=name, batch_size=batch_size)

    def with_sampling(
        self, num_inference_steps: int | None = None, guidance_scale: float | None = None
    ) -> "KleinEditor":
        """The same weights, in the same memory, sampled in another way; None keeps what is set.

        Returns this editor where nothing changes. Raises `ValueError` as `EditorSettings`.
        """
        asked: dict[str, Any] = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        settings = replace(self.settings, **{name: value for name, value in asked.items() if value is not None})
        if settings == self.settings:
            return self
        other = copy.copy(self)
        other.settings = settings
        return other

    def save(self, folder: str | Path) -> None:
        """Write a folder that `Flux2KleinPipeline.from_pretrained` and `load` read (safetensors only)."""
        from diffusers import Flux2KleinPipeline

        if getattr(self.transformer, "is_quantized", False):
            raise ValueError(f"{self.name} is quantised and not for saving; save its LoRA, or load it unquantised")
        parts = {name: getattr(self, name) for name in _COMPONENTS}
        pipeline = Flux2KleinPipeline(**parts, is_distilled=self.settings.is_distilled)
        pipeline.save_pretrained(str(folder), safe_serialization=True)
        for path in Path(folder).glob("*/config.json"):  # diffusers notes where a part came from; nobody's business
            config = json.loads(path.read_text(encoding="utf-8"))
            if config.pop("_name_or_path", None) is not None:
                path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        text = json.dumps(asdict(self.settings), indent=2) + "\n"
        (Path(folder) / SETTINGS_FILE).write_text(text, encoding="utf-8")

    @property
    def device(self) -> torch.device:
        weight: Tensor = self.transformer.x_embedder.weight
        return weight.device  # diffusers' own property looks through all hooks

    @property
    def dtype(self) -> torch.dtype:
        weights: Iterator[Tensor] = self.transformer.parameters()  # diffusers' own property looks through all modules
        return next(weight.dtype for weight in weights if weight.is_floating_point())

    @property
    def pixel_side(self) -> int:
        """Pixels along one side of a latent token: the VAE's factor times the 2x2 patch."""
        return 1 << len(self.vae.config.block_out_channels)

    # ------------------------------------------------------------------------------------- tensor-level pieces

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Prompts to embeddings (B, L, D): hidden states of `text_encoder_out_layers`, side by side.

        Each distinct prompt is encoded once and remembered. A prompt over `max_sequence_length` tokens is cut, with a
        warning: the cut part does not reach the editor.
        """
        fresh = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._text]
        rows = {prompt: self._text[prompt] for prompt in prompts if prompt in self._text}
        for start in range(0, len(fresh), self.batch_size):
            chunk = fresh[start : start + self.batch_size]
            rows.update(zip(chunk, self._encode_prompts(chunk), strict=True))
        for prompt, row in rows.items():
            self._text[prompt] = row
            self._text.move_to_end(prompt)
        while len(self._text) > TEXT_CACHE_ENTRIES:
            self._text.popitem(last=False)
        return torch.stack([rows[prompt] for prompt in prompts])

    def _encode_prompts(self, prompts: list[str]) -> Tensor:
        length = self.settings.max_sequence_length
        texts = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            for prompt in prompts
        ]
        for prompt, ids in zip(prompts, self.tokenizer(texts)["input_ids"], strict=True):
            if len(ids) > length:
                log.warning("prompt of %d tokens is cut to %d: %s", len(ids), length, short(prompt, 60))
        tokens = self.tokenizer(texts, return_tensors="pt", padding="max_length", truncation=True, max_length=length)
        tokens = tokens.to(self.text_encoder.device)
        layers = efficiency.text_hidden_states(
            self.text_encoder, self.settings.text_encoder_out_layers, tokens["input_ids"], tokens["attention_mask"]
        )
        return torch.cat(layers, dim=-1).to(self.device, self.dtype)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> tuple[Tensor, Grid]:
        """Pixels (B, 3, H, W) in [-1, 1] to normalised latent tokens (B, N, C) and their grid (posterior mode)."""
        latents = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist.mode()
        latents = patchify(latents)
        mean, std = self._latent_statistics(latents)
        latents = (latents - mean) / std
        return latents.flatten(2).transpose(1, 2).to(self.dtype), Grid(*latents.shape[-2:])

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Latent tokens (B, N, C) to pixels (B, 3, H, W), nominally in [-1, 1]."""
        latents = tokens.transpose(1, 2).reshape(*tokens.shape[::2], grid.height, grid.width)
        mean, std = self._latent_statistics(latents)
        pixels: Tensor = self.vae.decode(unpatchify(latents * std + mean).to(self.vae.dtype), return_dict=False)[0]
        return pixels

    def _latent_statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.vae.bn
        mean = norm.running_mean.view(1, -1, 1, 1).to(like)
        std = torch.sqrt(norm.running_var.view(1, -1, 1, 1) + self.vae.config.batch_norm_eps).to(like)
        return mean, std

    def velocity(
        self, latents: Tensor, sigma: Tensor, text: Tensor, condition: Tensor, grid: Grid, *condition_grids: Grid
    ) -> Tensor:
        """The velocity (B, N, C) of the target tokens by this editor's transformer; see `velocity`."""
        return velocity(self.transformer, latents, sigma, text, condition, grid, *condition_grids)

    def noise(self, seeds: Sequence[int], grid: Grid) -> Tensor:
        """Initial noise tokens (B, N, C), each from its own seed, equal on every device."""
        channels = self.transformer.config.in_channels
        rows = [
            torch.randn(channels, grid.height, grid.width, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        return torch.stack(rows).flatten(2).transpose(1, 2).to(self.device, self.dtype)

    # ------------------------------------------------------------------------------------------------ editing

    def fitted_size(self, image: Image.Image) -> tuple[int, int]:
        """See `protocol.Editor`."""
        return geometry.fit_size(*image.size, max_pixels=self.settings.max_pixels)

    @torch.no_grad()
    def edit(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int],
        references: References | None = None,
    ) -> list[Image.Image]:
        """One edit per (image, prompt, seed), of the size `geometry.fit` gives its source; see `protocol.Editor`."""
        further = paired(images, prompts, seeds, references)
        pictures = [
            [geometry.fit(picture, max_pixels=self.settings.max_pixels) for picture in (image, *others)]
            for image, others in zip(images, further, strict=True)
        ]
        by_size: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for index, each in enumerate(pictures):
            by_size.setdefault(tuple(picture.size for picture in each), []).append(index)
        edits: dict[int, Image.Image] = {}
        for indices in by_size.values():
            while indices:
                chunk = indices[: self.batch_size]
                text = self.encode_text([prompts[i] for i in chunk])
                sources, *others = zip(*(pictures[i] for i in chunk), strict=True)
                try:
                    made = self.edit_batch(sources, text, [seeds[i] for i in chunk], *others)
                except torch.OutOfMemoryError:
                    if len(chunk) == 1:
                        raise
                    self.batch_size = (len(chunk) + 1) // 2
                else:
                    edits.update(zip(chunk, made, strict=True))
                    indices = indices[len(chunk) :]
                    continue
                # past the handler, for the error's frames hold the memory that ran out
                torch.cuda.empty_cache()
                log.warning("memory ran out at %d edits a batch; from now on there are %d", len(chunk), self.batch_size)
        return [edits[index] for index in range(len(images))]

    @torch.no_grad()
    def edit_batch(
        self, sources: Sequence[Image.Image], text: Tensor, seeds: Sequence[int], *references: Sequence[Image.Image]
    ) -> list[Image.Image]:
        """Edits of sources of one size that `geometry.fit` has seen, with encoded prompts `text` (B, L, D).

        Each of `references` holds one more picture for every source, in the sources' order; these too are fitted and
        of one size, which need not be the sources'.
        """
        encoded = [self.encode_image(to_pixels(pictures)) for pictures in (sources, *references)]
        condition, grids = torch.cat([tokens for tokens, _ in encoded], dim=1), [grid for _, grid in encoded]
        tokens = self.sample(self.noise(seeds, grids[0]), text, condition, *grids)
        return to_images(self.decode(tokens, grids[0]))

    def sample(self, noise: Tensor, text: Tensor, condition: Tensor, grid: Grid, *reference_grids: Grid) -> Tensor:
        """Walk from noise (B, N, C) to clean tokens; guided and unguided velocity come from one batched forward.

        `condition` (B, N + M, C): the source's tokens, and behind them those of references on `reference_grids`.
        """
        scale = self.settings.guidance_scale
        guided = scale > 1
        if guided:
            text = torch.cat([text, self.encode_text([""]).expand_as(text)])
            condition = torch.cat([condition, condition])
        sigmas = inference_sigmas(self.scheduler, grid.num_tokens, self.settings.num_inference_steps).tolist()
        x = noise
        for sigma, next_sigma in itertools.pairwise(sigmas):
            twice = torch.cat([x, x]) if guided else x
            levels = torch.full((len(twice),), sigma)
            velocity = self.velocity(twice, levels, text, condition, grid, grid, *reference_grids)
            if guided:
                positive, negative = velocity.chunk(2)
                velocity = negative + scale * (positive - negative)
            x = euler_step(x, velocity, sigma, next_sigma)
        return x


def velocity(
    transformer: Any,
    latents: Tensor,
    sigma: Tensor,
    text: Tensor,
    condition: Tensor,
    grid: Grid,
    *condition_grids: Grid,
) -> Tensor:
    """The velocity (B, N, C) of the target tokens.

    `latents` (B, N, C) at noise levels `sigma` (B,) in [0, 1], `text` (B, L, D), `condition` (B, M, C): the clean
    tokens of one picture or several, on `condition_grids` in that order, appended along the sequence, each picture with
    its own time coordinate. Computed in the dtype and on the device of `text`. Differentiable. `transformer` is only
    called, so it may be wrapped (DDP).
    """
    ids = torch.cat([image_ids(each, CONDITION_TIME * time) for time, each in enumerate((grid, *condition_grids))])
    output: Tensor = transformer(
        hidden_states=torch.cat([latents, condition], dim=1).to(text.dtype),
        timestep=sigma.to(text.device, text.dtype),
        encoder_hidden_states=text,
        txt_ids=text_ids(text.shape[1]).to(text.device),
        img_ids=ids.to(text.device),
        guidance=None,
        return_dict=False,
    )[0]
    return output[:, : latents.shape[1]]


_COMPONENTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")


def _read_parts(folder: str | Path, dtype: torch.dtype, quantisation: str | None) -> dict[str, Any]:
    from diffusers import Flux2KleinPipeline

    config = efficiency.quantisation(quantisation, dtype) if quantisation else None
    pipeline = Flux2KleinPipeline.from_pretrained(
        str(folder), dtype=dtype, use_safetensors=True, quantization_config=config
    )
    return {name: pipeline.components[name] for name in _COMPONENTS}


def _empty_parts(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """The components that a folder's configuration files describe, their weights on the meta device."""
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    with torch.device("meta"):
        networks = {
            "transformer": Flux2Transformer2DModel.from_config(
                Flux2Transformer2DModel.load_config(folder / "transformer")
            ),
            "vae": AutoencoderKLFlux2.from_config(AutoencoderKLFlux2.load_config(folder / "vae")),
            "text_encoder": Qwen3ForCausalLM(Qwen3Config.from_pretrained(folder / "text_encoder")),
        }
    return {
        **{name: torch.nn.Module.to(network, dtype) for name, network in networks.items()},
        "tokenizer": AutoTokenizer.from_pretrained(folder / "tokenizer"),
        "scheduler": FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
    }
