"""V* (SEAL) records: boxes, texts, splits, and records that must be refused without harm."""

import hashlib
import json
import random
import re

import numpy as np
import pytest
from PIL import Image

from data_prep.sources.build import build
from data_prep.sources.vstar import VStarConfig, VStarSource
from etchr.boxes import RED
from etchr.families import TaskFamily
from etchr.sample import read_parquet
from tests.data_prep.sources.fixtures_boxes import picture, record, refused, write_seal

GQA = {"files": ["GQA_data.json"], "pictures": ["gqa"]}


def options(root, **more):
    out = {"out": str(root / "out"), "processes": 1, "part_size": 50, "val_share": 0.0}
    return VStarConfig(root=str(root), **{**out, **GQA, **more})


def only(root, rec, **more):
    """The sample of a single GQA record about a picture that is there."""
    write_seal(root, GQA=[rec])
    (root / "gqa/images/1.jpg").write_bytes(picture())
    (sample,) = VStarSource(options(root, **more)).samples(0, random.Random(0))
    return sample


def test_a_record_becomes_a_question_with_a_frame_round_each_target(tmp_path):
    sample = only(tmp_path, record("gqa/images/1.jpg", boxes=((20, 30, 25, 15), (70.5, 50, 20, 20.5))))
    assert (sample.id, sample.family, sample.task) == ("vstar-0000000", TaskFamily.PERCEPTION, "vstar")
    assert (sample.question, sample.answer) == ("What color is the cup?", "The cup is blue.")
    meta = sample.meta
    assert meta["boxes"] == [[20, 30, 25, 15], [70, 50, 21, 21]]
    assert meta["targets"] == ["thing 0", "thing 1"]
    assert (meta["path"], meta["file"], meta["record"]) == ("gqa/images/1.jpg", "GQA_data.json", 0)
    assert (meta["answer_type"], meta["source"]) == ("text", "SEAL (V*) VQA data")
    assert "CC BY 4.0" in meta["licence"]
    changed = (np.asarray(sample.image) != np.asarray(sample.edit_image)).any(-1)
    assert (np.asarray(sample.edit_image)[changed] == RED).all()
    assert changed.sum() == (29 * 19 - 25 * 15) + (25 * 25 - 21 * 21)  # lines of 2 px
    assert not changed[30:45, 20:45].any()


@pytest.mark.parametrize(
    ("asked", "question"),
    [
        ("<image>\nIs the kite red?", "Is the kite red?"),
        ("Is the kite red?\n<image>", "Is the kite red?"),
        ("<image>\nAdditional visual information to focus on: <object>.\nIs it red?\nOr blue?", "Is it red?\nOr blue?"),
        ("<im_start><image><im_end>\nAdditional visual information to focus on: <object>; <object>.\nWho?", "Who?"),
    ],
)
def test_the_question_loses_its_placeholders(tmp_path, asked, question):
    rec = record("gqa/images/1.jpg")
    rec["conversations"][0]["value"] = asked
    assert only(tmp_path, rec).question == question


def turns(*texts):
    return [{"from": ("human", "gpt")[i % 2], "value": words} for i, words in enumerate(texts)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"target_instances": []}, "no target_instances"),
        ({"target_instances": None}, "no target_instances"),
        ({"target_instances": [{"name": "cup"}]}, "a target has no box"),
        ({"target_instances": [{"bbox": [1, 2, 3, 4]}]}, "target name is missing"),
        ({"target_instances": [{"name": "cup", "bbox": [1, 2, float("nan"), 4]}]}, "holds nan"),
        ({"target_instances": [{"name": "cup", "bbox": [1, 2, 10**400, 4]}]}, "huge integer"),
        ({"target_instances": [{"name": "cup", "bbox": [500, 2, 3, 4]}]}, "lies outside"),
        ({"target_instances": [{"name": "cup", "bbox": [1, 2, 3, 4]}] * 7}, "7 boxes; at most 6"),
        ({"conversations": None}, "no list of turns"),
        ({"conversations": [7]}, "no list of turns"),
        ({"conversations": turns("Who?")}, "does not begin with"),
        ({"conversations": turns("Who?", "Me.")[::-1]}, "does not begin with"),
        ({"conversations": turns("Who?", "Me.", "And then?", "He.")}, "several questions"),
        ({"conversations": turns("<image>", "Me.")}, "question is empty"),
        ({"conversations": turns("What is <object> here?", "Me.")}, "placeholder"),
        ({"conversations": turns("Who?", float("nan"))}, "answer is missing"),
        ({"conversations": turns("Who?", "half a \ud83d")}, "half a character"),
        ({"image": "gqa/images/2.jpg"}, "no file"),
        ({"image": "gqa/images"}, "not below"),
        ({"image": None}, "image path is missing"),
    ],
)
def test_records_that_do_not_fit_are_refused(tmp_path, change, reason):
    with pytest.raises(ValueError, match=reason):
        only(tmp_path, record("gqa/images/1.jpg") | change)


def test_boxes_that_reach_outside_are_cut_or_refused(tmp_path):
    rec = record("gqa/images/1.jpg", boxes=((100, 30, 30, 20),))
    assert only(tmp_path, rec).meta["boxes"] == [[100, 30, 20, 20]]
    with pytest.raises(ValueError, match="reaches 10 px outside"):
        only(tmp_path, rec, outside="refuse")


def test_a_dialogue_gives_its_first_question_where_that_is_wanted(tmp_path):
    rec = record("gqa/images/1.jpg") | {"conversations": turns("Who?", "Me.", "And then?", "He.")}
    sample = only(tmp_path, rec, multi_turn=True)
    assert (sample.question, sample.answer, sample.meta["turns"]) == ("Who?", "Me.", 4)


def test_files_and_pictures_are_chosen(tmp_path):
    coco = [record("coco2014/train2014/COCO_train2014_000000000009.jpg"), record("coco2017/train2017/000000000009.jpg")]
    write_seal(tmp_path, GQA=[record("gqa/images/1.jpg")], llava_focus=[*coco, record("coco2017/train2017/x.jpg")])
    both = ["GQA_data.json", "llava_focus_data.json"]
    source = VStarSource(options(tmp_path, files=both, pictures=["gqa", "coco2014", "coco2017"]))
    keys = [source.key(index) for index in range(len(source))]
    assert keys == ["gqa/images/1.jpg", "coco/000000000009", "coco/000000000009", "coco2017/train2017/x.jpg"]
    assert len(VStarSource(options(tmp_path, files=both, pictures=["coco2017"]))) == 2
    only_gqa = VStarSource(options(tmp_path, files=both))
    assert [only_gqa.key(0), len(only_gqa)] == ["gqa/images/1.jpg", 1]
    digest = hashlib.sha256((tmp_path / "GQA_data.json").read_bytes()).hexdigest()
    assert only_gqa.identity()["sha256"]["GQA_data.json"] == digest


def test_records_are_found_again_in_files_of_any_layout(tmp_path):
    questions = ['Why "]}, {"?', "Où est l’été – 猫?", "A\\\\B \U0001f600 \x85?", "plain"]
    records = [record(f"gqa/images/{i}.jpg", question) for i, question in enumerate(questions)]
    write_seal(tmp_path)
    layouts = [
        json.dumps(records, indent=2, ensure_ascii=False).encode(),
        b"\xef\xbb\xbf\r\n " + json.dumps(records, ensure_ascii=False, separators=(",", ":")).encode() + b"\n",
        json.dumps(records).encode(),
    ]
    for number in range(4):
        (tmp_path / f"gqa/images/{number}.jpg").write_bytes(picture())
    for data in layouts:
        (tmp_path / "GQA_data.json").write_bytes(data)
        source = VStarSource(options(tmp_path))
        assert [next(source.samples(i, random.Random(0))).question for i in range(len(source))] == questions
    (tmp_path / "GQA_data.json").write_bytes(b" [ ] ")
    assert len(VStarSource(options(tmp_path))) == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no JSON list"),
        (b'{"image": 1}', "no JSON list"),
        (b'[{"image": "gqa/x.jpg"}, {"image": ', "damaged at byte 25"),
        (b'[{"image": "gqa/x.jpg"}', "cut off at byte 23"),
        (b"[" * 100_000, "damaged or cut off at byte 100,000"),
        (b'[{"image": "x.jpg"}, ' + b"[" * 90_000 + b"]" * 89_999, "damaged or cut off at byte 180,020"),
        (b"[" + b"[" * 90_000 + b"]" * 90_000 + b"}", "damaged or cut off at byte 180,001"),
        (b"[" * 90_000 + b'"' + b'\\"' * 200_000, "damaged or cut off at byte 490,001"),  # a text that never ends
    ],
)
def test_a_damaged_file_says_so_at_once(tmp_path, data, reason):
    write_seal(tmp_path)
    (tmp_path / "GQA_data.json").write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        VStarSource(options(tmp_path))


def test_a_record_that_is_nested_too_deeply_is_refused_alone(tmp_path):
    good = json.dumps(record("gqa/images/1.jpg", 'Why ]}"?'))
    deep = "[" * 100_000 + json.dumps('in here: ]]] }}} \\ " {') + "]" * 100_000
    inside = good[:-1] + ', "more": ' + "[{}," * 50_000 + "0" + "]" * 50_000 + "}"
    write_seal(tmp_path)
    (tmp_path / "gqa/images/1.jpg").write_bytes(picture())
    (tmp_path / "GQA_data.json").write_text(f"[{good}, {deep}, {inside} , {good}]")
    build(VStarSource, options(tmp_path))
    assert refused(tmp_path / "out", "vstar") == dict.fromkeys((1, 2), "the record is nested too deeply")
    assert [s.id for s in read_parquet(tmp_path / "out/vstar", "train")] == ["vstar-0000000", "vstar-0000003"]


def test_an_integer_that_python_refuses_to_read_refuses_its_record_alone(tmp_path):
    good, long = json.dumps(record("gqa/images/1.jpg")), "9" * 5_000
    boxed = good.replace("[20, 30, 25, 15]", f"[20, 30, -{long}, 15]")
    named = good.replace('"search": ""', f'"search": {long}')
    assert good != boxed
    write_seal(tmp_path)
    (tmp_path / "gqa/images/1.jpg").write_bytes(picture())
    (tmp_path / "GQA_data.json").write_text(f"[{good}, {boxed}, {named}]")
    source = VStarSource(options(tmp_path))
    assert len(source) == 3
    with pytest.raises(ValueError, match="holds -inf, which is no finite number"):
        list(source.samples(1, random.Random(0)))
    assert [next(source.samples(index, random.Random(0))).meta["boxes"] for index in (0, 2)] == [[[20, 30, 25, 15]]] * 2


def test_missing_files_folders_and_wrong_options_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"no GQA_data.json in .*hf download craigwu/seal_vqa_data"):
        VStarSource(options(tmp_path))
    write_seal(tmp_path, GQA=[])
    (tmp_path / "gqa/images").rmdir()
    with pytest.raises(ValueError, match=r"no folder gqa/images in .*pictures=\["):
        VStarSource(options(tmp_path))
    for wrong in ({"files": ["gqa.json"]}, {"pictures": []}, {"pictures": ["gqa", "gqa"]}, {"outside": "keep"},
                  {"max_targets": 0}):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(wrong))):
            options(tmp_path, **wrong)


def test_a_build_of_hostile_records_keeps_the_good_ones_and_writes_nowhere_else(tmp_path):
    root, secret = tmp_path / "seal", tmp_path / "secret.png"
    secret.write_bytes(picture())
    write_seal(root)
    images = root / "gqa/images"
    (images / "good.jpg").write_bytes(picture(kind="JPEG"))
    (images / "cut.jpg").write_bytes(picture(kind="JPEG")[:900])
    Image.new("RGB", (1, 20_000)).save(images / "thin.png")
    (images / "page.jpg").write_bytes(b"<html>")
    (images / "link.jpg").symlink_to(secret)
    good = "gqa/images/good.jpg"
    hostile = [
        (record(str(secret)), "not below"),
        (record("gqa/images/../../../secret.png"), "not below"),
        (record("../secret.png"), "not below"),
        (record("gqa/images/link.jpg"), "does not lie below"),
        (record("gqa/images/" + "x/" * 900), "image path has 1,811 characters"),
        (record("gqa/images/" + "x" * 700), "cannot be looked up"),
        (record("gqa/images/a\0b.jpg"), "does not lie below"),
        (record("gqa/images/\ud800.jpg"), "half a character"),
        (record("gqa/images/cut.jpg"), "not a readable image"),
        (record("gqa/images/page.jpg"), "not an image"),
        (record("gqa/images/thin.png", boxes=((0, 5, 1, 9),)), "1x20000 px is too small"),
        (record(good, question="x" * 10_000_000), "question has 10,000,0[0-9]+ characters"),
        (record(good, boxes=((1, 2, float("nan"), 4),)), "holds nan"),
        (record(good) | {"conversations": turns(float("nan"), "Me.")}, "question is missing"),
        (record(good, question="\udc00"), "half a character"),
        (["no object"], "no object but list"),
        (None, "no object but NoneType"),
    ]
    rows = [record(good), record(good), *(row for row, _ in hostile), record(good)]
    write_seal(root, GQA=rows)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    config = options(root, out=str(tmp_path / "made"))
    assert build(VStarSource, config) == {"perception": 3}
    reasons = refused(tmp_path / "made", "vstar")
    assert sorted(reasons) == list(range(2, 2 + len(hostile)))
    for (_, reason), seen in zip(hostile, (reasons[index] for index in sorted(reasons)), strict=True):
        assert re.search(reason, seen), seen
    made = {path for path in tmp_path.rglob("*") if path not in before}
    assert all(path.is_relative_to(tmp_path / "made") for path in made)
    assert {path: path.stat().st_mtime_ns for path in before if path.is_file()} == {
        path: stamp for path, stamp in before.items() if path.is_file()
    }
    back = list(read_parquet(tmp_path / "made" / "vstar", "train"))
    assert [sample.id for sample in back] == ["vstar-0000000", "vstar-0000001", f"vstar-{len(rows) - 1:07d}"]
    assert [sample.meta["boxes"] for sample in back] == [[[20, 30, 25, 15]]] * 3
    again = options(root, out=str(tmp_path / "again"))
    build(VStarSource, again)
    files = [tmp_path / out / "vstar" / "train-00000.parquet" for out in ("made", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
