"""Texts and pictures for pages: hostile texts stay inside, pictures stay small and carry nothing but pixels."""

import base64
import hashlib
import html
import io
import json
from html.parser import HTMLParser

import jinja2
import numpy as np
import pytest
from PIL import Image

from etchr.images import decode_image, from_data_uri
from etchr.pages import encode_jpeg, fill, picture_uri, script_json, short, thumbnail


class Scripts(HTMLParser):
    """The elements of a page and the text of its scripts, as a browser's parser splits them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "]]>",
    "\u2028\u2029",
    "&lt;/script&gt;",
    "\ud800",
    '"\\',
    "{{ 6 * 7 }}",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_in_the_data_leaves_the_script(hostile):
    value = {hostile: [hostile, {"deep": hostile}]}
    page = Scripts(f"<p><script>{script_json(value)}</script></p>")
    assert page.tags == ["p", "script"]
    assert json.loads(page.text) == value
    assert page.text.isascii()
    assert not set("<>&") & set(page.text)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_fills_a_template_stays_text(tmp_path, hostile):
    template = tmp_path / "template.html"
    template.write_text(
        '{% extends "page.html" %}{% block body %}<p title="{{ x }}">{{ x }}</p><script>{{ x | tojson }}</script>'
        "{% endblock %}"
    )
    tags = ["html", "head", "meta", "meta", "meta", "meta", "title", "style", "body", "p", "script"]
    page = fill(template, hostile, x=hostile)
    assert Scripts(page).tags == tags
    assert f'<p title="{html.escape(hostile).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")}">' in page
    assert "script-src" not in page
    ours = fill(template, "", style="p {}", scripts=["let a = 1 < 2;"], x=hostile)
    assert Scripts(ours).tags == [*tags, "script"]
    assert "<script>let a = 1 < 2;</script>" in ours
    assert f"script-src 'sha256-{_sha256('let a = 1 < 2;')}' 'strict-dynamic'" in html.unescape(ours)
    with pytest.raises(jinja2.UndefinedError, match="'x' is undefined"):
        fill(template, "")


def _sha256(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_no_page_can_parse_is_refused(tmp_path, number):
    (tmp_path / "template.html").write_text("{{ share | tojson }}")
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json({"share": number})
    with pytest.raises(ValueError, match="not JSON compliant"):
        fill(tmp_path / "template.html", "", share=number)


def test_a_short_text_is_one_printable_line():
    assert short("a\n b\t\x1b[31mred\x07\ud800") == "a b ?[31mred??"
    assert short("x" * 20, 10) == "xxxxxxx..."
    assert short("x" * 10, 10) == "x" * 10
    assert short(ValueError("two\nlines")) == "two lines"
    assert len(short("y" * 10_000)) == 300


@pytest.mark.parametrize(
    ("size", "expected"), [((640, 320), (100, 50)), ((99, 300), (33, 100)), ((100, 20), (100, 20))]
)
def test_a_thumbnail_keeps_the_shape_and_is_never_enlarged(size, expected):
    image = Image.new("RGB", size, "red")
    assert thumbnail(image, 100).size == expected
    assert image.size == size


def test_small_pictures_are_kept_pixel_by_pixel_and_large_ones_shrink():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
    assert from_data_uri(picture_uri(noise, 80)).tobytes() == noise.tobytes()
    small = picture_uri(noise, 40)
    assert small.startswith("data:image/jpeg;base64,")
    assert from_data_uri(small).size == (40, 30)


def test_a_jpeg_carries_pixels_alone():
    image = Image.new("RGB", (30, 20), "blue")
    image.info = {"comment": b"secret", "exif": b"Exif\x00\x00secret"}
    data = encode_jpeg(image)
    assert b"secret" not in data
    assert data == encode_jpeg(Image.new("RGB", (30, 20), "blue"))
    assert decode_image(data).size == (30, 20)
    assert decode_image(encode_jpeg(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))).getpixel((4, 4)) == (255, 255, 255)
    assert Image.open(io.BytesIO(base64.b64decode(picture_uri(image, 10).partition(",")[2]))).format == "JPEG"
