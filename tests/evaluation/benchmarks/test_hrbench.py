"""HR-Bench: the published score against an own computation, the unit of intervals, both files, and files that lie."""

import csv
import itertools
import logging

import numpy as np
import pytest

from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.benchmark import LoadOptions
from tests.evaluation.benchmarks.published import (
    BIG_TEXT,
    BOMB,
    EIGHT_K,
    base64_text,
    cut_jpeg,
    outcome,
    png,
    write_parquet,
)

FOUR, EIGHT = BENCHMARKS["hrbench_4k"], BENCHMARKS["hrbench_8k"]
OPTIONS = ("red", "blue", "green", "white")
QUESTIONS = (("What colour?", "single", "red"), ("What colour?", "cross", "grey"), ("Where is it?", "cross", "grey"))


def rows(questions=QUESTIONS, turns=4):
    """Each question in every turn; the truth is the option `red`, which moves on by one place each time."""
    made = []
    for number, (question, category, colour) in enumerate(questions):
        for turn in range(turns):
            options = OPTIONS[-turn:] + OPTIONS[:-turn] if turn else OPTIONS
            made.append(
                {
                    "index": number * turns + turn,
                    "question": question,
                    "answer": "ABCD"[options.index("red")],
                    "category": category,
                    **dict(zip("ABCD", options, strict=True)),
                    "cycle_category": turn,
                    "image": base64_text(png((40 + number, 30), colour)),
                }
            )
    return made


def write_tsv(made, path, end="\n"):
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(made[0]), delimiter="\t", lineterminator=end)
        writer.writeheader()
        writer.writerows(made)


def load(made, folder, benchmark=FOUR):
    write_parquet(made, folder / f"{benchmark.file}.parquet")
    return benchmark.load(folder, LoadOptions())


def published_score(made, replies):
    """The mean over turns of the accuracy in each, of all and of one category, as VLMEvalKit and lmms-eval have it."""
    hits = [reply == row["answer"] for row, reply in zip(made, replies, strict=True)]
    scores = {}
    for name in ("all", "single", "cross"):
        by_turn = [
            np.mean([hit for row, hit in zip(made, hits, strict=True) if row["cycle_category"] == turn and mine(row)])
            for turn in range(4)
            for mine in [lambda row, name=name: name in ("all", row["category"])]
        ]
        scores[name] = np.mean(by_turn)
    return scores


def test_the_mean_over_rows_is_the_published_score(tmp_path):
    made = rows()
    samples = load(made, tmp_path)
    for seed in range(5):
        replies = np.random.default_rng(seed).choice(list("ABCD"), len(made))
        right = [outcome(FOUR, samples[i], f"\\boxed{{{reply}}}").right for i, reply in enumerate(replies)]
        kinds = [samples[i].meta["category"] for i in range(len(made))]
        official = published_score(made, replies)
        assert np.mean(right) == pytest.approx(official["all"])
        for kind, name in (("FSP", "single"), ("FCP", "cross")):
            mine = [value for value, of in zip(right, kinds, strict=True) if of == kind]
            assert np.mean(mine) == pytest.approx(official[name])


def test_the_unit_is_the_question_and_not_the_row(tmp_path):
    """Equal words about another picture, and other words about the same one, are other questions."""
    samples = load(rows(), tmp_path)
    clusters = [samples.peek(i).meta["cluster"] for i in range(12)]
    assert [len(set(clusters[start : start + 4])) for start in (0, 4, 8)] == [1, 1, 1]
    assert len(set(clusters)) == 3
    assert {samples[i].choices[ord(samples[i].answer) - ord("A")] for i in range(12)} == {"red"}


def test_ids_and_samples_go_with_their_rows_in_any_order_and_from_either_file(tmp_path):
    made = rows()
    shuffled = [made[i] for i in np.random.default_rng(0).permutation(len(made))]
    (tmp_path / "tsv").mkdir()
    write_tsv(shuffled, tmp_path / "tsv" / "hr_bench_4k.tsv")
    parquet, tsv = load(made, tmp_path), FOUR.load(tmp_path / "tsv", LoadOptions())
    assert sorted(parquet.ids) == sorted(tsv.ids)
    assert parquet.ids[:2] == ["hrbench_4k-0-0", "hrbench_4k-1-1"]
    for index, key in enumerate(tsv.ids):
        one, other = parquet[parquet.ids.index(key)], tsv[index]
        assert (one.question, one.choices, one.answer, one.meta) == (
            other.question,
            other.choices,
            other.answer,
            other.meta,
        )
        assert one.image.tobytes() == other.image.tobytes()


def test_cells_are_read_as_a_table_writes_them(tmp_path):
    """Quotes, tabs and line breaks of a TSV are kept; the index or an option may come as 3 or as 3.0."""
    made = rows()
    made[1] |= {"question": 'Which "sign"?\nLook\tthere', "A": '"', "image": base64_text(png((90, 90)))}
    for end in ("\n", "\r\n"):
        write_tsv(made, tmp_path / "hr_bench_4k.tsv", end)
        samples = FOUR.load(tmp_path, LoadOptions())
        asked = [samples[i].question for i in range(3)]
        assert asked == ["What colour?", made[1]["question"], "What colour?"], repr(end)
        assert (samples[1].choices[0], samples[1].image.size) == ('"', (90, 90)), repr(end)
        assert len(samples) == 12, repr(end)
    numbered = [
        row | {"index": float(row["index"]), "cycle_category": f"cycle {row['cycle_category']}"} for row in rows()
    ]
    for row, letter in itertools.product(numbered, "ABCD"):
        row[letter] = float(OPTIONS.index(row[letter]))
    samples = load(numbered, tmp_path / "numbers")
    assert samples.ids[5] == "hrbench_4k-5-cycle 1"
    assert samples[0].choices == ("0", "1", "2", "3")


def test_the_two_sizes_lie_side_by_side_and_pixels_are_read_when_asked_for(tmp_path):
    load(rows(), tmp_path)
    load(rows()[:4], tmp_path, EIGHT)
    assert len(FOUR.load(tmp_path, LoadOptions())) == 12
    assert EIGHT.load(tmp_path, LoadOptions()).ids[0] == "hrbench_8k-0-0"
    assert FOUR.place == EIGHT.place

    made = [row | {"image": base64_text(EIGHT_K)} for row in rows()[:4]]
    samples = load(made, tmp_path / "eight", EIGHT)
    assert samples.peek(3).image.size == (7680, 4320)
    with pytest.raises(ValueError, match="row 4: not a readable image"):
        samples[3]


def test_rows_that_do_not_belong_together_are_refused_or_heard_of(tmp_path, caplog):
    with pytest.raises(ValueError, match="cycle_category has 3 of '0', 3 of '1', 3 of '2', 2 of '3'"):
        load(rows()[:-1], tmp_path / "missing")

    made = rows()
    mixed = [*made[0:2], *made[8:12], *made[6:8]]  # turns 0 and 1 of one question, 2 and 3 of another that reads alike
    mixed[6:8] = [row | {"question": "Which colour?"} for row in mixed[6:8]]
    with caplog.at_level(logging.WARNING):
        load(mixed, tmp_path / "mixed")
    assert "2 of 3 questions are not asked 4 times" in caplog.text

    made = rows()
    made[4] |= {"index": 0}
    with pytest.raises(ValueError, match="row 5: the id 'hrbench_4k-0-0' is that of row 1 too"):
        load(made, tmp_path / "twice")

    made = [{key: value for key, value in row.items() if key not in ("C", "cycle_category")} for row in rows()]
    with pytest.raises(ValueError, match=r"no column C, cycle_category; it has: index, question"):
        load(made, tmp_path / "columns")


def test_a_bad_row_and_a_file_that_is_no_table_are_named(tmp_path):
    for number, ((changes, message), layout) in enumerate(
        itertools.product(
            [
                ({"answer": "E"}, "answer 'E' is none of the letters of its 4 options"),
                ({"answer": None}, "answer is missing"),
                ({"B": None}, "options must be in the columns"),
                ({"D": None, "answer": "D"}, "answer 'D' is none of the letters of its 3 options"),
                ({"question": BIG_TEXT}, "question has 10,000,000 characters"),
                ({"category": "double"}, "category 'double' is none of single, cross"),
                ({"image": "no base64!"}, "a picture is not valid base64"),
                ({"image": ""}, "a picture must be embedded as bytes"),
                ({"image": base64_text(b"<svg/>")}, "not an image"),
                ({"image": base64_text(BOMB)}, "not a readable image .*exceeds limit"),
                ({"image": base64_text(cut_jpeg())}, "not a readable image"),
            ],
            ["parquet", "tsv"],
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = rows()
        made[5] |= changes
        if layout == "tsv":
            write_tsv(made, folder / "hr_bench_4k.tsv")
            message = message.replace("answer is missing", "answer is empty")
        else:
            write_parquet(made, folder / "hr_bench_4k.parquet")
        samples = FOUR.load(folder, LoadOptions())
        assert samples[4].answer, (changes, layout)
        with pytest.raises(ValueError, match=rf"hr_bench_4k.{layout}, row 6: {message}"):
            samples[5]

    for number, (content, name) in enumerate(
        itertools.product(
            [b"", b"PAR1 no more", b"index\tquestion\n1\n", b"a\tb\n\xff\xfe\t2\n"],
            ["hr_bench_4k.tsv", "hr_bench_4k.parquet"],
        )
    ):
        folder = tmp_path / f"file {number}"
        folder.mkdir()
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            FOUR.load(folder, LoadOptions())
