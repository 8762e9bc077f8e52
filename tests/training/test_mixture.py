"""Mixtures: weights and caps decide how often a row comes, whatever else is in the mixture; bad YAML is told apart."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from etchr.config import compose
from etchr.families import TASK_FAMILY
from etchr.rl import inputs as rl
from etchr.rl.settings import RlConfig
from etchr.runtime import Runtime
from etchr.sample import EditSample, write_parquet
from etchr.sft import inputs as sft
from etchr.sft.settings import SftConfig
from etchr.training.data import SampleTable
from etchr.training.mixture import DataSet, data_sets, read_mixture
from etchr.training.plan import Plan

CPU = Runtime("cpu", threads=1)


def write(folder, task, count, split="train"):
    picture = Image.new("RGB", (64, 64))
    rows = [
        EditSample(
            f"{folder.name}-{i}",
            TASK_FAMILY[task],
            task,
            picture,
            "Where?",
            "A",
            ("a", "b"),
            picture,
            {"answer_type": "option"},
        )
        for i in range(count)
    ]
    write_parquet(rows, folder / task / f"{split}.parquet")
    return str(folder)


@pytest.fixture
def two(tmp_path):
    """20 mazes and 12 charts in one set, 10 jigsaws in another."""
    write(tmp_path / "first", "maze", 20)
    return write(tmp_path / "first", "chart", 12), write(tmp_path / "second", "jigsaw", 10)


def mixture(tmp_path, text):
    path = tmp_path / "mixture.yaml"
    path.write_text(text, encoding="utf-8")
    return read_mixture(str(path))


def read(sets):
    return SampleTable(sets, lambda sample: sample.question, lambda sample: (sample.image.size,))


def counts(sets, seed=0):
    """The samples, their families, and how often each comes in an epoch."""
    table = read(sets)
    return table, np.asarray(table.families), table.repeats({}, seed)


def held_out(paths, split, training, every=1):
    """What is held out of the training data in these paths."""
    data = SimpleNamespace(mixture=None, paths=training, split="train")
    return data_sets(data, SimpleNamespace(every=every, paths=paths, split=split))[1]


def test_weights_and_caps_of_a_family_decide_how_often_a_row_comes(tmp_path, two):
    text = f"a: {{paths: ['{two[0]}'], weight: 2, caps: {{logic: 5}}}}\nb: {{paths: ['{two[1]}'], weight: 0.5}}\n"
    table, families, times = counts(mixture(tmp_path, text))
    assert len(table.files) == 3
    assert sorted(times[families == "logic"]) == [0.0] * 15 + [2.0] * 5
    assert set(times[families == "chart"]) == {2.0}
    assert set(times[families == "jigsaw"]) == {0.5}
    plan = Plan(np.zeros(len(times)), np.ones(len(times)), times, 1, 0)
    seen = np.bincount(plan.epoch(0).ravel(), minlength=len(times))
    assert seen[families == "logic"].sum() == 10
    assert seen[families == "chart"].sum() == 24
    assert seen[families == "jigsaw"].sum() == 5


def test_what_a_cap_draws_depends_on_seed_and_set_alone(two):
    capped = DataSet([two[0]], caps={"logic": 5}, name="a")
    alone = counts([capped])[2]
    assert (counts([capped])[2] == alone).all()
    assert (counts([DataSet([two[1]], name="b"), capped])[2][10:] == alone).all()
    assert (counts([capped], seed=1)[2] != alone).any()


def test_caps_of_0_leave_a_family_out_and_large_ones_do_nothing(two):
    _, families, times = counts([DataSet([two[0]], caps={"logic": 0, "chart": 99})])
    assert not times[families == "logic"].any()
    assert times[families == "chart"].all()


def test_held_out_data_come_from_the_same_folders_unless_paths_are_given(tmp_path, two):
    write(tmp_path / "second", "jigsaw", 3, split="val")
    assert held_out([], "val", list(two)) == [DataSet([two[1]], "val")]
    assert held_out([two[1]], "val", list(two)) == [DataSet([two[1]], "val")]
    assert len(read(held_out([two[1]], "val", list(two)))) == 3
    assert held_out([], "val", [two[0]], every=0) == []
    file = f"{two[1]}/jigsaw/train.parquet"
    with pytest.raises(ValueError, match=r"hold no val files; name some with validation.paths"):
        held_out([], "val", [file, two[0]])  # a training file is not held out


def test_rows_that_belong_to_another_set_make_another_run(two):
    files = [f"{two[0]}/{task}/train.parquet" for task in ("maze", "chart")]
    one = [DataSet(files, name="a"), DataSet([two[1]], name="b")]
    other = [DataSet(files[:1], name="a"), DataSet([files[1], two[1]], name="b")]
    assert read(one).files == read(other).files
    assert read(one).about(with_sets=True) != read(other).about(with_sets=True)
    assert read(one).about(with_sets=False) == read(other).about(with_sets=False)
    assert "first" not in str(read(one).about(with_sets=True))


def test_a_file_that_is_named_twice_is_read_once(two):
    assert len(read([DataSet([two[1], f"{two[1]}/jigsaw/train.parquet"])])) == 10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "must hold data sets"),
        ("a: 3", "data set 'a' .* has no options"),
        ("a: {paths: [x], wieght: 2}", "unknown options wieght; known: paths, split, weight, caps"),
        ("a: {}", r"data set 'a' .*paths=\[\] must be a list"),
        ("a: {paths: x}", "paths='x' must be a list"),
        ("a: {paths: [x], weight: -1}", "weight=-1 must be"),
        ("a: {paths: [x], weight: .nan}", "weight=nan must be"),
        ("a: {paths: [x], weight: 1.0e+12}", "weight=1000000000000.0 must be"),
        ("a: {paths: [x], weight: yes}", "weight=True must be"),
        ("a: {paths: [x], caps: {logic: true}}", "caps.logic=True must be"),
        ("a: {paths: [x], caps: {lake: 3}}", "unknown task family 'lake'; known: perception"),
        ("a: {paths: [x], caps: {logic: 2.5}}", "caps.logic=2.5 must be a whole number"),
        ("a: {paths: [x], caps: 7}", "caps=7 must be family: number"),
        ("a: [", "cannot read the mixture"),
    ],
)
def test_what_is_wrong_with_a_mixture_is_said(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        mixture(tmp_path, text)


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_both_stages_train_on_a_mixture(tmp_path, two, stage):
    text = f"a: {{paths: ['{two[0]}'], caps: {{logic: 3, chart: 0}}}}\nb: {{paths: ['{two[1]}'], weight: 0}}\n"
    (tmp_path / "mixture.yaml").write_text(text, encoding="utf-8")
    words = [f"data.mixture={tmp_path / 'mixture.yaml'}", "validation.every=0", "device=cpu"]
    if stage == "sft":
        inputs, _ = sft.read_inputs(compose(SftConfig, "sft", [*words, "global_batch_size=1"]), CPU)
    else:
        inputs = rl.read_inputs(compose(RlConfig, "rl", [*words, "prompts_per_iteration=2"]), CPU)
    drawn = inputs.plan.epoch(0).ravel()
    assert {inputs.data.families[row] for row in drawn} == {"logic"}
    assert len(drawn) == (3 if stage == "sft" else 2)  # a third prompt alone does not fill an iteration


def test_a_missing_mixture_or_data_set_is_named(tmp_path):
    with pytest.raises(ValueError, match="cannot read the mixture"):
        read_mixture(str(tmp_path / "none.yaml"))
    with pytest.raises(ValueError, match="no train data at nowhere"):
        read([DataSet(["nowhere"])])
