"""The gallery's pictures: files of the run folder, small ones as they are, larger ones as thumbnails, made once."""

import hashlib
import os
import re
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from PIL import Image

from etchr.images import PNG_MAGIC, decode_image, encode_png
from etchr.pages import encode_jpeg, thumbnail
from etchr.run_folder import write_atomically

THUMBNAIL = 384  # px of the longer side; larger pictures are shown scaled down, as JPEG
LARGE = 2048  # px of the longer side of what a thumbnail of the data's pictures leads to

_EDIT = re.compile(r"edits/[\w-]+/[0-9a-f]{20}\.png")  # as `RunFolder.save_picture` names them

Links = list[str]  # what the page shows, and where that leads to if it is a thumbnail; relative to the run folder


class Pictures:
    """Makes the pictures that are not there yet; several threads may use it. Nothing outside the run folder is read."""

    def __init__(self, run_folder: Path) -> None:
        self.root = run_folder.resolve()
        self._folder = self.root / "report"
        self._claimed: set[Path] = set()
        self._lock = threading.Lock()

    def of_file(self, label: str) -> Links | None:
        """The picture that a record names; None if the run has no such picture."""
        if not _EDIT.fullmatch(label):
            return None
        try:
            with open(self.root / label, "rb", opener=_opener) as stream:
                size = _png_size(stream)
                if size is None or max(size) <= THUMBNAIL:
                    return size and [label]
                data = stream.read()
            name = hashlib.sha256(data).hexdigest()[:20] + ".jpg"  # systems may share an edit
            return [self._small(name, lambda: decode_image(data)), label]
        except (OSError, ValueError):  # gone, a link to elsewhere, or damaged
            return None

    def open(self, label: str) -> Image.Image | None:
        """The picture that a record names, decoded; None if the run has no such picture."""
        if not _EDIT.fullmatch(label):
            return None
        try:
            with open(self.root / label, "rb", opener=_opener) as stream:
                return decode_image(stream.read())
        except (OSError, ValueError):
            return None

    def of_data(self, digest: str, size: tuple[int, int], load: Callable[[], Image.Image]) -> Links:
        """A picture of the data, which `load` decodes. `digest` stands for its content, so that it is made once."""
        if max(size) <= THUMBNAIL:
            name = f"{digest}.png"
            self._make("thumbs", name, lambda: encode_png(load()))
            return [f"report/thumbs/{name}"]
        name = f"{digest}.jpg"
        self._make("pictures", name, lambda: encode_jpeg(thumbnail(load(), LARGE)))
        return [self._small(name, load), f"report/pictures/{name}"]

    def _small(self, name: str, load: Callable[[], Image.Image]) -> str:
        self._make("thumbs", name, lambda: encode_jpeg(thumbnail(load(), THUMBNAIL)))
        return f"report/thumbs/{name}"

    def _make(self, folder: str, name: str, encode: Callable[[], bytes]) -> None:
        """Write a file unless it is there, or another thread is about to write it."""
        path = self._folder / folder / name
        with self._lock:
            if path in self._claimed or path.is_file():
                return
            self._claimed.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encode())


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _png_size(stream: IO[bytes]) -> tuple[int, int] | None:
    """Width and height by a PNG's first chunk, quicker than by a decoder; None if it is no PNG."""
    head = stream.read(24)
    stream.seek(0)
    return struct.unpack(">II", head[16:]) if len(head) == 24 and head.startswith(PNG_MAGIC) else None
