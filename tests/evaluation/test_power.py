"""The paper's table as data, and what its benchmarks can show."""

import math

import pytest
from scipy import stats

from evaluation.__main__ import main
from evaluation.benchmarks import BENCHMARKS
from evaluation.power import Line, PowerConfig, lines, mark, markdown
from evaluation.published import COLUMNS, MODELS, TABLE, gain, score


def test_every_row_has_all_columns_and_its_mean():
    """The printed means are those of the eleven columns, to the last digit: no cell was misread."""
    assert len(TABLE) == 10
    for name, row in TABLE.items():
        assert len(row.scores) == len(COLUMNS) == 11, name
        assert f"{sum(row.scores) / 11:.2f}" == f"{row.mean:.2f}", name

    assert MODELS == ("Qwen3-VL-8B", "Gemini-3.1-Flash-Lite", "Kimi K2.5")
    assert gain("Qwen3-VL-8B", "vstar") == pytest.approx(2.1)
    assert gain("Kimi K2.5", "coco_jigsaw") == pytest.approx(26.0)


def test_columns_are_benchmarks_of_their_published_size_which_the_scores_fit():
    for name, column in COLUMNS.items():
        assert BENCHMARKS[name].expected in (None, column.num_samples)
        assert column.num_samples % column.num_units == 0
        assert column.num_units == BENCHMARKS[name].expected or column.num_units in (200, 1000, 2000)

    # A share of n samples, rounded to a tenth: what was run by the paper's authors must be one of these.
    for name, column in COLUMNS.items():
        possible = {round(1000 * right / column.num_samples) for right in range(column.num_samples + 1)}
        possible |= {math.ceil(1000 * right / column.num_samples) for right in range(column.num_samples + 1)}
        for model in MODELS:
            for system in (model, f"{model} + ETCHR"):
                assert round(10 * score(system, name)) in possible, (system, name)


def table(config=None):
    rows = list(lines(config or PowerConfig()))
    return {(line.title, line.count): line for line in rows}


def test_the_limits_by_scipys_binomial_test_and_by_simulation():
    """By scipy's binomial test: one sample fewer in favour, none against, would not be significant."""
    for line in table().values():
        if line.num_units is not None:
            needed = round(line.limits.least * line.num_units / 100)
            assert stats.binomtest(needed, needed).pvalue < 0.05 <= stats.binomtest(needed - 1, needed - 1).pvalue

    # A tenth of 200 pairs differ: a gain of the 80 % limit is significant in about 80 of 100 simulated tables.
    import numpy as np

    limits = table()["Maze", "200 mazes"].limits
    rng = np.random.default_rng(1)
    gained, n = (0.1 + limits.paired_80 / 100) / 2, 200
    drawn = rng.multinomial(n, [gained, 0.1 - gained, 0.9], 4000)
    difference = (drawn[:, 0] - drawn[:, 1]) / n
    significant = difference > 1.96 * math.sqrt(0.1 / n)
    assert 0.74 < significant.mean() < 0.88


def test_questions_put_several_times_are_counted_both_ways_and_the_mean_joins_the_columns():
    rows = table()
    assert ("HR-Bench 4K", "800 rows") in rows
    by_row, by_question = rows["HR-Bench 4K", "800 rows"], rows["HR-Bench 4K", "200 questions"]
    assert by_question.limits.paired == pytest.approx(2 * by_row.limits.paired)
    assert ("CharXiv DQ", "1,000 figures") in rows
    assert [title for title, _ in rows].count("V*") == 1

    rows = table()
    mean = rows["mean", "11 benchmarks"]
    units = [line for line in rows.values() if line.num_units is not None and not line.count.endswith(" rows")]
    assert len(units) == 11
    assert mean.limits.paired == pytest.approx(math.sqrt(sum(line.limits.paired**2 for line in units)) / 11)
    assert mean.gains["Qwen3-VL-8B"] == pytest.approx(60.77 - 55.95)


def test_marks():
    lines_by = table()
    vstar, chartqa = lines_by["V*", "191 questions"], lines_by["ChartQA", "2,500 questions"]
    assert mark(vstar, 2.1, 0.1) == " ‡"  # 4 of 191 questions: no test can show that
    assert mark(vstar, 4.0, 0.1) == " †"
    assert mark(vstar, 5.0, 0.1) == ""
    assert mark(chartqa, 0.4, 0.1) == " †"
    assert mark(chartqa, 0.1, 0.1) == " ‡"
    assert mark(lines_by["mean", "11 benchmarks"], 0.5, 0.1) == " †"
    small = Line("x", "20 questions", vstar.limits, {}, 20)
    assert mark(small, 35.0, 0.1) == ""
    assert mark(small, 18.0, 0.1) == " ‡"  # 6 of 20 are needed


def test_the_table_is_markdown_with_every_benchmark():
    text = markdown(PowerConfig(discordant=0.025))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert len(rows) == 2 + 11 + 3 + 1
    assert "| V* | 191 questions | 3.1 | 2.2 | 3.2 | 7.2 | +2.1 ‡ | +2.7 ‡ | +1.5 ‡ |" in rows
    assert "2.5 %" in text


def test_the_command_writes_only_where_it_is_told_and_says_what_cannot_be(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["power"])
    printed = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    main(["power", "out=docs/power.md"])
    assert (tmp_path / "docs" / "power.md").read_text() == printed.removesuffix("\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"cannot write out=file/power\.md"):
        main(["power", "out=file/power.md"])

    for word, match in [
        ("discordant=0", "discordant=0.0 must be above 0"),
        ("discordant=1.5", "must be above 0 and at most 1"),
        ("model=GPT", "model='GPT' must be one of Qwen3-VL-8B"),
    ]:
        with pytest.raises(SystemExit):
            main(["power", word])
        assert match in capsys.readouterr().err
