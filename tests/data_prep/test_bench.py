"""The benchmark of the sources: inputs that the sources take, and numbers that are those of the files written."""

import json
import random

import numpy as np
import pytest

from data_prep.bench.__main__ import DataBenchConfig, main, table
from data_prep.bench.inputs import CASES, COCO, chart, encoded, photo
from data_prep.sources import find_source
from data_prep.sources.build import item_samples
from etchr.config import compose
from etchr.images import encode_png

MADE = {"rows": 10, "rows_per_second": 4.0, "cpu_ms_per_row": 400.0, "mb_per_row": 1.5, "peak_gb": 0.3, "start_s": 2.0}


@pytest.mark.parametrize("name", CASES)
def test_the_sources_take_every_row_of_the_made_up_inputs(name, tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.bench.inputs.FRAMES", 24)
    case = CASES[name]
    config_class, kind, _ = find_source(case.source)
    config = compose(config_class, None, [*case.make(tmp_path, 6), "val_share=0"])
    source = kind(config)
    assert len(source) == case.items(6)
    index = next(i for i in range(len(source)) if item_samples(source, config, i, source.key(i)))
    for sample in item_samples(source, config, index, source.key(index)):
        assert sample.edit_image.tobytes() != sample.image.tobytes()
    if name != "dl3dv":
        assert all(list(source.samples(i, random.Random(0))) for i in range(len(source)))


def test_photographs_have_as_many_bytes_as_real_ones_and_differ():
    first, second = photo(1, COCO), photo(2, COCO)
    assert first.size == COCO
    assert (np.asarray(first) != np.asarray(second)).any()
    assert first.tobytes() == photo(1, COCO).tobytes()
    assert 1.3 < len(encode_png(first)) / (COCO[0] * COCO[1]) < 2.1


def test_charts_have_about_as_many_bytes_as_those_of_the_hub():
    sizes = [len(encoded(chart(number), "PNG")) for number in range(5)]
    assert 25_000 < np.mean(sizes) < 60_000  # 2.88 GB of 73,702 rows: 39,000
    assert len(set(sizes)) > 1


def test_what_is_measured_is_written_and_nothing_else_stays(tmp_path, capsys):
    main(["sources=[mazes]", "scale=0.02", "processes=1", f"out={tmp_path}"])
    result = json.loads((tmp_path / "results.json").read_text())["mazes"]
    assert 20 <= result["rows"] < 32  # a tenth is kept for the test set
    assert 0.001 < result["mb_per_row"] < 0.02
    assert result["cpu_ms_per_row"] > 0
    assert 0.01 < result["peak_gb"] < 8
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.parquet"))


def test_the_table_extrapolates_by_rows():
    text = table(dict.fromkeys(CASES, MADE), DataBenchConfig(processes=2), "the command")
    assert "| dl3dv | 10 | 4.0 | 400 | 1.500 | 0.30 | 11.1 | 150.0 |" in text  # 100,000 x 0.4 s, 100,000 x 1.5 MB
    assert "400,000 rows, as many of vstar, refchartqa, mazes, jigsaws, dl3dv: 44.4 core hours, 600 GB." in text
    assert "400,000" not in table({"mazes": MADE}, DataBenchConfig(), "the command")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sources": ["coco"]}, "sources='coco'"),
        ({"sources": []}, "must name at least one"),
        ({"scale": 0.0}, "scale=0.0 must be above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        DataBenchConfig(**options)
