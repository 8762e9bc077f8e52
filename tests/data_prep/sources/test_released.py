"""The released data sets: layouts of columns, families, answers, and hostile rows."""

import hashlib
import io
import json
import random
import struct
import zlib
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.sources import columns
from data_prep.sources.build import build
from data_prep.sources.columns import WantedColumns, find_layout
from data_prep.sources.released import Released, ReleasedConfig, family_of, questions_with_answers, typed
from etchr.choices import chosen_letter, read_options
from etchr.families import TaskFamily
from etchr.mllm.answers import ground_truth
from etchr.router import Router
from etchr.sample import read_parquet
from etchr.training.data import prompt_maker

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
RED, BLUE = (250, 10, 10), (10, 10, 250)
BOX = "Draw a red box for the question. "
SFT = pa.schema([("source_image", pa.list_(PICTURE)), ("target_image", pa.list_(PICTURE)), ("prompt", pa.string())])


def png(colour, size=(8, 6), form="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, form)
    return buffer.getvalue()


def cell(data, path=None):
    return {"bytes": data, "path": path}


def pair(prompt=BOX + "Where is the cat?", source=None, target=None, **more):
    return {
        "source_image": [cell(source or png(RED), more.pop("path", None))],
        "target_image": [cell(target or png(BLUE))],
        "prompt": prompt,
        **more,
    }


def write(path, rows, schema=None, row_group_size=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=row_group_size)
    return path


def released(path, **options):
    return Released(ReleasedConfig(root=str(path), **options))


def sample(source, index=0):
    return next(iter(source.samples(index, random.Random(0))))


def middle(image):
    return image.getpixel((image.width // 2, image.height // 2))


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"source_image": [cell(png(RED))], "target_image": [cell(png(BLUE))], "prompt": BOX + "?"}, {}),
        ({"image": cell(png(BLUE)), "edit_image": cell(png(RED)), "prompt": BOX + "?"}, {}),
        ({"image": cell(png(RED)), "edited_image": cell(png(BLUE)), "instruction": BOX + "?"}, {}),
        ({"image": png(BLUE), "source_image": [png(RED)], "prompt": BOX + "?"}, {}),
        ({"problem_image_0": cell(png(RED)), "reasoning_image_0": cell(png(BLUE)), "question": BOX + "?"}, {}),
        ({"images": [cell(png(RED)), cell(png(BLUE))], "prompt": BOX + "?"}, {}),
        ({"images": [cell(png(RED)), cell(png(BLUE))], "prompt": BOX + "?", "answer": "4"}, {"kind": "sft"}),
        (
            {"image": cell(png(RED)), "edit_image": cell(png(BLUE)), "words": BOX + "?"},
            {"source_column": "image", "prompt_column": "words"},
        ),
        (
            {"a": png(BLUE), "b": png(RED), "c": png(BLUE), "prompt": BOX + "?"},
            {"source_column": "b", "target_column": "a"},
        ),
    ],
)
def test_source_and_edit_are_found_in_many_layouts(tmp_path, row, options):
    found = sample(released(write(tmp_path / "rows.parquet", [row]), **options))
    assert (middle(found.image), middle(found.edit_image)) == (RED, BLUE)
    assert (found.question, found.family, found.meta["source"]) == (BOX + "?", "perception", "ETCHR-SFT-400K")


@pytest.mark.parametrize(
    ("row", "options", "reason"),
    [
        ({"picture_path": "a.png", "prompt": "x"}, {}, "source picture.*picture_path"),
        ({"source_image": [png(RED)], "target_image": png(BLUE), "n": 3}, {}, "prompts as text.*target_image"),
        ({"source_image": [png(RED)], "prompt": "x"}, {}, "edited picture.*source_image"),
        ({"source_image": png(RED), "left": png(RED), "prompt": "x"}, {}, "left may hold the edited picture"),
        ({"source_image": png(RED), "prompt": "x"}, {"kind": "grpo"}, "no column holds the answers"),
        ({"source_image": png(RED), "prompt": "x", "answer": "1"}, {"prompt_column": "q"}, "prompt_column='q'"),
    ],
)
def test_columns_that_do_not_fit_are_listed(tmp_path, row, options, reason):
    with pytest.raises(ValueError, match=reason):
        released(write(tmp_path / "rows.parquet", [row]), **options)


def test_what_was_found_is_said_in_one_line(tmp_path, capsys):
    released(write(tmp_path / "rows.parquet", [pair()] * 9, SFT))
    line = "9 rows in 1 files, kind=sft: source in source_image; target in target_image; prompt in prompt\n"
    assert capsys.readouterr().out == line


def test_the_project_s_own_files_are_not_read_as_released_ones():
    with pytest.raises(ValueError, match="this project's schema already"):
        find_layout(pa.schema([(name, pa.string()) for name in columns.OWN_SCHEMA]), WantedColumns())


def test_missing_files_and_pointers_to_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="root="):
        Released(ReleasedConfig())
    with pytest.raises(ValueError, match=r"no \*\.parquet"):
        released(tmp_path)
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"a\.parquet is not a whole Parquet file"):
        released(tmp_path)


def test_two_data_sets_in_one_folder_are_not_mixed(tmp_path):
    write(tmp_path / "a.parquet", [pair()], SFT)
    write(tmp_path / "b.parquet", [{"source_image": [cell(png(RED))], "prompt": BOX, "answer": "4"}])
    with pytest.raises(ValueError, match=r"b\.parquet lacks column target_image"):
        released(tmp_path)


# ------------------------------------------------------------------------------------------------- family, answer


@pytest.mark.parametrize(
    ("prompt", "labels", "family"),
    [
        ("Draw a red box. Which?", (), "chart"),
        ("Draw a red box. Which?", ("vstar_gqa/1.jpg",), "perception"),
        ("Draw a red box. Which?", ("x/RefChartQA/1.png",), "chart"),
        ("Find the shortest path. Moves?", ("chart",), "logic"),
        ("Solve the jigsaw puzzle.", (), "jigsaw"),
        ("Imagine a new perspective of it.", (), "view3d"),
    ],
)
def test_the_family_is_read_from_the_prompt(prompt, labels, family):
    assert family_of(prompt, labels, "chart") is TaskFamily(family)


@pytest.mark.parametrize("prompt", ["What is it?", "Draw a red box on the shortest path."])
def test_a_prompt_of_no_family_or_of_several_is_refused(prompt):
    with pytest.raises(ValueError, match=r"no family|several families"):
        family_of(prompt, (), "chart")


def test_a_path_label_and_a_column_tell_charts_apart(tmp_path):
    schema = SFT.append(pa.field("dataset", pa.string()))
    rows = [pair(dataset="RefChartQA"), pair(dataset="GQA"), pair(path="refchartqa/3.png"), pair()]
    source = released(write(tmp_path / "a.parquet", rows, schema))
    assert [sample(source, i).family for i in range(4)] == ["chart", "perception", "chart", "perception"]
    assert sample(source, 2).meta["path"] == "refchartqa/3.png"


def test_an_sft_row_without_answer_trains_stage_one_and_is_refused_by_the_grader(tmp_path):
    found = sample(released(write(tmp_path / "a.parquet", [pair()], SFT)))
    assert found.meta["answer_is_missing"] is True
    with pytest.raises(ValueError, match="this released row has no answer' is no number answer"):
        ground_truth(found)


@pytest.mark.parametrize(
    ("prompt", "value", "kind", "truth"),
    [
        (BOX + "How many?", 12, "number", "12"),
        (BOX + "How much?", 2.5, "number", "2.5"),
        (BOX + "What colour?", "dark red", "text", "dark red"),
        (BOX + "Which? A. left B. right", "B", "option", "B"),
        (BOX + "Where? A. right B. left", "B. left", "option", "B"),
        (BOX + "Where? A. right B. left", "left", "option", "B"),
        (BOX + "How many? A. 3 B. 4\nAnswer with the letter.", "4", "option", "B"),
        ("Find the shortest path. Which? A. D,D B. R,R C. U,L D. L,L", "D", "option", "D"),
        (BOX + "Which letter is on the sign?", "B", "text", "B"),
        ("Find the shortest path. Moves?", "D,D,R", "moves", "D,D,R"),
        ("Find the shortest path. Moves?", "Down, Left, Up", "moves", "D,L,U"),
        ("Find the shortest path. Moves?", "DRRD", "moves", "D,R,R,D"),
        ("Find the shortest path. Moves?", "DR RD", "moves", "D,R,R,D"),
        ("Find the shortest path. Moves?", "↓→→", "moves", "D,R,R"),
        ("Find the shortest path. How many moves?", "12", "number", "12"),
        ("Solve the jigsaw. Order?", "2-0-3-1", "permutation", "2-0-3-1"),
        ("Solve the jigsaw. Order?", "[0, 2, 3, 1]", "permutation", "0-2-3-1"),
        ("Solve the jigsaw. Order?", "0231", "permutation", "0-2-3-1"),
        ("Solve the jigsaw. Order?", "1342", "permutation", "1-3-4-2"),
        ("Solve the jigsaw. How many?", "2024", "number", "2024"),
        ("Solve the jigsaw. How many?", "0, 5", "text", "0, 5"),
        (
            BOX + "How many?",
            [{"question": "How many?", "answer": "7"}, {"question": "?", "answer": "8"}],
            "number",
            "7",
        ),
    ],
)
def test_grpo_answers_are_typed_by_their_form(tmp_path, prompt, value, kind, truth):
    column = "qa_list" if isinstance(value, list) else "answer"
    row = {"source_image": [cell(png(RED))], "prompt": prompt, column: value}
    found = sample(released(write(tmp_path / "GRPO.parquet", [row])))
    assert (found.meta["answer_type"], ground_truth(found)) == (kind, truth)
    assert (len(found.choices or ()) > 1) == (kind == "option")
    assert found.edit_image is None
    assert found.meta["source"] == "ETCHR-GRPO-10K"


def test_every_pair_of_a_qa_list_is_kept_with_its_own_question_and_the_editor_keeps_its_prompt(tmp_path):
    prompt = BOX + "What stands on the table?"
    asked = [
        {"question": "How many cups?", "answer": "2"},
        {"question": "Where is the jug? A. left B. right", "answer": "right"},
        {"question": None, "answer": "a jug"},
        {"question": "Is it full?", "answer": None},
    ]
    pairs = [
        ("How many cups?", "number", "2"),
        ("Where is the jug? A. left B. right", "option", "B"),
        ("What stands on the table?", "text", "a jug"),
    ]
    router = tmp_path / "router.yaml"
    router.write_text(f"perception: {BOX.strip()}\n")
    lists = [(asked, pairs), (json.dumps(asked), pairs), (asked[1], pairs[1:2]), (asked[2:3], pairs[2:])]
    for number, (value, expected) in enumerate(lists):
        folder = tmp_path / str(number)
        write(folder / "grpo" / "a.parquet", [{"source_image": [cell(png(RED))], "prompt": prompt, "qa_list": value}])
        options = {"root": str(folder / "grpo"), "out": str(folder), "meta_prompts": str(router), "val_share": 0.0}
        build(Released, ReleasedConfig(**options, kind="grpo", processes=1))
        (found,) = read_parquet(folder / "released_grpo", "train")
        told = [found.asked(index) for index in range(found.num_questions)]
        assert [(s.question, s.meta["answer_type"], ground_truth(s)) for s in told] == expected
        assert (found.question, found.choices) == (told[0].question, told[0].choices)
        assert [s.choices for s in told if s.meta["answer_type"] == "option"] == [("left", "right")] * (number < 3)
        assert {prompt_maker("question", Router.load(router))(s) for s in told} == {prompt}
    for words in ('{"answer', "[0, 2, 3, 1]", "[" * 5000, '[{"question": "?"}]'):
        assert questions_with_answers(words, "Which?") == [("Which?", words)]
    with pytest.raises(ValueError, match="100 questions and answers"):
        questions_with_answers([{"question": "?" * 19_000, "answer": "4"}] * 100, "Which?")


def test_a_grpo_row_without_answer_is_refused_and_its_edit_is_read_where_there_is_one(tmp_path):
    schema = SFT.append(pa.field("answer", pa.string()))
    rows = [pair(answer="5"), pair(answer=None), {**pair(answer="5"), "target_image": []}]
    source = released(write(tmp_path / "grpo" / "a.parquet", rows, schema))
    assert middle(sample(source).edit_image) == BLUE
    with pytest.raises(ValueError, match="no answer"):
        sample(source, 1)
    assert sample(source, 2).edit_image is None


def test_a_free_answer_that_looks_like_moves_is_moves_of_a_maze_only():
    assert typed("right", TaskFamily.PERCEPTION, "On which side?") == ("right", "text", None)
    assert typed("right", TaskFamily.LOGIC, "Which move?") == ("right", "moves", None)
    assert typed("0231", TaskFamily.CHART, "How much?") == ("0231", "number", None)


def test_an_answer_that_contradicts_its_options_is_no_option():
    assert chosen_letter("A. left", ("right", "left")) is None
    question = "Where? A. right B. left"
    assert typed("A. left", TaskFamily.PERCEPTION, question) == ("A. left", "text", None)
    assert typed("B. left", TaskFamily.PERCEPTION, question) == ("B", "option", ("right", "left"))


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("A. left B. right", ("left", "right")),
        ("(A) the red one, (B) the blue one", ("the red one", "the blue one")),
        ("A: 3.5 m\nB: 4 m\nC: 5 m", ("3.5 m", "4 m", "5 m")),
        ('["left", "right"]', ("left", "right")),
        ('["A. left", "B. right"]', ("left", "right")),
        ("A. left B. right\nAnswer with the letter.", ("left", "right")),
        ("left or right", ()),
        ("A. only one", ()),
        ("[" * 5000, ()),
    ],
)
def test_options_are_told_apart(words, options):
    assert read_options(words) == options


@pytest.mark.parametrize(("answer", "letter"), [("B", "B"), ("(B)", "B"), ("B. right", "B"), ("Left", "A")])
def test_dl3dv_candidates_become_options(tmp_path, answer, letter):
    row = {"question": "Where is the sofa?", "candidates": "A. left B. right", "images": [{"bytes": png(RED)}]}
    found = sample(released(write(tmp_path / "DL3DV.parquet", [row | {"answer": answer}])))
    assert (found.family, found.task, found.question) == ("view3d", "dl3dv2k", "Where is the sofa?")
    assert (found.choices, found.edit_image, ground_truth(found)) == (("left", "right"), None, letter)
    assert found.meta["released_question"] == "Question: Where is the sofa?Candidates: A. left B. right"


def test_dl3dv_candidates_of_no_known_form_stay_in_the_question_and_a_strange_answer_is_refused(tmp_path):
    row = {"question": "Where?", "candidates": "left / right", "images": [{"bytes": png(RED)}], "answer": "left"}
    source = released(write(tmp_path / "a.parquet", [row, row | {"candidates": "A. up B. down"}]))
    assert (sample(source).question, ground_truth(sample(source))) == ("Where?\nleft / right", "left")
    with pytest.raises(ValueError, match="none of the 2 candidates"):
        sample(source, 1)


@pytest.mark.parametrize(
    ("candidates", "reason"),
    [
        ('["left", "half a \\ud83d"]', "lone surrogate"),
        ('["left", " "]', "option is empty"),
        (["left", None], "option is missing"),
        ([date(2026, 1, 1), date(2026, 1, 2)], "option is no text but date"),
    ],
)
def test_dl3dv_candidates_that_no_file_can_hold_are_refused(tmp_path, candidates, reason):
    row = {"question": "Where?", "candidates": candidates, "images": [{"bytes": png(RED)}], "answer": "left"}
    with pytest.raises(ValueError, match=reason):
        sample(released(write(tmp_path / "a.parquet", [row])))


def test_no_row_of_the_evaluation_set_is_hidden(tmp_path):
    rows = [{"question": f"{i}?", "candidates": '["left", "right"]', "images": [{"bytes": png((i, 0, 0))}],
             "answer": "left"} for i in range(12)]  # fmt: skip
    root = write(tmp_path / "in" / "a.parquet", rows)
    options = {"root": str(root), "out": str(tmp_path / "out"), "processes": 1}
    assert build(Released, ReleasedConfig(**options, val_share=0.5)) == {"view3d": 12}
    made = [found.id for found in read_parquet(tmp_path / "out" / "released_dl3dv2k", "train")]
    assert made == [f"released_dl3dv2k-{index:07d}" for index in range(12)]
    with pytest.raises(ValueError, match="all its rows are in split=train"):
        build(Released, ReleasedConfig(**options, split="val"))


# ------------------------------------------------------------------------------------------------------- pictures


def test_an_edit_of_another_size_is_resized_and_one_of_another_shape_refused(tmp_path):
    rows = [pair(target=png(BLUE, (16, 12))), pair(target=png(BLUE, (8, 12)))]
    source = released(write(tmp_path / "a.parquet", rows, SFT))
    found = sample(source)
    assert found.image.size == found.edit_image.size == (8, 6)
    assert found.meta["edit_was_resized_from"] == [16, 12]
    with pytest.raises(ValueError, match="8x12, the source 8x6"):
        sample(source, 1)


def test_transparent_pixels_are_white_or_as_the_released_code_reads_them(tmp_path):
    palette = Image.new("P", (8, 6), 1)
    palette.putpalette([0, 0, 0, *BLUE])
    hidden = {"RGBA": Image.new("RGBA", (8, 6), (*BLUE, 0)), "P": palette, "LA": Image.new("LA", (8, 6), (40, 0))}
    for mode, picture in hidden.items():
        stream = io.BytesIO()
        picture.save(stream, "PNG", **({"transparency": 1} if mode == "P" else {}))
        path = write(tmp_path / mode / "a.parquet", [pair(source=stream.getvalue(), target=stream.getvalue())], SFT)
        released_code = middle(Image.open(stream).convert("RGB"))
        for alpha, colour in (("white", (255, 255, 255)), ("drop", released_code)):
            found = sample(released(path, alpha=alpha))
            assert (middle(found.image), middle(found.edit_image)) == (colour, colour), mode
        assert released_code == ((40, 40, 40) if mode == "LA" else BLUE)


def test_rows_about_one_picture_share_their_key(tmp_path):
    rows = [pair(), pair("other " + BOX, target=png(RED)), pair(source=png(BLUE))]
    source = released(write(tmp_path / "a.parquet", rows, SFT))
    assert source.key(0) == source.key(1) == hashlib.sha256(png(RED)).hexdigest() != source.key(2)


def test_the_meta_prompt_is_cut_off_and_the_router_puts_it_back(tmp_path):
    router = tmp_path / "router.yaml"
    router.write_text("perception: Draw a red box for the question.\n")
    rows = [pair(), pair("Please: " + BOX), pair(BOX), pair("Find the shortest path. Moves?")]
    source = released(write(tmp_path / "a.parquet", rows, SFT), meta_prompts=str(router))
    found = sample(source)
    assert found.question == "Where is the cat?"
    assert Router.load(router).prompt(found.question, found.family) == rows[0]["prompt"] == found.meta["instruction"]
    for index, reason in ((1, "not the meta-prompt"), (2, "not the meta-prompt"), (3, "no sentence for logic")):
        with pytest.raises(ValueError, match=reason):
            sample(source, index)


# --------------------------------------------------------------------------------------------- a whole build, hostile


def bomb():
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def test_the_sets_share_neither_folder_nor_ids(tmp_path):
    write(tmp_path / "sft" / "a.parquet", [pair()], SFT)
    write(tmp_path / "grpo" / "a.parquet", [{"source_image": [cell(png(RED))], "prompt": BOX + "?", "answer": "4"}])
    for kind in ("sft", "grpo"):
        options = {"root": str(tmp_path / kind), "out": str(tmp_path / "out"), "val_share": 0.0, "processes": 1}
        assert build(Released, ReleasedConfig(**options)) == {"perception": 1}
    found = {path.name: next(iter(read_parquet(path, "train"))).id for path in (tmp_path / "out").iterdir()}
    assert found == {"released_sft": "released_sft-0000000", "released_grpo": "released_grpo-0000000"}


def test_hostile_rows_are_left_out_or_harmless_and_nothing_is_written_elsewhere(tmp_path):
    schema = SFT.append(pa.field("id", pa.string()))
    jpeg = png(RED, (64, 64), "JPEG")
    rows = [
        pair(id="same"),
        pair(id="same", path="../../escaped.png"),
        pair(id="../x", path=str(tmp_path / "absolute.png")),
        pair(source=png(RED, (1, 20_000)), target=png(BLUE, (1, 20_000))),
        pair(source=bomb()),
        pair(source=jpeg[: len(jpeg) // 2], target=jpeg),
        pair(prompt=None),
        pair(prompt=BOX + "a" * 10_000_000),
        {**pair(), "source_image": None},
        {**pair(), "source_image": []},
        {**pair(), "source_image": [None]},
        {**pair(), "target_image": [cell(None, "/etc/hostname")]},
        {**pair(), "target_image": None},
        pair(prompt="What is it?"),
        pair(),
    ]
    write(tmp_path / "sft" / "rows.parquet", rows, schema)
    before = set(tmp_path.rglob("*"))
    options = {"root": str(tmp_path / "sft"), "processes": 1, "val_share": 0.0, "part_size": 6}
    assert build(Released, ReleasedConfig(out=str(tmp_path / "out"), **options)) == {"perception": 5}
    assert all((tmp_path / "out") in path.parents for path in set(tmp_path.rglob("*")) - before - {tmp_path / "out"})
    made = {s.id: s for s in read_parquet(tmp_path / "out" / "released_sft", "train")}
    assert sorted(made) == [f"released_sft-{index:07d}" for index in (0, 1, 2, 3, 14)]
    assert made["released_sft-0000002"].meta["path"] == str(tmp_path / "absolute.png")
    assert made["released_sft-0000003"].image.size == (1, 20_000)
    assert made["released_sft-0000001"].meta["released_id"] == "same"
    assert made["released_sft-0000014"].meta["released"] == {"file": "rows.parquet", "row": 14}
    notes = (tmp_path / "out" / "released_sft" / "train" / "rejected.jsonl").read_text().splitlines()
    reasons = {note["item"]: note["reason"] for note in map(json.loads, notes)}
    expected = {4: "10000000000 pixels", 5: "not a readable", 6: "prompt is missing", 7: "10,000,033 characters",
                8: "no picture", 9: "no picture", 10: "no picture", 11: "no picture", 12: "no picture",
                13: "no family"}  # fmt: skip
    assert reasons.keys() == expected.keys()
    assert all(expected[item] in reason for item, reason in reasons.items()), reasons
    build(Released, ReleasedConfig(out=str(tmp_path / "again"), **options))
    files = [sorted((tmp_path / out / "released_sft").glob("*.parquet")) for out in ("out", "again")]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
