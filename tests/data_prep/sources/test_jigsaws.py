"""Jigsaws: puzzles taken apart again, Spatial-SSRL's published form, and photographs that are hostile or odd."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.jigsaw import ORDERS
from data_prep.sources.build import build, split_of
from data_prep.sources.jigsaws import (
    Jigsaws,
    JigsawsConfig,
    assemble,
    cut,
    fitted,
    fitted_size,
    published_rows,
    read_order,
    shuffled,
    with_borders,
)
from etchr.families import TaskFamily
from etchr.images import open_image
from etchr.mllm.answers import ground_truth
from etchr.sample import read_parquet

PHOTOS = Path(__file__).parents[3].parent / "shared/data/photos"
BLUE = (0, 0, 255)


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8))


def quarters(picture):
    pixels = np.asarray(picture)
    h, w = pixels.shape[0] // 2, pixels.shape[1] // 2
    return [pixels[:h, :w], pixels[:h, w:], pixels[h:, :w], pixels[h:, w:]]


def samples(folder, index=0, seed=0, **options):
    return list(Jigsaws(JigsawsConfig(photos=str(folder), **options)).samples(index, random.Random(seed)))


# --- pieces ---


@pytest.mark.parametrize("order", ORDERS)
def test_a_puzzles_answer_rebuilds_the_picture_exactly(order):
    picture = noise(34, 22)
    puzzle = shuffled(picture, order)
    assert assemble(cut(puzzle), order).tobytes() == picture.tobytes()
    for quarter, piece in enumerate(order):  # the piece lies where the answer says
        assert (quarters(puzzle)[piece] == quarters(picture)[quarter]).all()


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs are not here")
def test_real_photographs_are_rebuilt_exactly():
    files = [path for path in sorted(PHOTOS.iterdir()) if path.suffix.lower() in (".jpg", ".png", ".webp")]
    assert files
    for number, path in enumerate(files):
        photo = open_image(path)
        size = fitted_size(photo.size, 200_000, 128)
        assert size[0] * size[1] <= 200_000
        photo, order = fitted(photo, size), random.Random(number).choice(ORDERS[1:])
        puzzle = shuffled(photo, order)
        assert puzzle.tobytes() != photo.tobytes()
        assert assemble(cut(puzzle), order).tobytes() == photo.tobytes()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (640, 480)),
        ((641, 481), (640, 480)),
        ((1024, 1024), (1024, 1024)),
        ((1025, 1025), (1024, 1024)),
        ((4000, 3000), (1182, 886)),
        ((3000, 4000), (886, 1182)),
        ((129, 300), (128, 300)),
    ],
)
def test_pictures_are_fitted_to_even_sides_within_the_area(size, expected):
    assert fitted_size(size, 1_048_576, 128) == expected


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (127, 127), (128, 127), (128, 513), (40_000, 9_000)])
def test_pictures_too_small_or_too_thin_are_refused(size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} px"):
        fitted_size(size, 1_048_576, 128)


def test_odd_sides_lose_their_last_pixels_and_no_more():
    picture = noise(131, 129)
    even = fitted(picture, fitted_size(picture.size, 1_048_576, 128))
    assert (np.asarray(even) == np.asarray(picture)[:128, :130]).all()


# --- borders ---


@pytest.mark.parametrize(("side", "width"), [(128, 2), (480, 2), (960, 4)])
def test_borders_lie_just_inside_every_patch_and_grow_with_the_picture(side, width):
    puzzle = Image.new("RGB", (side, side), (90, 90, 90))
    for patch in quarters(with_borders(puzzle)):
        is_blue = (patch == BLUE).all(-1)
        inner = is_blue[width:-width, width:-width]
        assert not inner.any()
        assert is_blue.sum() == is_blue.size - inner.size
        marks = (patch[width:-width, width:-width] != 90).any(-1)
        rows, columns = np.flatnonzero(marks.any(1)), np.flatnonzero(marks.any(0))
        assert len(rows) > side // 20  # the index can be read, and stays in its corner
        assert rows[-1] < side // 4
        assert columns[-1] < side // 4


def test_the_four_indices_differ_and_do_not_depend_on_the_patch():
    first, second = (quarters(with_borders(noise(256, 256, seed))) for seed in (1, 2))
    white = [(patch > 230).all(-1) for patch in first]  # brighter than the noise
    assert all(mark.sum() > 20 for mark in white)
    assert len({mark.tobytes() for mark in white}) == 4
    assert [mark.tobytes() for mark in white] == [(patch > 230).all(-1).tobytes() for patch in second]


# --- photographs ---


def test_a_sample_shows_the_patches_of_its_edit_in_the_order_of_its_answer(tmp_path):
    noise(301, 202).save(tmp_path / "a.png")
    made = samples(tmp_path, puzzles=23)
    assert len(made) == len({sample.answer for sample in made}) == len({sample.id for sample in made}) == 23
    for sample in made:
        assert sample.image.size == sample.edit_image.size == (300, 202)
        assert ground_truth(sample) == sample.answer != "0-1-2-3"
        source, edit = quarters(sample.image), quarters(sample.edit_image)
        for quarter, piece in enumerate(map(int, sample.answer.split("-"))):
            same = (source[piece] == edit[quarter]).all(-1)
            assert same[40:-2, 2:-2].all()  # below the index
            assert same.mean() > 0.85
    assert (np.asarray(made[0].edit_image) == np.asarray(noise(301, 202))[:, :300]).all()
    assert (made[0].family, made[0].task, made[0].id) == (TaskFamily.JIGSAW, "jigsaw", "jigsaws-0000000-0")


def test_photographs_are_found_in_any_folder_and_letter_case(tmp_path):
    for name in ("b.JPG", "a.Png", "deep/er/c.webp", "d.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        noise(140, 140, len(name)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no photo")
    config = JigsawsConfig(photos=str(tmp_path), photos_source="mine", photos_licence="CC0")
    source = Jigsaws(config)
    made = [sample for i in range(len(source)) for sample in source.samples(i, random.Random(i))]
    assert [sample.meta["path"] for sample in made] == ["a.Png", "b.JPG", "d.jpeg", "deep/er/c.webp"]
    assert {(sample.meta["source"], sample.meta["licence"]) for sample in made} == {("mine", "CC0")}
    assert made[0].id == "jigsaws-0000000"


def test_orders_are_drawn_from_all_but_the_identity(tmp_path):
    noise(128, 128).save(tmp_path / "a.png")
    answers = {samples(tmp_path, seed=seed)[0].answer for seed in range(150)}
    assert answers == {"-".join(map(str, order)) for order in ORDERS[1:]}


def test_a_large_photo_is_scaled_down_and_turned_upright(tmp_path):
    picture = noise(400, 300)
    exif = picture.getexif()
    exif[0x0112] = 6  # lies on its side
    picture.save(tmp_path / "a.jpg", exif=exif)
    (sample,) = samples(tmp_path, max_pixels=40_000)
    assert sample.image.size == (172, 230)


def test_bad_photographs_are_refused_one_by_one(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    noise(200, 200).save(photos / "0-good.png")
    Image.new("RGB", (200, 200)).save(photos / "1-black.png")
    (photos / "2-damaged.jpg").write_bytes(b"\xff\xd8\xff" + bytes(50))
    Image.new("RGB", (1, 2000)).save(photos / "3-thin.png")
    noise(200, 200, 1).save(tmp_path / "elsewhere.png")
    (photos / "4-link.png").symlink_to(tmp_path / "elsewhere.png")
    noise(200, 200).save(photos / "5-copy.png")
    options = {"photos": str(photos), "out": str(tmp_path / "out"), "processes": 1, "val_share": 0}
    assert build(Jigsaws, JigsawsConfig(**options)) == {"jigsaw": 2}
    lines = (tmp_path / "out/jigsaws/train/rejected.jsonl").read_text(encoding="utf-8").splitlines()
    reasons = {entry["item"]: entry["reason"] for entry in map(json.loads, lines)}
    assert sorted(reasons) == [1, 2, 3, 4]
    for item, said in {1: "alike", 2: "not", 3: "1x2000", 4: "does not lie below"}.items():
        assert said in reasons[item]


def test_copies_share_a_key_and_builds_are_reproducible(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(8):
        noise(128, 128, i // 2).save(photos / f"{i}.png")
    source = Jigsaws(JigsawsConfig(photos=str(photos)))
    keys = [source.key(i) for i in range(8)]
    assert keys[::2] == keys[1::2]
    assert len(set(keys)) == 4
    share = next(share / 20 for share in range(1, 20) if len({split_of(key, share / 20) for key in keys}) == 2)

    def made(out, split):
        options = {"photos": str(photos), "out": str(tmp_path / out), "split": split, "val_share": share}
        build(Jigsaws, JigsawsConfig(**options, processes=1))
        (file,) = (tmp_path / out / "jigsaws").glob(f"{split}-*.parquet")
        edits = {sample.edit_image.tobytes() for sample in read_parquet(file)}
        return hashlib.sha256(file.read_bytes()).hexdigest(), edits

    digest, train = made("a", "train")
    assert made("b", "train")[0] == digest
    assert not train & made("a", "val")[1]


def test_another_set_of_photographs_is_another_build(tmp_path):
    noise(128, 128).save(tmp_path / "a.png")
    config = JigsawsConfig(photos=str(tmp_path))
    before = Jigsaws(config).identity()
    assert before == Jigsaws(config).identity()
    noise(128, 128, 1).save(tmp_path / "b.png")
    assert before != Jigsaws(config).identity()


# --- Spatial-SSRL ---


def publish(root, rows, images=True):
    """The published form: a table with problem, answer and images (paths), and the extracted pictures."""
    root.mkdir(exist_ok=True)
    columns = {"problem": [], "answer": [], "images": []}
    for problem, answer, label in rows:
        columns["problem"].append(problem)
        columns["answer"].append(answer)
        columns["images"].append([label])
    pq.write_table(pa.table(columns), root / "spatialssrl.parquet")
    return root


def their_puzzle(seed, width=200, height=140):
    """A puzzle as Spatial-SSRL makes it, with their label: argsort of the shuffled indices."""
    rng = np.random.default_rng(seed)
    photo = noise(width, height, seed)
    order = [0, 1, 2, 3]
    while order == [0, 1, 2, 3]:
        order = rng.permutation(4).tolist()
    patches = [quarters(photo)[i].copy() for i in order]
    for patch in patches:
        patch[:2] = patch[-2:] = patch[:, :2] = patch[:, -2:] = BLUE
    image = np.vstack([np.hstack(patches[:2]), np.hstack(patches[2:])])
    return photo, Image.fromarray(image), np.argsort(order)


def test_published_puzzles_are_put_together(tmp_path):
    (tmp_path / "images/shuffle").mkdir(parents=True)
    rows, photos = [("Which is nearer?", "A", "/data/images/depth/0.jpg")], []
    for i in range(6):
        photo, image, label = their_puzzle(i)
        image.save(tmp_path / f"images/shuffle/{i}.png")
        rows.append((f"<image>Restore puzzle {i}.", str(label), f"/any/shuffle/where/images/shuffle/{i}.png"))
        photos.append(photo)
    source = Jigsaws(JigsawsConfig(spatial_ssrl=str(publish(tmp_path, rows))))
    assert len(source) == 6
    for i, photo in enumerate(photos):
        (sample,) = source.samples(i, random.Random(0))
        assert sample.question == f"Restore puzzle {i}."
        assert ground_truth(sample) == sample.answer
        for edit, true in zip(quarters(sample.edit_image), quarters(photo), strict=True):
            assert (edit[2:-2, 2:-2] == true[2:-2, 2:-2]).all()
        assert {"row": i + 1, "licence": "MIT", "path": f"shuffle/{i}.png"}.items() <= sample.meta.items()


def test_bad_published_rows_are_refused_one_by_one(tmp_path):
    root = tmp_path / "ssrl"
    (root / "images/shuffle").mkdir(parents=True)
    noise(200, 140).save(tmp_path / "secret.png")
    noise(200, 140).save(root / "images/shuffle/0.png")
    noise(201, 140).save(root / "images/shuffle/odd.png")
    good = "images/shuffle/0.png"
    rows = [
        ("Restore.", "2-0-3-1", good),
        ("Restore.", "0,1,2,3", good),
        ("Restore.", "1 1 2 3", good),
        ("Restore.", "[1 2 3 4]", good),
        ("Restore.", "B", good),
        ("Restore.", None, good),
        (None, "2031", good),
        ("Restore.", "2031", "shuffle/../../../secret.png"),
        ("Restore.", "2031", "shuffle//etc/passwd"),
        ("Restore.", "2031", "shuffle/none.png"),
        ("Restore.", "2031", "images/shuffle/odd.png"),
    ]
    out = tmp_path / "out"
    config = JigsawsConfig(spatial_ssrl=str(publish(root, rows)), out=str(out), val_share=0, processes=1)
    assert build(Jigsaws, config) == {"jigsaw": 1}
    (sample,) = read_parquet(out / "jigsaws")
    assert sample.answer == "2-0-3-1"
    lines = (out / "jigsaws/train/rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["item"] for line in lines] == list(range(1, 11))


@pytest.mark.parametrize("answer", ["2-0-3-1", "[2 0 3 1]", "(2, 0, 3, 1)", "2031", "2, 0, 3, 1.", [2, 0, 3, 1]])
def test_orders_are_read_in_any_dress(answer):
    assert read_order(answer) == (2, 0, 3, 1)


def test_a_table_of_another_form_is_refused_with_the_columns_seen(tmp_path):
    table = tmp_path / "spatialssrl.parquet"
    with pytest.raises(ValueError, match="get it from"):
        published_rows(table)
    table.write_bytes(b"PAR1 no table")
    with pytest.raises(ValueError, match="not a whole Parquet file"):
        published_rows(table)
    pq.write_table(pa.table({"text": ["a"], "solution": ["b"]}), table)
    with pytest.raises(ValueError, match=r"no column problem or .*text \(string\), solution \(string\)"):
        published_rows(table)
    pq.write_table(pa.table({"problem": ["a"], "answer": ["b"], "images": [[{"bytes": b""}]]}), table)
    with pytest.raises(ValueError, match=r"images is to hold paths; columns seen: .*images \(list<"):
        published_rows(table)
    publish(tmp_path, [("Which?", "A", "images/depth/0.jpg")])
    with pytest.raises(ValueError, match=r"no row .* in shuffle/.*images/depth/0.jpg"):
        published_rows(table)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either photos=FOLDER or"),
        ({"photos": "a", "spatial_ssrl": "b"}, "either photos=FOLDER or"),
        ({"photos": "a", "puzzles": 24}, "puzzles=24"),
        ({"spatial_ssrl": "a", "puzzles": 2}, "puzzles=2"),
        ({"photos": "a", "min_side": 63}, "min_side=63"),
        ({"photos": "a", "max_pixels": 100}, "max_pixels=100"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        JigsawsConfig(**options)


def test_a_cell_of_the_table_that_cannot_be_read_is_said(tmp_path):
    answers = pa.array([2**62], pa.timestamp("ms"))
    columns = {"problem": ["Which?"], "answer": answers, "images": [["images/shuffle/0.png"]]}
    pq.write_table(pa.table(columns), tmp_path / "spatialssrl.parquet")
    with pytest.raises(ValueError, match="column answer of the row cannot be read"):
        published_rows(tmp_path / "spatialssrl.parquet")


def test_folders_without_photographs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        Jigsaws(JigsawsConfig(photos=str(tmp_path / "none")))
    with pytest.raises(ValueError, match="no photographs"):
        Jigsaws(JigsawsConfig(photos=str(tmp_path)))
