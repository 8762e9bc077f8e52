"""What the frozen parts of the editor make of a micro-batch, each picture and prompt once where a cache is kept."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from etchr.editor.klein import KleinEditor
from etchr.editor.tokens import Grid
from etchr.sft.cache import DiskCache, MemoryCache, NoCache, TensorCache, weights_digest
from etchr.sft.data import MicroBatch, Picture, StepLoader
from etchr.sft.objective import Pairs
from etchr.sft.released import pixel_values
from etchr.training.data import Size
from etchr.training.plan import chunks, chunks_of_one_size


class PairEncoder:
    """Micro-batches to `Pairs` through VAE and text encoder.

    What is missing in the caches is encoded one by one: kernels round differently in batches of another size, and an
    entry must not depend on what else was missing when it was made, or a run that is killed would not end as an
    unbroken one. `fill` is the fast way: batches, but always the same ones.
    """

    def __init__(
        self, editor: KleinEditor, latents: TensorCache, texts: TensorCache, released_rounding: bool = False
    ) -> None:
        self.editor, self.latents, self.texts, self.released_rounding = editor, latents, texts, released_rounding

    def __call__(self, batch: MicroBatch, dropped: Sequence[bool] | None = None) -> Pairs:
        """The pairs on the editor's device; prompts that are `dropped` become the empty one."""
        dropped = dropped or [False] * len(batch.prompts)
        prompts = ["" if drop else prompt for prompt, drop in zip(batch.prompts, dropped, strict=True)]
        return Pairs(
            target=self._tokens(batch.targets),
            condition=self._tokens(batch.conditions),
            text=self.text(prompts),
            grid=self.grid(batch.sizes[0]),
            condition_grid=self.grid(batch.sizes[1]),
        )

    def grid(self, size: Size) -> Grid:
        """The token grid of a picture of (width, height)."""
        side = self.editor.pixel_side
        return Grid(size[1] // side, size[0] // side)

    def _tokens(self, pictures: list[Picture]) -> Tensor:
        """Latent tokens (B, N, C)."""
        for picture in pictures:
            if picture.tokens is None:
                self._encode([picture])
        return torch.stack([p.tokens.to(self.editor.device) for p in pictures if p.tokens is not None])

    def _encode(self, pictures: list[Picture]) -> None:
        """Encode pictures of one size together; what was read, not made up, goes into the cache."""
        levels = torch.stack([p.pixels for p in pictures if p.pixels is not None])
        pixels = pixel_values(levels).float() if self.released_rounding else levels.float() / 127.5 - 1
        for picture, tokens in zip(pictures, self.editor.encode_image(pixels)[0], strict=True):
            picture.tokens = tokens
            if picture.key:
                self.latents.put(picture.key, tokens)

    def text(self, prompts: Sequence[str]) -> Tensor:
        """Prompt embeddings (B, L, D)."""
        return torch.stack([self._text(prompt).to(self.editor.device) for prompt in prompts])

    def _text(self, prompt: str) -> Tensor:
        row = self.texts.get(prompt)
        if row is None:
            row = self.editor.encode_text([prompt])[0]
            self.texts.put(prompt, row)
        return row

    def fill(self, loader: StepLoader, indices: Sequence[int], show: bool) -> None:
        """Put pictures and prompts of these pairs into the caches, in batches that depend on `indices` alone."""
        together = self.editor.batch_size
        same_size = chunks_of_one_size(indices, loader.data.sizes, together)
        for chunk in tqdm(same_size, "encode pictures", unit="batch", disable=not show):
            batch = loader.read(chunk, chunk)
            pictures = (*batch.targets, *batch.conditions)
            if any(picture.tokens is None for picture in pictures):
                if any(picture.pixels is None for picture in pictures):  # a pair that the cache holds
                    batch = loader.read(chunk, chunk, cached=False)
                self._encode(batch.targets)
                self._encode(batch.conditions)
        prompts = sorted({loader.data.prompts[index] for index in indices})
        for group in tqdm(chunks(prompts, together), "encode prompts", unit="batch", disable=not show):
            if any(self.texts.get(prompt) is None for prompt in group):
                for prompt, row in zip(group, self.editor.encode_text(group), strict=True):
                    self.texts.put(prompt, row)


def open_caches(
    kind: str, folder: str, editor: KleinEditor, released_rounding: bool = False
) -> tuple[TensorCache, TensorCache]:
    """The caches of latents and of text embeddings."""
    if kind == "memory":
        return MemoryCache(), MemoryCache()
    if kind == "none":
        return NoCache(), NoCache()
    vae = {
        "holds": "latents",
        "vae": weights_digest(editor.vae),
        "config": _config_digest(dict(editor.vae.config)),
        "dtype": str(editor.dtype),
    } | ({"pixels": "bfloat16"} if released_rounding else {})
    return DiskCache(Path(folder) / "latents", vae), DiskCache(Path(folder) / "texts", _text_fingerprint(editor))


def _config_digest(config: dict[str, Any]) -> str:
    """A digest of a model's settings; where it was loaded from and by which version does not count."""
    kept = {name: value for name, value in config.items() if name[0] != "_" and name != "transformers_version"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def _text_fingerprint(editor: KleinEditor) -> dict[str, Any]:
    tokenizer = editor.tokenizer
    vocabulary = json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer.chat_template])
    return {
        "holds": "texts",
        "text_encoder": weights_digest(editor.text_encoder),
        "config": _config_digest(editor.text_encoder.config.to_dict()),
        "tokenizer": hashlib.sha256(vocabulary.encode()).hexdigest(),
        "layers": list(editor.settings.text_encoder_out_layers),
        "max_sequence_length": editor.settings.max_sequence_length,
        "dtype": str(editor.dtype),
    }
