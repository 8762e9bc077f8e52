"""What pages and reports show of data that comes from outside: texts stay texts, pictures have a bounded size.

All HTML is made by `fill`. Jinja2 is imported on first use.
"""

import base64
import hashlib
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from etchr.images import to_data_uri, to_rgb

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
MAX_SHORT = 300  # characters
QUALITY = 85  # of JPEG thumbnails


def short(words: object, limit: int = MAX_SHORT) -> str:
    """`words` on one line of at most `limit` characters, without what could steer a terminal or break an encoding."""
    line = " ".join(str(words)[: 4 * limit].split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def script_json(value: Any) -> str:
    """`value` as JSON that may stand in a <script>: no text in it can end the element or begin another.

    `ValueError` for NaN and infinities, which no page could parse. In a template, `tojson` is the same.
    """
    from jinja2.utils import htmlsafe_json_dumps

    return str(htmlsafe_json_dumps(value, allow_nan=False))


def fill(
    template: Path, title: str, style: str = "", scripts: Sequence[str] = (), images: str = "'none'", **values: Any
) -> str:
    """A page: the Jinja2 `template`, which extends `page.html`, with every text of `values` escaped.

    `style`, which comes after `page.css`, and `scripts` are our own and stand as they are. The page's policy lets a
    browser apply and run these alone, by their digest, with what such a script loads; show pictures from `images`; and
    fetch nothing else. A name that the template uses and `values` lacks is an error.
    """
    from markupsafe import Markup

    style = (HERE / "page.css").read_text(encoding="utf-8") + style
    policy = ["default-src 'none'", f"img-src {images}", f"style-src {_digest(style)}"]
    if scripts:
        policy.append(f"script-src {' '.join(map(_digest, scripts))} 'strict-dynamic'")
    ours = {"policy": "; ".join([*policy, "base-uri 'none'", "form-action 'none'"]), "title": title}
    page = _templates(template.parent).get_template(template.name)
    return page.render(values | ours, style=Markup(style), scripts=list(map(Markup, scripts)))


@cache
def _templates(folder: Path) -> "Environment":
    """The templates of `folder` and those that all pages share."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([folder, HERE])
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return found


def _digest(text: str) -> str:
    """A text as a source of a page's policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """The picture with at most `side` px a side, its shape kept; one that is small enough is returned as it is."""
    if max(image.size) <= side:
        return image
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def encode_jpeg(image: Image.Image, quality: int = QUALITY) -> bytes:
    """JPEG bytes of the pixels alone, without metadata: equal pixels give equal bytes."""
    rgb, buffer = to_rgb(image), io.BytesIO()
    Image.frombytes("RGB", rgb.size, rgb.tobytes()).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def picture_uri(image: Image.Image, side: int) -> str:
    """A data URI of the picture: up to `side` px pixel by pixel (PNG), else of its thumbnail (JPEG)."""
    if max(image.size) <= side:
        return to_data_uri(image)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(thumbnail(image, side))).decode("ascii")
