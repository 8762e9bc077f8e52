"""The RL filter: what it keeps against an independent asking, and that no call is made twice or counted for another."""

import asyncio
import inspect
import json
import random
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep import procedural_tasks
from data_prep.filter_rl import FilterConfig
from data_prep.filter_rl.__main__ import main
from data_prep.filter_rl.asking import HOPELESS
from data_prep.filter_rl.select import filter_samples
from data_prep.task import generate
from etchr.evr import Proposal, Sampling, edit_verify_reason
from etchr.families import TaskFamily
from etchr.mllm import answers
from etchr.mllm.answers import is_correct
from etchr.mllm.protocol import GREEDY, CallFailed, Reply
from etchr.mllm.settings import ModelConfig
from etchr.nano.reader import Reader
from etchr.sample import EditSample, find_files, read_parquet, to_row, write_parquet

RIGHT, WRONG, DOWN = "\\boxed{7}", "\\boxed{5}", CallFailed("the server answered HTTP 500")
CELLS = ("raw_wrong_edit_right", "raw_wrong_edit_wrong", "raw_right_edit_right", "raw_right_edit_wrong")


def plain(number, family=TaskFamily.CHART, *, edit="red", **change):
    """A sample about a white picture; the fake model knows it by the number in its question."""
    white = Image.new("RGB", (16, 16), "white")
    values = {
        "id": f"s{number:02d}",
        "family": family,
        "task": "plain",
        "image": white,
        "question": f"What is the number of {number}?",
        "answer": "7",
        "edit_image": edit and Image.new("RGB", (16, 16), edit),
        "meta": {"answer_type": "number"},
    }
    return EditSample(**(values | change))


class Fake:
    """Replies to question n what `script(n, view)` says: a text, a text for each decoding, or what is to be raised.

    The views are raw, edit and, without a picture, grade.
    """

    name = "fake"

    def __init__(self, script=lambda number, view: RIGHT if view == "edit" else WRONG):
        self.script, self.asked, self.seeds, self.texts = script, [], [], []

    def __call__(self, config):
        """In place of `build_model`."""
        return self

    async def chat(self, messages, sampling=GREEDY):
        *pictures, text = messages[0]["content"]
        number = int(text["text"].split("number of ")[1].split("?")[0])
        view = ("grade", "raw", "edit")[len(pictures)]
        self.asked.append((number, view))
        self.texts.append(text["text"])
        self.seeds.append(sampling.seed)
        await asyncio.sleep(0.0005 * (number % 3))  # answers overtake each other
        self.prompt = text["text"]
        reply = self.script(number, view)
        if isinstance(reply, BaseException):
            raise reply
        return [Reply(text) for text in (reply if isinstance(reply, list) else [reply] * sampling.n)]


def nobody(config):
    raise AssertionError("no model is needed here")


@pytest.fixture
def setup(tmp_path):
    """Writes samples and gives options for them."""

    def make(samples, **options):
        path = tmp_path / "data" / "train.parquet"
        write_parquet(samples, path)
        return FilterConfig(**({"paths": [str(path)], "out": str(tmp_path / "out")} | options))

    return make


def kept(config):
    return list(read_parquet(config.out, config.split).table["id"])


def lines(config):
    with open(f"{config.out}/verdicts.jsonl") as stream:
        return [json.loads(line) for line in stream]


# ------------------------------------------------------------------------------------------ what it keeps, for real


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Three families in two files, a third of the edits useless, and the reader's own answers under both conditions."""
    folder, tasks, samples, right = tmp_path_factory.mktemp("real"), procedural_tasks(), [], {}
    for name in ("perception", "frozen_lake", "view3d"):
        samples += generate(tasks[name], split="train", num_samples=10, seed=3, size=64)
    samples = [replace(s, edit_image=s.image) if n % 3 == 0 else s for n, s in enumerate(samples)]
    write_parquet(samples[:10], folder / "boxes" / "train.parquet")
    write_parquet(samples[10:], folder / "others" / "train-0.parquet")

    async def ask(sample):
        async def truth(sample):
            return Proposal(sample.edit_image, "ground truth")

        for view, propose in (("raw", None), ("edit", truth)):
            trace = await edit_verify_reason(sample, propose, None, Reader(), Sampling())
            right[sample.id, view] = is_correct(trace.answer, sample)

    for sample in samples:
        asyncio.run(ask(sample))
    return folder, samples, right


def test_what_is_kept_fails_on_the_picture_and_succeeds_with_the_edit(real, tmp_path):
    folder, samples, right = real
    config = FilterConfig(paths=[str(folder)], out=str(tmp_path))
    report = filter_samples(config)
    wanted = [s.id for s in samples if right[s.id, "edit"] and not right[s.id, "raw"]]
    assert kept(config) == wanted
    assert 0 < len(wanted) < len(samples)
    assert report["total"]["kept"] == len(wanted)
    for name, row in report["families"].items():
        pairs = [(right[s.id, "raw"], right[s.id, "edit"]) for s in samples if s.family == name]
        assert [row[cell] for cell in CELLS] == [
            pairs.count(pair) for pair in ((False, True), (False, False), (True, True), (True, False))
        ]
        assert row["raw_accuracy"] == pytest.approx(100 * sum(raw for raw, _ in pairs) / len(pairs))
        assert row["edit_accuracy"] == pytest.approx(100 * sum(edit for _, edit in pairs) / len(pairs))
    assert sum(report["total"][cell] for cell in CELLS) == report["total"]["samples"] == len(samples)
    assert report["total"]["raw_right_edit_right"] > 0
    assert report["total"]["raw_wrong_edit_wrong"] > 0


def test_with_the_paper_s_view_the_edit_is_shown_alone_and_not_announced(setup):
    """Eq. 1 asks M(i*, q); the verdicts of one view are none of the other's."""
    shown = {}
    for view in ("both", "edit"):
        model = Fake()
        filter_samples(setup([plain(1)], view=view), lambda _, model=model: model)
        shown[view] = model
    assert [len(shown[view].asked) for view in shown] == [2, 1]  # of the picture alone it was asked before
    assert "edit" in shown["both"].texts[-1]
    assert "edit" not in shown["edit"].texts[-1]


def test_rows_are_copied_as_they_are_and_rl_finds_them(real, tmp_path):
    folder, samples, _ = real
    config = FilterConfig(paths=[str(folder)], out=str(tmp_path))
    filter_samples(config)
    [file] = find_files([config.out], "train")
    rows = {sample.id: to_row(sample) for sample in samples}
    found = pq.read_table(file).to_pylist()
    assert found == [rows[row["id"]] for row in found]


# ----------------------------------------------------------------------------------------------- asked once and kept


def test_a_second_run_and_other_choices_make_no_call(setup):
    config = setup([plain(n) for n in range(8)])
    model = Fake(lambda n, view: RIGHT if (view == "edit") != (n % 4 == 0) else WRONG)
    report = filter_samples(config, model)
    assert sorted(model.asked) == [(n, view) for n in range(8) for view in ("edit", "raw")]
    before = {file: file.read_bytes() for file in (find_files([config.out], "train")[0],)}
    assert filter_samples(config, nobody) == report
    assert all(file.read_bytes() == content for file, content in before.items())
    for change in ({"max_raw": 1.0}, {"quota": 2}, {"quota": None}, {"order_seed": 5, "quota": 3}, {"concurrency": 1}):
        filter_samples(FilterConfig(**{"paths": config.paths, "out": config.out} | change), nobody)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"max_tokens": 100},
        {"temperature": 0.5},
        {"num_decodings": 2, "temperature": 0.5},
        {"reasoner": ModelConfig(error_rate=0.1)},
    ],
)
def test_what_decides_a_verdict_is_asked_anew(setup, change):
    config = setup([plain(0)])
    filter_samples(config, Fake())
    model = Fake()
    filter_samples(FilterConfig(paths=config.paths, out=config.out, **change), model)
    assert sorted(model.asked) == [(0, "edit"), (0, "raw")]


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"edit": "blue"}, {"edit"}),
        ({"answer": "8"}, {"raw", "edit"}),
        ({"image": Image.new("RGB", (16, 16), "grey")}, {"raw", "edit"}),
        ({"question": "Say: what is the number of 0?"}, {"raw", "edit"}),
        ({"choices": ("7", "8"), "answer": "A", "meta": {}}, {"raw", "edit"}),
        ({"meta": {"answer_type": "number", "grid": ["S.G"]}}, {"raw", "edit"}),  # moves are graded on it
        ({"id": "another"}, set()),
    ],
)
def test_a_verdict_belongs_to_the_content_of_its_sample(setup, change, asked):
    filter_samples(setup([plain(0)]), Fake())
    model = Fake()
    filter_samples(setup([plain(0, **change)], max_raw=1.0, min_edit=0.0), model)
    assert {view for _, view in model.asked} == asked


def test_a_mended_grader_asks_anew(setup, monkeypatch):
    config, source = setup([plain(0)]), inspect.getsource
    filter_samples(config, Fake())
    monkeypatch.setattr(inspect, "getsource", lambda of: source(of) + ("# mended" if of is answers else ""))
    model = Fake()
    filter_samples(config, model)
    assert sorted(model.asked) == [(0, "edit"), (0, "raw")]


@pytest.mark.parametrize("change", [{}, {"quota": 2, "stop_at_quota": True}, {"concurrency": 1}])
def test_what_samples_have_in_common_is_asked_once(setup, change):
    """Under a model that says the contrary the second time."""
    edits = {"a": "red", "b": "red", "c": "blue"}
    config = setup([plain(n, id=f"{name}{n}", edit=edit) for n in range(8) for name, edit in edits.items()], **change)

    def script(number, view):
        seen = model.asked.count((number, view))
        if view == "raw":
            return WRONG if seen == 1 else RIGHT
        return RIGHT if seen < 3 else WRONG

    model = Fake(script)
    report = filter_samples(config, model)
    counts = {view: [model.asked.count((n, view)) for n in range(8)] for view in ("raw", "edit")}
    assert max(counts["raw"]) == 1
    assert max(counts["edit"]) == 2  # the red one and the blue one
    assert report["total"]["kept"] == len(kept(config)) == (2 if change.get("quota") else 24)
    assert filter_samples(config, nobody) == report


def test_of_two_verdicts_in_the_file_the_first_counts(setup):
    config = setup([plain(0)])
    report = filter_samples(config, Fake())
    with open(f"{config.out}/verdicts.jsonl", "a") as stream:
        for line in lines(config):
            stream.write(json.dumps(line | {"right": 1 - line["right"]}) + "\n")
    assert filter_samples(config, nobody) == report


def test_thresholds_are_shares_of_k_decodings(setup):
    shares = {0: (0, 4), 1: (1, 4), 2: (0, 3), 3: (1, 3), 4: (2, 4), 5: (0, 2)}  # right of four: raw, with the edit
    model = Fake(lambda n, view: (shares[n][view == "edit"] * [RIGHT] + 4 * [WRONG])[:4])
    config = setup([plain(n) for n in shares], num_decodings=4, temperature=0.7)
    filter_samples(config, model)
    assert kept(config) == ["s00"]
    assert len(set(model.seeds)) == 12  # no two questions share their luck
    config = setup([plain(n) for n in shares], num_decodings=4, temperature=0.7, max_raw=0.25, min_edit=0.75)
    filter_samples(config, nobody)
    assert kept(config) == ["s00", "s01", "s02", "s03"]


def test_a_reply_without_an_answer_is_wrong_and_counted(setup):
    config = setup([plain(0), plain(1)])
    report = filter_samples(config, Fake(lambda n, view: "I cannot tell." if (view == "raw" or n) else RIGHT))
    assert kept(config) == ["s00"]
    assert (report["total"]["raw_unreadable"], report["total"]["edit_unreadable"]) == (2, 1)


# ------------------------------------------------------------------------------------------------- answers in free text

FREE = {"answer": "7 cups", "meta": {"answer_type": "text"}}
SEVEN = "\\boxed{seven cups}"  # what the rules do not find equal to the reference


def free_text(grade):
    """M answers `seven cups` with the edit; `grade(number)` is its reply to the second call."""
    return Fake(lambda n, view: grade(n) if view == "grade" else SEVEN if view == "edit" else WRONG)


def agreed(n):
    return "\\boxed{1}"


def test_free_text_is_graded_by_a_second_call_without_pictures(setup):
    config = setup([plain(n, **FREE) for n in range(3)])
    model = Fake()

    def script(n, view):
        if view != "grade":
            return SEVEN if view == "edit" else WRONG
        says_seven = "Candidate answer: seven cups" in model.prompt
        return "\\boxed{1}" if says_seven and n != 1 else "\\boxed{0}"

    model.script = script
    report = filter_samples(config, model)
    assert kept(config) == ["s00", "s02"]
    assert report["total"]["raw_wrong_edit_wrong"] == 1
    assert sorted(model.asked) == sorted((n, view) for n in range(3) for view in ("raw", "edit", "grade", "grade"))
    graded = [text for text in model.texts if "Candidate answer" in text]
    assert all("Reference answer: 7 cups\n" in text for text in graded)
    assert filter_samples(config, nobody) == report


def test_an_answer_equal_to_the_reference_needs_no_second_call_and_equal_ones_share_theirs(setup):
    replies = [SEVEN, SEVEN, "\\boxed{7 cups}", SEVEN]
    model = Fake(lambda n, view: "\\boxed{1}" if view == "grade" else replies if view == "edit" else 4 * [WRONG])
    config = setup([plain(0, **FREE)], num_decodings=4, temperature=1.0, max_raw=1.0)
    filter_samples(config, model)
    assert sorted(model.asked) == [(0, "edit"), (0, "grade"), (0, "grade"), (0, "raw")]
    assert {line["view"]: line["right"] for line in lines(config)} == {"raw": 4, "edit": 4}


@pytest.mark.parametrize(
    ("grade", "meta", "calls"),
    [("rules", "text", 0), ("auto", "number", 0), ("auto", "text", 2), ("model", "text", 2), ("model", "number", 2)],
)
def test_who_grades_is_an_option(setup, grade, meta, calls):
    answer = {"answer": "7", "meta": {"answer_type": meta}}
    model = Fake(lambda n, view: "\\boxed{0}" if view == "grade" else "\\boxed{8}")
    filter_samples(setup([plain(0, **answer)], grade=grade, max_raw=1.0, min_edit=0.0), model)
    assert [view for _, view in model.asked].count("grade") == calls


@pytest.mark.parametrize("reply", [DOWN, "I would not know.", "\\boxed{maybe}"])
def test_a_grade_that_is_not_given_is_a_failed_call_never_a_wrong_answer(setup, reply):
    config = setup([plain(n, **FREE) for n in range(3)], retries=1)
    model = free_text(lambda n: reply if n == 1 else "\\boxed{1}")
    report = filter_samples(config, model)
    assert (report["total"]["failed"], report["total"]["raw_wrong_edit_wrong"]) == (1, 0)
    after = free_text(lambda n: "\\boxed{1}")
    assert filter_samples(config, after)["total"]["failed"] == 0
    assert {n for n, _ in after.asked} == {1}


def test_who_grades_decides_the_verdicts_of_free_text_alone(setup):
    samples = [plain(0), plain(1, **FREE)]
    filter_samples(setup(samples, grade="rules"), free_text(agreed))
    model = free_text(agreed)
    filter_samples(setup(samples, grade="auto"), model)
    assert {n for n, _ in model.asked} == {1}
    again = free_text(agreed)
    filter_samples(setup(samples, grade="model"), again)
    assert {n for n, _ in again.asked} == {0, 1}


def test_the_embedded_reader_grades_free_text_by_its_words(setup):
    class Grading(Fake):
        async def chat(self, messages, sampling=GREEDY):
            seen = [part for part in messages[0]["content"] if part["type"] == "image"]
            return await (super() if seen else Reader()).chat(messages, sampling)

    model = Grading(lambda n, view: "\\boxed{there are 7 cups}" if view == "edit" and n else WRONG)
    assert filter_samples(setup([plain(n, **FREE) for n in range(2)]), model)["total"]["failed"] == 0
    assert kept(setup([plain(n, **FREE) for n in range(2)])) == ["s01"]


# ---------------------------------------------------------------------------------------------- failed, killed, refused


def test_a_failed_call_is_tried_again_and_then_missing_never_wrong(setup):
    config = setup([plain(n) for n in range(4)], retries=2)
    model = Fake(lambda n, view: DOWN if (n, view) in {(1, "raw"), (2, "edit")} else RIGHT if view == "edit" else WRONG)
    report = filter_samples(config, model)
    assert kept(config) == ["s00", "s03"]
    assert [report["total"][name] for name in ("samples", "kept", "failed", *CELLS)] == [4, 2, 2, 2, 0, 0, 0]
    assert "answered HTTP 500" in next(iter(report["reasons"]["failed"]))
    assert model.asked.count((1, "raw")) == 2  # a round without any reply is the last
    assert model.asked.count((1, "edit")) == model.asked.count((2, "raw")) == 1

    model = Fake()
    assert filter_samples(config, model)["total"]["failed"] == 0
    assert sorted(model.asked) == [(1, "raw"), (2, "edit")]
    assert kept(config) == ["s00", "s01", "s02", "s03"]


def test_a_call_that_fails_twice_is_answered_in_the_third_round(setup):
    config = setup([plain(n) for n in range(4)], retries=2)
    tries = {n: 0 for n in range(4)}

    def script(number, view):
        if view == "raw":
            return WRONG
        tries[number] += 1
        return RIGHT if tries[number] > number else DOWN

    report = filter_samples(config, Fake(script))
    assert (report["total"]["failed"], report["total"]["kept"]) == (1, 3)
    assert tries == {0: 1, 1: 2, 2: 3, 3: 3}


def test_too_few_replies_are_a_failed_call(setup):
    config = setup([plain(0), plain(1)], num_decodings=3, temperature=1.0)
    model = Fake(lambda n, view: [WRONG, WRONG] if n and view == "raw" else RIGHT if view == "edit" else WRONG)
    assert filter_samples(config, model)["reasons"]["failed"] == {"fake gave 2 of 3 replies": 1}


@pytest.mark.parametrize("torn", [False, True])
def test_an_interrupted_run_goes_on_and_asks_nothing_twice(setup, torn):
    config = setup([plain(n) for n in range(12)], concurrency=3)

    def script(number, view):
        if len(stopped.asked) > 11:
            return KeyboardInterrupt()
        return RIGHT if view == "edit" else WRONG

    stopped = Fake(script)
    with pytest.raises(KeyboardInterrupt):
        filter_samples(config, stopped)
    known = {(int(line["id"][1:]), line["view"]) for line in lines(config)}
    assert 5 <= len(known) < 12
    if torn:  # the last line, as by a full disk or a power cut
        file = f"{config.out}/verdicts.jsonl"
        last = lines(config)[-1]
        known.remove((int(last["id"][1:]), last["view"]))
        with open(file, "rb+") as stream:
            stream.truncate(len(stream.read()) - 9)

    model = Fake()
    report = filter_samples(config, model)
    assert sorted(model.asked) == sorted({(n, view) for n in range(12) for view in ("raw", "edit")} - known)
    calm = setup([plain(n) for n in range(12)], out=config.out + "-calm")
    assert filter_samples(calm, Fake()) == report
    assert kept(config) == kept(calm) == [f"s{n:02d}" for n in range(12)]


def test_a_line_that_is_no_verdict_is_named(setup):
    config = setup([plain(0)])
    filter_samples(config, Fake())
    with open(f"{config.out}/verdicts.jsonl", "a") as stream:
        stream.write('{"key": "x", "right": 2, "answers": ["7"]}\n')
    with pytest.raises(ValueError, match=r"verdicts\.jsonl holds a bad line .*right must count some"):
        filter_samples(config, nobody)


@pytest.mark.parametrize("count", [3, 60])
def test_a_model_that_never_replies_stops_the_run_with_the_reason(setup, count):
    model = Fake(lambda n, view: DOWN)
    with pytest.raises(ValueError, match=r"got a reply; .*answered HTTP 500.* start the same command again"):
        filter_samples(setup([plain(n) for n in range(count)], concurrency=4), model)
    assert len(model.asked) <= min(2 * count, HOPELESS + 2 * 4)


def test_a_model_that_falls_silent_stops_the_run_and_nothing_is_lost(setup):
    config = setup([plain(n) for n in range(60)], concurrency=4)
    model = Fake(lambda n, view: DOWN if len(model.asked) > 20 else RIGHT if view == "edit" else WRONG)
    with pytest.raises(ValueError, match="none of the last calls got a reply"):
        filter_samples(config, model)
    known = {(int(line["id"][1:]), line["view"]) for line in lines(config) if "right" in line}
    assert 10 < len(known) <= 20
    model = Fake()
    assert filter_samples(config, model)["total"]["kept"] == 60
    assert not known & set(model.asked)


def test_questions_that_always_fail_do_not_stop_the_next_run(setup):
    bad = range(30, 60)
    config = setup([plain(n) for n in range(60)], concurrency=1, retries=0)
    model = Fake(lambda n, view: DOWN if n in bad else RIGHT if view == "edit" else WRONG)
    reports = [filter_samples(config, model) for _ in range(2)]
    assert reports[0] == reports[1]
    assert (reports[0]["total"]["kept"], reports[0]["total"]["failed"]) == (30, 30)


def test_what_cannot_be_asked_is_refused_once_and_for_all(setup, tmp_path):
    config = setup(
        [plain(0), plain(1, edit=None), plain(2, answer="seven or so, or eight"), plain(3), plain(0), plain(4)]
    )
    path = tmp_path / "data" / "train.parquet"
    rows = pq.read_table(path)
    columns = rows.to_pylist()
    columns[3]["edit_image"]["bytes"] = columns[3]["edit_image"]["bytes"][:-30]  # the header is whole
    columns[5]["family"] = "poetry"
    columns.append(to_row(plain(5, answer="R", meta={"answer_type": "moves", "grid": 5})))
    pq.write_table(type(rows).from_pylist(columns, schema=rows.schema), path)
    model = Fake()
    report = filter_samples(config, model)
    assert sorted(model.asked) == [(0, "edit"), (0, "raw")]
    assert kept(config) == ["s00"]
    assert {name: row["refused"] for name, row in report["families"].items()} == {"chart": 5, "unknown": 1}
    with open(f"{config.out}/left_out.jsonl") as stream:
        left_out = {entry["id"]: entry for entry in map(json.loads, stream)}
    reasons = {
        "s00": "its id occurs before",
        "s01": "no edit_image",
        "s02": "is no number answer",
        "s03": "not a readable image",
        "s04": "unknown task family",
        "s05": "a grid is a list of texts, got 5",
    }
    assert all(words in left_out[key]["reason"] for key, words in reasons.items())
    assert filter_samples(config, nobody) == report


def test_a_text_that_is_no_text_costs_one_row(setup, tmp_path):
    config = setup([plain(n) for n in range(3)])
    path = tmp_path / "data" / "train.parquet"
    rows = pq.read_table(path)
    questions = pa.array([b"What is the number of 0?", b"caf\xe9?", b"What is the number of 2?"])
    place = rows.schema.get_field_index("question")
    unchecked = questions.cast(options=pc.CastOptions(pa.string(), allow_invalid_utf8=True))
    pq.write_table(rows.set_column(place, rows.schema.field(place), unchecked), path)
    report = filter_samples(config, Fake())
    assert kept(config) == ["s00", "s02"]
    assert report["families"]["unknown"]["refused"] == report["total"]["refused"] == 1
    with open(f"{config.out}/left_out.jsonl") as stream:
        [entry] = map(json.loads, stream)
    assert (entry["id"], entry["why"]) == ("row 1", "refused")
    assert "can't decode byte 0xe9" in entry["reason"]


def test_data_without_anything_to_ask_is_one_sentence(setup):
    with pytest.raises(ValueError, match=r"none of the 1 samples can be asked about.*no edit_image"):
        filter_samples(setup([plain(0, edit=None)]), nobody)


# ------------------------------------------------------------------------------------------------------ quota, order


def test_a_quota_takes_the_first_of_each_family_in_an_order_of_its_own(setup):
    families = {n: (TaskFamily.CHART, TaskFamily.LOGIC)[n % 3 == 0] for n in range(30)}
    samples = [plain(n, family) for n, family in families.items()]
    chosen = {}
    for quota, order in ((3, 0), (6, 0), (3, 1)):
        config = setup(samples, quota=quota, order_seed=order)
        report = filter_samples(config, Fake())
        chosen[quota, order] = kept(config)
        assert chosen[quota, order] == sorted(chosen[quota, order])  # the order of the rows
        for name, count in (("chart", 20), ("logic", 10)):
            row = report["families"][name]
            assert (row["kept"], row["over_quota"], row["raw_wrong_edit_right"]) == (quota, count - quota, count)
    assert set(chosen[3, 0]) < set(chosen[6, 0])
    assert chosen[3, 0] != chosen[3, 1]
    random.Random(1).shuffle(samples)
    config = setup(samples, quota=3, concurrency=1)
    filter_samples(config, nobody)
    assert sorted(kept(config)) == chosen[3, 0]


def test_stopping_at_the_quota_keeps_the_same_and_asks_less(setup):
    samples = [plain(n, (TaskFamily.CHART, TaskFamily.LOGIC)[n % 3 == 0]) for n in range(60)]

    def script(number, view):
        return RIGHT if view == "edit" and number % 2 else WRONG

    config = setup(samples, quota=3)
    whole = filter_samples(config, Fake(script))
    for concurrency, share in ((1, 0.5), (6, 0.8)):
        early = setup(samples, quota=3, stop_at_quota=True, concurrency=concurrency, out=f"{config.out}-{concurrency}")
        model = Fake(script)
        report = filter_samples(early, model)
        assert kept(early) == kept(config)
        assert len(model.asked) < share * 120
        assert report["total"]["over_quota"] == 0
        seen = sum(report["total"][cell] for cell in CELLS)
        assert seen + report["total"]["not_asked"] == whole["total"]["samples"]
    assert filter_samples(setup(samples, quota=3, stop_at_quota=True), nobody) == report  # whatever else is known

    other = setup(samples, quota=3, stop_at_quota=True, order_seed=9, out=f"{config.out}-other")
    filter_samples(other, Fake(script))  # the quotas are full, of samples that come late in the order that follows
    early = setup(samples, quota=3, stop_at_quota=True, out=other.out)
    assert filter_samples(early, Fake(script)) == report
    assert kept(early) == kept(config)


# ----------------------------------------------------------------------------------------------------- options, command


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_decodings": 2}, "temperature=0 makes all 2 decodings alike"),
        ({"max_raw": 1.5}, "max_raw=1.5 must lie between 0 and 1"),
        ({"min_edit": float("nan")}, "min_edit=nan must lie"),
        ({"quota": 0}, "quota=0 must be at least 1, or null"),
        ({"quota": None, "stop_at_quota": True}, "needs a quota"),
        ({"split": "../x"}, "must be one of train, val, test"),
        ({"paths": []}, "paths is empty"),
    ],
)
def test_wrong_options_are_one_sentence(options, words):
    with pytest.raises(ValueError, match=words):
        FilterConfig(**options)


def test_what_is_read_is_not_written_over(setup, tmp_path):
    config = setup([plain(0)])
    for paths, out in (([str(tmp_path)], tmp_path / "out"), (config.paths, tmp_path / "data")):
        with pytest.raises(ValueError, match="lies in the data of paths"):
            filter_samples(FilterConfig(paths=paths, out=str(out)), nobody)
    other = tmp_path / "other" / "train.parquet"
    write_parquet([plain(1)], other)
    before = other.read_bytes()
    with pytest.raises(ValueError, match="is no work of this filter"):
        filter_samples(FilterConfig(paths=config.paths, out=str(other.parent)), nobody)
    assert other.read_bytes() == before
    assert sorted(path.name for path in other.parent.iterdir()) == ["train.parquet"]


def test_the_command_prints_the_table_and_says_what_to_do_next(real, tmp_path, capsys):
    words = [f"paths=[{real[0] / 'boxes'}]", f"out={tmp_path}"]
    main([*words, "quota=2"])
    said = capsys.readouterr().out
    assert said.startswith((tmp_path / "report.md").read_text())
    assert "| perception | 10 | 0 | 0 | 0 |" in said
    assert said.splitlines()[-1] == f"train on them with: python -m etchr.rl data.paths=[{tmp_path}]"
    assert json.loads((tmp_path / "report.json").read_text())["total"]["kept"] == 2
    with pytest.raises(SystemExit, match=r"no val data at .*; make some with"):
        main([words[0], "split=val", f"out={tmp_path / 'val'}"])
    with pytest.raises(SystemExit, match=r"split: .train. there, .test. here"):
        main([f"paths=[{real[0] / 'boxes' / 'train.parquet'}]", "split=test", words[1]])


def test_if_nothing_is_kept_no_older_choice_stays(setup, capsys):
    config = setup([plain(0), plain(1)])
    filter_samples(config, Fake(lambda n, view: RIGHT if view == "edit" or n else WRONG))
    assert kept(config) == ["s00"]
    filter_samples(config, Fake())
    words = [f"paths=[{config.paths[0]}]", f"out={config.out}", "seed=1", "retries=0"]
    with pytest.raises(SystemExit, match=r"no sample is kept, so there is no train\.parquet"):
        main(words)  # the reader, who cannot see anything here
    assert "keeps 0 of 2 samples" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no train data"):
        find_files([config.out], "train")
