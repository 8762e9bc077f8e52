"""The list names every benchmark and says what is there, what is wrong and how what is missing is had."""

import shutil

import pytest

from etchr.families import TASKS, TaskFamily
from etchr.sample import EditSample, write_parquet
from evaluation.__main__ import main
from evaluation.benchmarks import BENCHMARKS
from tests.evaluation.benchmarks import charxiv_files
from tests.evaluation.dialogue import SOURCE
from tests.evaluation.fakes import Case, write_data


@pytest.fixture
def listed(tmp_path, capsys):
    """What `list` prints: paragraph by name, for these folders."""

    def run(*words):
        main(["list", f"benchmarks={tmp_path / 'b'}", f"data={tmp_path / 'd'}", *words])
        paragraphs = capsys.readouterr().out.strip().split("\n\n")
        return {paragraph.split("\n")[0].split(":")[0]: paragraph for paragraph in paragraphs}

    return run


def said(paragraph: str) -> str:
    """A paragraph without its line breaks."""
    return " ".join(paragraph.split())


def test_every_benchmark_is_there_and_how_it_is_had(listed, tmp_path):
    paragraphs = listed()
    assert list(paragraphs) == [*TASKS, *BENCHMARKS]
    for name, benchmark in BENCHMARKS.items():
        text = said(paragraphs[name])
        whole = f" of {benchmark.expected:,}" if benchmark.expected else ""
        assert f"0{whole} samples; get them with: python -m " in text
        assert benchmark.title in text
        assert said(benchmark.rule) in text
        assert said(benchmark.licence) in text
        assert ("needs a judge" in text) == benchmark.needs_judge
    assert f"download charxiv_dq benchmarks={tmp_path / 'b'}" in said(paragraphs["charxiv_dq"])
    assert f"out={tmp_path / 'b'}" in said(paragraphs["mazes"])
    assert f"python -m data_prep maze split=test seed=2026 out={tmp_path / 'd'}" in said(paragraphs["maze"])
    assert max(len(line) for text in paragraphs.values() for line in text.split("\n")) <= 120 or len(str(tmp_path)) > 60


def test_data_that_are_there_are_counted_and_the_chance_level_is_the_mean_of_the_samples_own(listed, tmp_path):
    charxiv_files.write_flat(tmp_path / "b" / "charxiv")
    write_data([Case("maze", str(i)) for i in range(3)], tmp_path / "d")
    paragraphs = listed()
    assert "16 of 4,000 samples, chance 0.0 %" in said(paragraphs["charxiv_dq"])
    assert "4 of 1,000 samples, chance 0.0 %" in said(paragraphs["charxiv_rq"])
    assert "3 samples, chance 0.0 %" in said(paragraphs["maze"])

    samples = [
        EditSample(
            f"view3d-{i}", TaskFamily.VIEW3D, "view3d", SOURCE, "Where?", "A", ("left", "right", "up", "down")[:n]
        )
        for i, n in enumerate((2, 4, 4))
    ]
    write_parquet(samples, tmp_path / "d" / "view3d" / "test.parquet")
    assert "3 samples, chance 33.3 %" in said(listed()["view3d"])


def test_bad_data_are_said_in_their_row_and_stop_nothing(listed, tmp_path):
    folder = charxiv_files.write_flat(tmp_path / "b" / "charxiv")
    (folder / "descriptive_val.json").write_text("[")
    shutil.rmtree(folder / "images")
    (tmp_path / "d" / "maze").mkdir(parents=True)
    (tmp_path / "d" / "maze" / "test.parquet").write_bytes(b"junk")
    paragraphs = listed()
    assert "descriptive_val.json is not JSON" in said(paragraphs["charxiv_dq"])
    assert "4 of 1,000 samples, but no file 'images/3.jpg' below" in said(paragraphs["charxiv_rq"])
    assert "is not a Parquet file" in said(paragraphs["maze"])
    assert list(paragraphs) == [*TASKS, *BENCHMARKS]


def test_options_that_are_none(listed, capsys):
    with pytest.raises(SystemExit):
        listed("bechmarks=x")
    assert "did you mean 'benchmarks'" in capsys.readouterr().err
