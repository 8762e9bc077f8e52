"""The meta-prompts of a released set: found, not taken for part of the questions, and put back by the router."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.sources import meta_prompts
from data_prep.sources.columns import Rows
from data_prep.sources.meta_prompts import beginning, main
from etchr.router import Router

BOX = "Draw a red box for the question."
MAZE = "Draw the way. It must be the shortest path."
VIEW = "Imagine a new perspective that helps."


def write(folder, prompts, **more):
    folder.mkdir(exist_ok=True)
    columns = {"prompt": pa.array(prompts, pa.string()), "source_image": [b"no picture"] * len(prompts), **more}
    pq.write_table(pa.table(columns), folder / "rows.parquet", row_group_size=50)
    return folder


def router(folder, **options):
    out = folder / "made" / "router.yaml"
    main([f"root={folder}", f"out={out}", *(f"{key}={value}" for key, value in options.items())])
    return Router.load(out)


def test_the_router_makes_the_released_prompts_again(tmp_path, capsys):
    released = {
        "perception": [f"{BOX} What is the thing number {i}? Name it." for i in range(60)],
        "logic": [f"{MAZE} Which moves lead through maze {i}?" for i in range(40)],
        "view3d": [f'{VIEW} "Is {i}: left" or right?' for i in range(30)],
    }
    bad = [None, "", "What?", "Draw a red box for the jigsaw.", "x" * 30_000]
    made = router(write(tmp_path, [*released["logic"], *bad, *released["perception"], *released["view3d"]]))
    assert made.meta_prompts == {"perception": BOX, "chart": BOX, "logic": MAZE, "view3d": VIEW}
    for family, prompts in released.items():
        for prompt in prompts:
            question = prompt.removeprefix(made.meta_prompts[family] + " ")
            assert question != prompt
            assert made.prompt(question, family) == prompt
    said = capsys.readouterr().out
    assert f"logic: '{MAZE}'; 0 of 40 rows do not begin with it" in said
    assert "5 rows tell no family or several" in said
    assert "chart: as perception" in said


def test_a_few_rows_without_it_do_not_shorten_it_and_are_counted(tmp_path, capsys):
    rows = [f"{BOX} Which of {i}?" for i in range(97)] + [f"Please. {BOX} Which of {i}?" for i in range(3)]
    assert router(write(tmp_path, rows)).meta_prompts["perception"] == BOX
    assert "3 of 100 rows do not begin with it" in capsys.readouterr().out
    assert router(tmp_path, share=0.99).meta_prompts["perception"] == ""
    assert f"most common: '{BOX}', 97%" in capsys.readouterr().out


def test_it_does_not_reach_into_questions_that_begin_alike():
    assert beginning([f"{BOX} What is the colour of object {i}?" for i in range(50)], 0.95) == BOX
    assert beginning([f"{BOX}\nQuestion: what is {i}?" for i in range(50)], 0.95) == BOX
    assert beginning([f"Draw a red box: what is {i}?" for i in range(50)], 0.95) == "Draw a red box:"


def test_a_prompt_that_is_always_the_same_keeps_its_last_sentence_as_the_question():
    assert beginning(["Solve the jigsaw. Show the picture."] * 50, 0.95) == "Solve the jigsaw."
    assert beginning(["Solve the jigsaw puzzle."] * 50, 0.95) == ""


def test_sets_that_a_column_tells_apart_have_their_own_meta_prompts(tmp_path):
    prompts = [f"{BOX} Which {i}?" for i in range(40)] + [f"Draw a red box in the chart. Which {i}?" for i in range(40)]
    folder = write(tmp_path, prompts, dataset=["GQA"] * 40 + ["RefChartQA"] * 40)
    assert router(folder).meta_prompts == {"perception": BOX, "chart": "Draw a red box in the chart."}


def test_other_white_space_behind_it_is_said(tmp_path, capsys):
    router(write(tmp_path, [f"{BOX}\nWhich {i}?" for i in range(20)]))
    said = capsys.readouterr().out
    assert "0 of 20 rows do not begin with it" in said
    assert "20 rows have other white space behind it" in said


def test_prompts_that_yaml_would_read_as_something_else_come_back(tmp_path):
    odd = "# Draw a red box: 'é' {x} \\ \"y\"."
    assert router(write(tmp_path, [f"{odd} Which {i}?" for i in range(20)])).meta_prompts["perception"] == odd


def test_only_prompts_are_read_and_few_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(meta_prompts, "NUM_KEPT", 10)
    folder = write(tmp_path, [f"{BOX} Which {i}?" for i in range(200)])
    rows = Rows([folder / "rows.parquet"], ["prompt"])
    kept = meta_prompts.gather(rows)["perception"]
    assert (kept.num_rows, len(kept.kept)) == (200, 10)
    assert max(int(prompt.split()[-1].strip("?")) for prompt in kept.kept) > 50  # not just the first ones
    asked = []
    monkeypatch.setattr(meta_prompts, "Rows", lambda files, columns: asked.append(columns) or Rows(files, columns))
    router(folder)
    assert asked == [["prompt"]]


def test_a_set_without_prompts_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="none of the 2 texts in column prompt tells its family"):
        main([f"root={write(tmp_path, ['What?', 'Why?'])}", f"out={tmp_path}/r.yaml"])
    assert not (tmp_path / "r.yaml").exists()
    with pytest.raises(SystemExit, match="columns seen: prompt"):
        main([f"root={tmp_path}", f"out={tmp_path}/r.yaml", "prompt_column=source_image"])
