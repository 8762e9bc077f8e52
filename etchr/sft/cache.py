"""Latents and text embeddings that were encoded before: in memory, or on disk across runs.

An entry's key is the content that went in (image bytes and size, or the prompt); on disk it lies in a folder named by
the fingerprint of the model that made it. So a stale entry cannot be read: other content has another key, and another
model another folder.
"""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from etchr.run_folder import whole, write_atomically


class TensorCache(Protocol):
    """Tensors by key."""

    def get(self, key: str) -> Tensor | None:
        """The tensor that was put under `key`, None if there is none."""
        ...

    def put(self, key: str, value: Tensor) -> None:
        """Keep `value`."""
        ...


class NoCache:
    """Keeps nothing."""

    def get(self, key: str) -> Tensor | None:
        """None."""
        return None

    def put(self, key: str, value: Tensor) -> None:
        """Nothing."""


class MemoryCache:
    """Keeps everything in this process."""

    def __init__(self) -> None:
        self._entries: dict[str, Tensor] = {}

    def get(self, key: str) -> Tensor | None:
        """A copy of the tensor, on the CPU."""
        value = self._entries.get(key)
        return None if value is None else value.clone()

    def put(self, key: str, value: Tensor) -> None:
        """Keep a copy on the CPU."""
        self._entries[key] = value.detach().to("cpu", copy=True)


class DiskCache:
    """One safetensors file per entry, whole or absent, so any number of processes, runs and models may share a folder.

    `fingerprint` is what decides the entries: model and preprocessing. It lies beside them as `cache.json`.
    """

    def __init__(self, folder: str | Path, fingerprint: dict[str, Any]) -> None:
        text = json.dumps(fingerprint, indent=2, sort_keys=True)
        self._model = hashlib.sha256(text.encode()).hexdigest()
        self.folder = Path(folder) / self._model[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "cache.json", text.encode() + b"\n")

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.safetensors"

    def get(self, key: str) -> Tensor | None:
        """The tensor; a damaged or foreign file counts as absent and will be written again."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as stored:
                note, value = stored.metadata() or {}, stored.get_tensor("value")
        except (SafetensorError, OSError):
            return None
        return value if note == self._note(key, value) else None

    def put(self, key: str, value: Tensor) -> None:
        """Write the entry; `OSError` if the disk is full."""
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        value = value.detach().cpu().contiguous()
        try:
            with whole(path) as part:
                save_file({"value": value}, part, metadata=self._note(key, value))
        except SafetensorError as error:
            raise OSError(f"cannot write to the cache {self.folder}: {error}") from None

    def _note(self, key: str, value: Tensor) -> dict[str, str]:
        """What an entry says about itself. A crash may leave a file of the right length filled up with zeros."""
        return {"key": key, "model": self._model, "crc32": f"{zlib.crc32(_bytes(value)):08x}"}


def _bytes(value: Tensor) -> Any:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


@torch.no_grad()
def weights_digest(*modules: nn.Module) -> str:
    """A digest of every weight and buffer of `modules`, by name, dtype and bytes."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def image_key(data: bytes, size: tuple[int, int], way: str) -> str:
    """The key of an image's latents: its encoded bytes, the size it is brought to, and how."""
    return f"{hashlib.sha256(data).hexdigest()} {size[0]}x{size[1]} {way}"
