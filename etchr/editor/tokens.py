"""Pixels, latents and tokens: the shapes that klein's transformer speaks in. Functions of tensors alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """The token grid of an image: one token is 2x2 VAE latents (16x16 px for klein, 8x8 px for nano)."""

    height: int
    width: int

    @property
    def num_tokens(self) -> int:
        return self.height * self.width


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """RGB images of one size to (B, 3, H, W) in [-1, 1]."""
    width, height = images[0].size
    data = torch.frombuffer(bytearray(b"".join(image.tobytes() for image in images)), dtype=torch.uint8)
    return data.view(len(images), height, width, 3).permute(0, 3, 1, 2) / 127.5 - 1


def to_images(pixels: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [-1, 1] to RGB images, clipped and rounded."""
    data = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().contiguous()
    return [Image.fromarray(array) for array in data.numpy()]


def patchify(latents: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 4 C, H / 2, W / 2): each 2x2 patch becomes channels, ordered (c, row, column)."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * 4, height // 2, width // 2)


def unpatchify(latents: Tensor) -> Tensor:
    """The inverse of `patchify`."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels // 4, 2, 2, height, width)
    return patches.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels // 4, height * 2, width * 2)


def image_ids(grid: Grid, time: int) -> Tensor:
    """Positions (N, 4) of an image's tokens as (t, h, w, l), row by row."""
    return torch.cartesian_prod(
        torch.tensor([time]), torch.arange(grid.height), torch.arange(grid.width), torch.tensor([0])
    )


def text_ids(length: int) -> Tensor:
    """Positions (L, 4) of text tokens: only l counts."""
    zero = torch.tensor([0])
    return torch.cartesian_prod(zero, zero, zero, torch.arange(length))
