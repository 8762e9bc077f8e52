"""The quality report: its figures against hand and brute-force counts, its page against hostile data."""

import base64
import functools
import io
import itertools
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.quality.__main__ import QualityConfig, main, run
from data_prep.quality.measure import split_name
from data_prep.quality.page import MAX_PICTURES, MAX_TEXT, page
from data_prep.quality.phash import KEYS, NearPairs, Sharing, perceptual_hash, reduction
from etchr.families import TaskFamily
from etchr.images import from_data_uri
from etchr.sample import EditSample, write_parquet

HOSTILE = "</script><script>alert(1)</script><!--<script>&lt;\u2028\u2029|`*[x](y)<img src=x onerror=alert(1)>{{ 6 }}"
QUESTION = "What is the colour?"


def picture(seed, size=(64, 64)):
    """A smooth picture: 6x6 random colours, blown up."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def as_jpeg(image, quality=75):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def sample(name, image, question=QUESTION, family="perception", edit=None, answer="red", **meta):
    meta = {"answer_type": "text"} | meta
    return EditSample(name, TaskFamily(family), meta.pop("task", family), image, question, answer, None, edit, meta)


def report_of(folder, **options):
    options = {"paths": [str(folder / "data")], "out": str(folder / "out"), "processes": 1} | options
    return run(QualityConfig(**options))


def write_rows(path, samples, changes):
    """A Parquet file whose rows are damaged after it was written: {row: {column: value}}."""
    write_parquet(samples, path)
    table = pq.read_table(path)
    rows = table.to_pylist()
    for number, values in changes.items():
        rows[number] |= values
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


# ------------------------------------------------------------------------------------------------------- the hash


def test_the_hash_is_what_the_cosine_sums_say():
    image = picture(3, (50, 70))
    pixels = image.convert("L").resize((32, 32), Image.Resampling.LANCZOS).load()
    waves = [[math.cos(math.pi * k * (2 * n + 1) / 64) for n in range(32)] for k in range(8)]
    sums = [
        sum(pixels[x, y] * waves[v][y] * waves[u][x] for y in range(32) for x in range(32))
        for v, u in itertools.product(range(8), range(8))
    ]
    middle = sum(sorted(sums)[31:33]) / 2
    assert f"{perceptual_hash(image):064b}" == "".join("1" if value > middle else "0" for value in sums)


def test_the_hash_survives_scaling_and_recompression_and_tells_pictures_apart():
    hashes = [perceptual_hash(picture(seed)) for seed in range(12)]
    for seed, mine in enumerate(hashes):
        image = picture(seed)
        for other in (as_jpeg(image, 50), image.resize((160, 160)), image.resize((41, 47), Image.Resampling.LANCZOS)):
            assert (perceptual_hash(other) ^ mine).bit_count() <= QualityConfig.distance
    assert min((a ^ b).bit_count() for a, b in itertools.combinations(hashes, 2)) > 10


@pytest.mark.parametrize("distance", [0, 1, 3, 4, 7])
def test_near_pairs_are_those_of_brute_force_each_once(distance):
    rng = np.random.default_rng(distance)
    centres = rng.integers(0, 2**64, 12, dtype=np.uint64, endpoint=False)
    hashes = [int(centre) for centre in centres for _ in range(5)]
    for place in range(len(hashes)):
        for bit in rng.choice(64, rng.integers(0, 6), replace=False):
            hashes[place] ^= 1 << int(bit)
    near = NearPairs(np.array(hashes, dtype=np.uint64), distance)
    found = [frozenset(pair) for i, j in near for pair in zip(i.tolist(), j.tolist(), strict=True)]
    wanted = {
        frozenset((i, j))
        for i, j in itertools.combinations(range(len(hashes)), 2)
        if (hashes[i] ^ hashes[j]).bit_count() <= distance
    }
    assert len(found) == len(set(found))
    assert set(found) == wanted
    assert near.complete


def test_a_data_set_of_one_picture_does_not_take_forever():
    near = NearPairs(np.zeros(3000, dtype=np.uint64), 4, budget=10_000)
    assert sum(len(i) for i, _ in near) < 20_000
    assert not near.complete


def test_rows_with_partners_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    keys = np.zeros(150, KEYS)
    pictures = rng.integers(0, 2**63, 60, dtype=np.uint64)
    hashes = np.repeat(pictures[:12], 5) ^ (np.uint64(1) << rng.integers(0, 64, 60, dtype=np.uint64))
    chosen = rng.integers(0, 60, len(keys))
    keys["picture"], keys["hash"] = pictures[chosen], hashes[chosen]
    keys["reduced"] = np.repeat(rng.integers(0, 30, (60, 1), dtype=np.uint8), 192, axis=1)[chosen]
    keys["question"], keys["set"] = rng.integers(0, 4, len(keys)), rng.integers(0, 3, len(keys))
    sharing = Sharing(keys, distance=2, tolerance=12)

    def alike(a, b):
        fields = np.abs(a["reduced"].astype(int) - b["reduced"]).max()
        return a["picture"] == b["picture"] or (int(a["hash"] ^ b["hash"]).bit_count() <= 2 and fields <= 12)

    for mine, sets in itertools.product(range(3), ([0], [1], [2], [0, 2])):
        rows = np.flatnonzero(keys["set"] == mine)
        flags = sharing.partners(rows, sets)
        for place, row in enumerate(rows):
            a = keys[row]
            others = [b for k, b in enumerate(keys) if b["set"] in sets and k != row]
            assert flags["same_picture"][place] == any(a["picture"] == b["picture"] for b in others)
            assert flags["similar_picture"][place] == any(alike(a, b) for b in others)
            others = [b for b in others if a["question"] == b["question"]]
            assert flags["same_picture_and_question"][place] == any(a["picture"] == b["picture"] for b in others)
            assert flags["similar_picture_and_question"][place] == any(alike(a, b) for b in others)
    assert 0 < flags["same_picture"].sum() < flags["similar_picture"].sum()


# ------------------------------------------------------------------------------------------------- what is shared


@pytest.fixture
def known(tmp_path):
    """Sets whose duplicates are known: see the questions and names."""
    a, b, c = picture(1), picture(2), picture(3)
    train = [
        sample("a", a),
        sample("a-again", a),
        sample("a-other-question", a, "Which side?"),
        sample("b", b),
        sample("b-resized", b.resize((96, 96), Image.Resampling.BICUBIC)),
        sample("c", c, "How  many dots?"),
    ]
    test = [
        sample("a-jpeg", as_jpeg(a)),
        sample("c-other-case", c, "how many Dots?"),
        sample("b-other-question", b, "What else?"),
        sample("d", picture(4)),
    ]
    write_parquet(train, tmp_path / "data" / "known" / "train.parquet")
    write_parquet(test, tmp_path / "data" / "known" / "test-00000-of-00001.parquet")
    write_parquet([sample("e", picture(5))], tmp_path / "data" / "known" / "validation.parquet")
    return tmp_path


def counts(same, same_asked, similar, similar_asked):
    return {
        "same_picture": same,
        "same_picture_and_question": same_asked,
        "similar_picture": similar,
        "similar_picture_and_question": similar_asked,
    }


def test_known_duplicates_within_a_split_and_across(known):
    report = report_of(known)
    assert report["splits"] == {"train": 6, "val": 1, "test": 4, "unnamed": 0}
    assert report["within"] == {
        "train": {"rows": 6, "pictures": 4, **counts(3, 2, 5, 4)},
        "val": {"rows": 1, "pictures": 1, **counts(0, 0, 0, 0)},
        "test": {"rows": 4, "pictures": 4, **counts(0, 0, 0, 0)},
    }
    across = {(part.pop("rows_of"), part.pop("shared_with")): part for part in report["across"]}
    assert across["test", "train"] == {"rows": 4, **counts(2, 1, 3, 2)}
    assert across["train", "test"] == {"rows": 6, **counts(2, 1, 6, 3)}
    assert across["val", "train"] == {"rows": 1, **counts(0, 0, 0, 0)}
    overlap = {part["set"]: part for part in report["overlap"]}
    assert overlap["test"]["in_train"] == counts(2, 1, 3, 2)
    assert overlap["test"]["rows_of_train"] == {"rows": 6, **counts(2, 1, 6, 3)}
    pairs = [(e["rows_of"], e["shared_with"], *(row["id"] for row in e["rows"])) for e in report["examples"]]
    assert pairs == [
        ("train", "train", "a", "a-again"),
        ("train", "train", "b", "b-resized"),
        ("test", "train", "a-jpeg", "a"),
        ("test", "train", "c-other-case", "c"),
    ]


def test_a_distance_of_no_bits_leaves_the_same_pictures(known):
    assert report_of(known, distance=0, tolerance=0)["within"]["train"] == {
        "rows": 6,
        "pictures": 4,
        **counts(3, 2, 3, 2),
    }


def test_overlap_is_a_warning_and_with_strict_an_error(known, capsys):
    words = [f"paths=[{known / 'data'}]", f"out={known / 'out'}", "processes=1"]
    main(words)
    printed = capsys.readouterr().err
    assert "WARNING: train overlaps test: 2 of its 4 rows" in printed
    with pytest.raises(SystemExit, match="strict=true"):
        main([*words, "strict=true"])
    capsys.readouterr()
    (known / "data" / "known" / "test-00000-of-00001.parquet").unlink()
    main([*words, "strict=true"])  # nothing shared with val
    assert "overlaps" not in capsys.readouterr().err


def test_evaluation_sets_elsewhere_count_beside_the_data_set(known):
    bench = known / "bench" / "questions.parquet"
    write_parquet([sample("x", picture(2), split="train"), sample("y", picture(9))], bench)
    test = known / "data" / "known" / "test-00000-of-00001.parquet"
    report = report_of(known, against=[str(known / "bench"), str(test)])
    assert (report["rows"], report["splits"]["test"]) == (7, 0)  # a file of both counts as an evaluation set alone
    overlap = {part["set"]: (part["rows"], part["in_train"]) for part in report["overlap"]}
    assert overlap[f"against:{known / 'bench'}"] == (2, counts(1, 1, 1, 1))
    assert overlap[f"against:{test}"] == (4, counts(2, 1, 3, 2))
    assert report["evaluation_sets"][f"against:{test}"] == {"rows": 4, "bad_rows": 0, "bad_files": []}


def test_evaluation_sets_called_like_a_split_hide_none(known, monkeypatch):
    names = ("test", "val", "train", "unnamed")
    monkeypatch.chdir(known)
    for number, name in enumerate(names):
        rows = [sample(f"{name}-{k}", picture(20 + 5 * number + k)) for k in range(number)]
        write_parquet([*rows, sample(name, picture(1))], known / name / "bench.parquet")
    report = report_of(known, paths=["data"], against=list(names), out="out")
    assert report["splits"] == {"train": 6, "val": 1, "test": 4, "unnamed": 0}
    assert report["within"]["train"] == {"rows": 6, "pictures": 4, **counts(3, 2, 5, 4)}
    overlap = {part["set"]: (part["rows"], part["in_train"]) for part in report["overlap"]}
    assert overlap == {"val": (1, counts(0, 0, 0, 0)), "test": (4, counts(2, 1, 3, 2))} | {
        f"against:{name}": (number + 1, counts(1, 1, 1, 1)) for number, name in enumerate(names)
    }
    assert list(report["evaluation_sets"]) == [f"against:{name}" for name in names]
    text = (known / "out" / "report.md").read_text(encoding="utf-8")
    assert "| against:unnamed | train | 4 | 1 (25.0 %) |" in text


def strict(folder, *words):
    main([f"paths=[{folder / 'data'}]", f"out={folder / 'out'}", "processes=1", "strict=true", *words])


BAD = {"image": {"bytes": b"no picture", "path": None}}


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("data/val-1.parquet", {0: BAD}, "1 rows that may be"),
        ("data/val/1.parquet", {0: BAD}, "1 rows that may be"),
        ("data/1.parquet", {0: BAD | {"meta": '{"split": "test"}'}}, "1 rows that may be"),
        ("data/1.parquet", {0: {"meta": "[" * 100_000}}, "1 rows that may be"),  # of which split, nobody knows
        ("bench/train-1.parquet", {0: BAD}, "1 rows that may be"),
        ("bench/train-1.parquet", {0: BAD, 1: BAD}, "2 rows that may be.*; against:.*bench holds no row"),
        ("data/val-1.parquet", None, "1 files that may be"),
        ("data/1.parquet", None, "1 files that may be"),
        ("bench/train-1.parquet", None, "1 files that may be"),
        ("data/train-1.parquet", {0: BAD}, None),  # training cannot read them either
        ("data/1.parquet", {0: BAD}, None),
        ("data/train-1.parquet", None, None),
    ],
)
def test_strict_fails_where_a_part_of_evaluation_could_not_be_read(tmp_path, name, changes, says):
    write_parquet([sample("a", picture(1))], tmp_path / "data" / "train-0.parquet")
    write_rows(tmp_path / name, [sample("b", picture(2)), sample("c", picture(3))], changes or {})
    if changes is None:
        (tmp_path / name).write_bytes(b"PAR1 not at all")
    words = [f"against=[{tmp_path / 'bench'}]"] if name.startswith("bench") else []
    if says is None:
        return strict(tmp_path, *words)
    with pytest.raises(SystemExit, match=f"^strict=true: {says}"):
        strict(tmp_path, *words)


def test_strict_fails_where_not_all_similar_pictures_were_compared(tmp_path, monkeypatch):
    write_parquet([sample("a", picture(1))], tmp_path / "data" / "train.parquet")
    write_parquet([sample("b", as_jpeg(picture(1)), "Else?")], tmp_path / "data" / "val.parquet")
    strict(tmp_path)
    monkeypatch.setattr("data_prep.quality.phash.NearPairs", functools.partial(NearPairs, budget=0))
    with pytest.raises(SystemExit, match=r"^strict=true: too many pictures look alike to compare all of them$"):
        strict(tmp_path)


def test_a_split_is_told_by_the_row_or_the_file_or_the_folder(tmp_path):
    places = {"test/0.parquet": 1, "validation/val.parquet": 2, "test/train.parquet": 4, "tests/x.parquet": 8}
    for place, count in places.items():
        rows = [sample(f"{place} {k}", picture(k)) for k in range(count)]
        write_parquet(rows, tmp_path / "data" / "deep" / place)
    write_parquet([sample("said", picture(0), split="train")], tmp_path / "data" / "test" / "1.parquet")
    report = report_of(tmp_path)
    assert report["splits"] == {"train": 4 + 1, "val": 2, "test": 1, "unnamed": 8}
    assert report["disagreeing_splits"] == 1


def test_by_default_all_data_sets_are_measured_whatever_their_depth(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "outputs" / "data"
    places = ["all.parquet", "vstar/train-00000.parquet", "quickstart/maze/train.parquet", "a/b/c/d/train.parquet"]
    left = [".cache/x.parquet", "sets.part/x.parquet", "vstar/train-00001.parquet.part", "vstar/train-00001.part"]
    for number, place in enumerate([*places, *left]):
        write_parquet([sample(str(number), picture(number))], tmp_path / "whole.parquet")
        (data / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "whole.parquet").rename(data / place)
    elsewhere = tmp_path / "disk" / "one" / "train.parquet"
    write_parquet([sample("linked", picture(30))], elsewhere)
    (data / "linked").symlink_to(tmp_path / "disk")
    (data / "vstar" / "up").symlink_to(data)
    main(["processes=1"])
    report = json.loads((tmp_path / "outputs" / "quality" / "report.json").read_text(encoding="utf-8"))
    assert (report["rows"], report["bad_files"], report["repeated_ids"]) == (5, [], 0)
    ids = {item["id"] for item in Page((tmp_path / "outputs/quality/report.html").read_text(encoding="utf-8")).sheet}
    assert ids == {"0", "1", "2", "3", "linked"}


def test_colours_count_though_the_hash_is_grey(tmp_path):
    red = Image.new("RGB", (64, 64), (150, 0, 0))
    teal = Image.new("RGB", (64, 64), (0, 66, 54))
    assert perceptual_hash(red) == perceptual_hash(teal)
    assert reduction(red) != reduction(teal)
    write_parquet([sample("red", red), sample("teal", teal)], tmp_path / "data" / "train.parquet")
    assert report_of(tmp_path)["within"]["train"]["similar_picture"] == 0
    assert report_of(tmp_path, tolerance=255)["within"]["train"]["similar_picture"] == 2


# ------------------------------------------------------------------------------------------------------ the counts


def test_counts_and_histograms_against_hand_computation(tmp_path):
    wide, tall = picture(0, (200, 100)), picture(1, (64, 128))
    rows = [
        sample("1", wide, "four words are here", edit=wide),
        sample("2", wide, "a " * 30 + "b", edit=picture(7, (200, 100)), answer_type="number"),
        sample("3", tall, "x" * 25, family="logic", task="maze", split="val"),
        sample("3", tall, "x" * 26, family="logic", task="maze", answer_type=None),
    ]
    write_parquet(rows, tmp_path / "data" / "train-00000.parquet")
    write_parquet([sample("5", tall, "?", family="logic", task="lake")], tmp_path / "data" / "one" / "rest.parquet")
    report = report_of(tmp_path)
    task = {"train": 0, "val": 0, "test": 0, "unnamed": 0, "edit": 0, "unchanged": 0}
    assert report["tasks"] == [
        {"family": "logic", "task": "lake", "rows": 1, **task, "unnamed": 1},
        {"family": "logic", "task": "maze", "rows": 2, **task, "train": 1, "val": 1},
        {"family": "perception", "task": "perception", "rows": 2, **task, "train": 2, "edit": 2, "unchanged": 1},
    ]
    assert report["families"] == {"logic": 3, "perception": 2}
    assert report["splits"] == {"train": 3, "val": 1, "test": 0, "unnamed": 1}
    assert (report["disagreeing_splits"], report["repeated_ids"]) == (1, 0)  # the two "3" are of different splits
    assert report["edits"] == {"edit": 2, "unchanged": 1}
    assert report["answer_types"] == {"text": 3, "(none)": 1, "number": 1}
    assert (report["num_sizes"], report["sizes"]) == (2, {"64x128": 3, "200x100": 2})
    bins = {
        name: {edge: n for edge, n in zip([*part["edges"], "more"], part["counts"], strict=True) if n}
        for name, part in report["histograms"].items()
    }
    assert bins == {
        "width": {64: 3, 256: 2},
        "height": {128: 5},
        "megapixels": {0.01: 3, 0.05: 2},
        "aspect_ratio": {0.5: 3, 2: 2},
        "question_characters": {25: 3, 50: 1, 100: 1},
        "question_words": {5: 4, 40: 1},
    }
    spread = {key: report["histograms"]["question_words"][key] for key in ("least", "mean", "most")}
    assert spread == {"least": 1, "mean": (4 + 31 + 1 + 1 + 1) / 5, "most": 31}
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| logic | maze | 2 | 1 | 1 | 0 | 0 | 0.0 % | - |" in text


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("train.parquet", "train"), ("val-00001.parquet", "val"), ("validation-0.parquet", "val"), ("test", "test")),
        *(("trainer.parquet", None), ("latest.parquet", None), (None, None), (3, None)),
    ],
)
def test_splits_by_name(name, split):
    assert split_name(name) == split


def test_bad_rows_and_files_are_counted_with_reasons_and_stop_nothing(tmp_path, capsys):
    good = [sample(str(number), picture(number)) for number in range(7)]
    changes = {
        0: {"image": {"bytes": b"no picture", "path": None}},
        1: {"image": {"bytes": None, "path": "/etc/passwd"}},
        2: {"family": HOSTILE},
        3: {"meta": "[1]"},
        4: {"question": " "},
        5: {"edit_image": {"bytes": _png((8, 8)), "path": None}},
    }
    write_rows(tmp_path / "data" / "train-0.parquet", good, changes)
    write_rows(
        tmp_path / "data" / "train-1.parquet", good[:1], {0: {"edit_image": {"bytes": _png((9, 7)), "path": None}}}
    )
    (tmp_path / "data" / "train-2.parquet").write_bytes(b"PAR1 not at all")
    pq.write_table(pa.table({"id": ["1"]}), tmp_path / "data" / "train-3.parquet")
    report = report_of(tmp_path)
    assert (report["rows"], report["bad_rows"]) == (1, 7)
    reasons = report["bad_reasons"]
    assert reasons["sample: edit is (#, #), source is (#, #); they must align"] == 2
    assert sorted(reasons.values()) == [1, 1, 1, 1, 1, 2]
    example = next(row for row in report["bad_examples"] if row["row"] == 5)
    assert example["id"] == "5"
    assert "edit is (8, 8), source is (64, 64)" in example["reason"]
    assert [entry["file"][-15:] for entry in report["bad_files"]] == ["train-2.parquet", "train-3.parquet"]
    assert {"2 files could not be read", "7 rows are bad and in no other figure"} <= set(report["warnings"])
    assert "<script>" not in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def _png(size):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_file_damaged_inside_counts_up_to_there(tmp_path):
    path = tmp_path / "data" / "train-0.parquet"
    write_parquet([sample(str(number), picture(number)) for number in range(12)], path)
    pq.write_table(pq.read_table(path), path, row_group_size=4, use_dictionary=False)
    group = pq.read_metadata(path).row_group(2)
    column = next(group.column(k) for k in range(group.num_columns) if group.column(k).path_in_schema == "image.bytes")
    whole = bytearray(path.read_bytes())
    whole[column.data_page_offset : column.data_page_offset + 20] = b"\xff" * 20
    path.write_bytes(whole)
    report = report_of(tmp_path, sheet=20)
    assert (report["rows"], report["bad_rows"]) == (8, 0)
    assert report["bad_files"] == [{"file": path.as_posix(), "reason": report["bad_files"][0]["reason"]}]
    assert report["bad_files"][0]["reason"].startswith("damaged: ")
    assert len(Page(html_of(tmp_path)).sheet) == 8  # those read again stop before the damage


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"paths": ["nowhere"]}, "no Parquet files in nowhere"),
        ({"paths": []}, "paths=\\[\\] is empty"),
        ({"distance": 11}, "distance=11 must lie between 0 and 10"),
        ({"sheet": -1}, "sheet=-1 must be at least 0"),
        ({"against": ["x", "x"]}, "names a set twice"),
        ({"against": ["x", "./x"]}, "names a set twice"),
    ],
)
def test_mistakes_are_told_in_a_sentence(tmp_path, options, says):
    with pytest.raises(ValueError, match=says):
        report_of(tmp_path, **options)


def test_without_a_good_row_there_is_no_report(tmp_path):
    write_rows(tmp_path / "data" / "train.parquet", [sample("a", picture(0))], {0: {"question": ""}})
    with pytest.raises(ValueError, match=r"no readable row.*question must be"):
        report_of(tmp_path)
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------------------------- the page


class Page(HTMLParser):
    """What a browser would see: tags with attributes, the texts of cells, and the cards by where they lie."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.cards = [], [], {"pairs": [], "sheet": []}
        self._place = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self._place = attrs.get("id", self._place)
        if tag in ("td", "th"):
            self.cells.append("")
        if attrs.get("class") == "card":
            self.cards[self._place].append({"pictures": [], "texts": []})
        if tag == "img":
            self.cards[self._place][-1]["pictures"].append(attrs["src"])

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] in ("td", "th"):
            self.cells[-1] += data.rstrip("\n")  # that of the source, after the last cell of a row
        elif self._place in self.cards and self.cards[self._place] and data.strip():
            self.cards[self._place][-1]["texts"].append(data)

    @property
    def sheet(self):
        """The cards of the contact sheet: its last line names a sample, the one before it holds the answer."""
        cards = []
        for card in self.cards["sheet"]:
            *texts, answer, last = card["texts"]
            about, _, name = last.partition(": ")
            edit = card["pictures"][1] if len(card["pictures"]) > 1 else None
            question = texts[2]  # under the two pictures' captions
            cards.append({"id": name, "family": about.split(" / ")[0], "question": question, "edit": edit})
            cards[-1] |= {"answer": answer.removeprefix("answer: "), "source": card["pictures"][0]}
        return cards


def html_of(folder):
    return (folder / "out" / "report.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_anywhere(known):
    report_of(known)
    text = html_of(known)
    seen = Page(text)
    (policy,) = [a["content"] for tag, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "script" not in policy
    assert not [tag for tag, _ in seen.tags if tag in ("script", "link", "iframe", "object", "embed", "base", "form")]
    assert not [a for tag, a in seen.tags if {"href", "srcset", "action", "style"} & set(a)]
    assert all(a["src"].startswith("data:image/") for tag, a in seen.tags if tag == "img" or "src" in a)
    assert not [name for _, a in seen.tags for name in a if name.startswith("on")]
    assert not re.search(r"@import|url\(|https?://", text)
    assert "prefers-color-scheme: dark" in text


def test_both_reports_show_the_same_counts(known):
    report = report_of(known)
    counts = (known / "out" / "report.md").read_text(encoding="utf-8").split("\n## ")[1]
    lines = [line for line in counts.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(lines) == len(report["tasks"]) + 2
    cells = [cell.strip().replace("\\", "") for line in lines for cell in line.strip("|").split("|")]
    assert Page(html_of(known)).cells[: len(cells)] == cells


def test_hostile_and_endless_texts_stay_texts_of_bounded_length(tmp_path, known):
    report_of(known)
    harmless = {(tag, *attrs) for tag, attrs in Page(html_of(known)).tags}
    rows = [
        sample(HOSTILE, picture(1), HOSTILE, task=HOSTILE, answer=HOSTILE, answer_type=HOSTILE, split=HOSTILE),
        sample("long", picture(2), HOSTILE + "q" * 19_000, answer="a" * 19_000, answer_type="\ud800" * 500),
    ]
    write_parquet(rows, tmp_path / "hostile" / "train.parquet")
    report_of(tmp_path, paths=[str(tmp_path / "hostile")])
    seen = Page(html_of(tmp_path))
    assert {(tag, *attrs) for tag, attrs in seen.tags} <= harmless | {("li",)}  # a warning
    assert sum(tag == "img" for tag, _ in seen.tags) == 2  # the sources
    shown = {item["id"]: item for item in seen.sheet}
    hostile = next(item for name, item in shown.items() if name != "long")
    assert hostile["question"] == hostile["answer"] == HOSTILE
    assert len(shown["long"]["question"]) < MAX_TEXT + 50 > len(shown["long"]["answer"])
    assert len(html_of(tmp_path)) < 60_000
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("| perception | &lt;/script")]
    assert len(re.findall(r"(?<!\\)\|", line)) == 10  # nine columns


def test_the_contact_sheet_is_even_over_families_and_shows_the_pictures(tmp_path):
    large = picture(50, (600, 300))
    rows = [sample(f"p{n}", picture(n), edit=picture(n + 100)) for n in range(30)]
    rows += [sample("m0", picture(40), family="logic"), sample("m1", large, family="logic", edit=large)]
    write_parquet(rows, tmp_path / "data" / "train.parquet")
    report_of(tmp_path, sheet=2, seed=1)
    sheet = Page(html_of(tmp_path)).sheet
    assert [item["family"] for item in sheet] == ["logic", "perception"] * 2
    items = {item["id"]: item for item in sheet}
    (first, _) = (name for name in items if name.startswith("p"))
    assert from_data_uri(items[first]["source"]).tobytes() == picture(int(first[1:])).tobytes()
    assert from_data_uri(items[first]["edit"]).tobytes() == picture(int(first[1:]) + 100).tobytes()
    assert items["m0"]["edit"] is None
    thumbnail = Image.open(io.BytesIO(base64.b64decode(items["m1"]["edit"].partition(",")[2])))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", (256, 128))
    report_of(tmp_path, sheet=2, seed=2)
    assert {item["id"] for item in Page(html_of(tmp_path)).sheet} != set(items)


def test_the_page_keeps_within_its_room(known):
    report = report_of(known)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (250, 250, 3), dtype=np.uint8))
    noisy = sample("noise", noise, edit=noise)
    text = page(report, [noisy] * 30, [])
    assert 5 < len(Page(text).sheet) < 30
    assert len(text) < MAX_PICTURES // 2 + 100_000
    text = page(report | {"examples": report["examples"][:1] * 20}, [], [noisy] * 40)
    assert 5 < 2 * len(Page(text).cards["pairs"]) < 40


def test_two_runs_give_the_same_files_with_one_process_or_two(known):
    report_of(known)
    first = {path.name: path.read_bytes() for path in (known / "out").iterdir()}
    assert sorted(first) == ["report.html", "report.json", "report.md"]
    report_of(known, processes=2, out=str(known / "again"))
    assert {path.name: path.read_bytes() for path in (known / "again").iterdir()} == first
