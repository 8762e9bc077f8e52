"""The perception path on real photographs of millions of pixels, in the formats that cameras and the web give."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep.sources.build import build
from data_prep.sources.vstar import VStarConfig, VStarSource
from etchr.boxes import RED, line_width
from etchr.images import open_image
from etchr.sample import read_parquet
from tests.data_prep.sources.fixtures_boxes import record, write_seal

PHOTOS = Path(__file__).parents[3].parent / "shared/data/photos"
NAMES = sorted(path.name for path in PHOTOS.glob("*.*")) if PHOTOS.is_dir() else []

pytestmark = pytest.mark.skipif(not NAMES, reason="the photographs are not here")


def things(size):
    """Boxes of x, y, w, h: one in the middle, one at the upper left corner, one that reaches out at the right."""
    width, height = size
    middle = (0.4 * width, 0.3 * height, 0.1 * width, 0.2 * height)
    return middle, (0, 0, 0.05 * width, 0.05 * height), (0.9 * width, 0.8 * height, 0.15 * width, 0.1 * height)


@pytest.fixture
def source(tmp_path):
    """V* records about copies of the photographs, as GQA's."""

    def made(names, **options):
        records = [record(f"gqa/images/{name}", boxes=things(open_image(PHOTOS / name).size)) for name in names]
        write_seal(tmp_path, GQA=records)
        for name in names:
            shutil.copy(PHOTOS / name, tmp_path / "gqa/images" / name)
        usual = {"root": str(tmp_path), "files": ["GQA_data.json"], "pictures": ["gqa"], "val_share": 0.0}
        return VStarConfig(**usual, **options)

    return made


@pytest.mark.parametrize("name", NAMES)
def test_frames_lie_round_the_boxes_and_every_other_pixel_is_the_photographs(name, source):
    photo = open_image(PHOTOS / name)
    (sample,) = VStarSource(source([name])).samples(0, random.Random(0))
    before, after = np.asarray(sample.image), np.asarray(sample.edit_image)
    assert (before == np.asarray(photo)).all()
    may_change, line = np.zeros(before.shape[:2], bool), line_width(photo.size)
    assert len(sample.meta["boxes"]) == 3
    for x, y, w, h in sample.meta["boxes"]:
        may_change[max(y - line, 0) : y + h + line, max(x - line, 0) : x + w + line] = True
        may_change[y + 2 : y + h - 2, x + 2 : x + w - 2] = False  # at the border the frame may cover 2 px of the box
    changed = (before != after).any(-1)
    assert not (changed & ~may_change).any()
    assert (after[changed] == RED).all()
    x, y, w, h = sample.meta["boxes"][0]
    rim = after[y - line : y + h + line, x - line : x + w + line] == RED
    assert rim[: line - 1].all()
    assert rim[1 - line :].all()
    assert (after[y : y + h, x : x + w] == before[y : y + h, x : x + w]).all()
    assert sample.meta["boxes"][2][0] + sample.meta["boxes"][2][2] == photo.width  # cut at the border


def test_a_photograph_comes_back_from_the_file_pixel_by_pixel(source, tmp_path):
    name = min(NAMES, key=lambda name: np.prod(open_image(PHOTOS / name).size))
    build(VStarSource, source([name], out=str(tmp_path / "out"), processes=1))
    (back,) = read_parquet(tmp_path / "out/vstar", "train")
    assert back.image.tobytes() == open_image(PHOTOS / name).tobytes()
    assert back.edit_image.size == back.image.size
    assert back.meta["path"] == f"gqa/images/{name}"
