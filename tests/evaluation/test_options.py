"""Mistakes are found before anything expensive begins, and answered by one sentence."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from etchr.mllm.settings import ModelConfig, build_model
from etchr.sample import read_parquet, write_parquet
from evaluation.__main__ import main
from evaluation.run import evaluate
from evaluation.settings import EditingConfig, EvalConfig, StoryConfig, SystemConfig
from tests.evaluation.fakes import Case
from tests.mllm.fake_server import dead_url


@pytest.fixture
def run(new_run):
    return new_run([Case("maze", "0"), Case("maze", "1"), Case("chart", "0")])


def refuse(run, config, match, build_model=None):
    """The sentence, and that neither an editor nor, unless given, a model was built before it."""

    def never(*_):
        raise AssertionError("built")

    with pytest.raises(ValueError, match=match) as caught:
        evaluate(config, build_model=build_model or never, build_editor=never)
    assert "\n" not in str(caught.value)
    assert not (run.out / "records").exists()


def rewrite(path, change):
    """Change the rows of a Parquet file, as whoever made it by other means could have."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)


def test_an_endpoint_that_is_down_stops_the_run_before_any_edit(run):
    url = dead_url()
    config = run.config(
        {"base_evr": run.edits()}, reasoner=ModelConfig("http", "m", [url], api_key_env="NO_SUCH_KEY", max_retries=0)
    )
    refuse(run, config, f"{url}.* cannot be reached", build_model=build_model)


def test_data_and_editors_that_are_none_and_a_name_that_is_a_path(run):
    refuse(run, run.config(data="nowhere"), "no maze data at nowhere/maze; make it with: python -m data_prep maze")

    other = Path(run.klein).parent / "other"
    other.mkdir()
    refuse(run, run.config({"x": SystemConfig("evr", "./nowhere")}), "no editor folder at ./nowhere")
    refuse(run, run.config({"x": SystemConfig("evr", str(other))}), "no model_index.json")
    (other / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    refuse(run, run.config({"x": SystemConfig("evr", str(other))}), "StableDiffusionPipeline, not a Flux2KleinPipeline")
    refuse(run, run.config({"x": run.edits(lora="./no.safetensors")}), "no LoRA file at no.safetensors")

    refuse(run, run.config({"../x": SystemConfig()}), "system name '../x' may hold letters")


def test_routers_that_do_not_fit(run):
    router = run.folder / "router.yaml"
    router.write_text("logics: Draw the path.")
    refuse(run, run.config({"x": run.edits()}, router=str(router)), "unknown task family 'logics'; known: perception,")
    router.write_text("chart: Draw a box.")
    refuse(run, run.config({"x": run.edits()}, router=str(router)), "no meta-prompt for logic; it has: chart")
    systems = {"x": run.edits(), "y": run.edits(router=str(router))}
    refuse(run, run.config(systems), "no meta-prompt for logic; it has: chart")


def test_one_bad_row_is_named_before_the_others_cost_anything(run):
    """A row found bad in the middle of a run could not be mended without losing the run: its data would change."""
    path = run.data / "maze" / "test.parquet"
    good = path.read_bytes()
    for change, match in [
        (lambda rows: rows[1].update(answer=None), "bad row 'maze-1': answer is missing"),
        (lambda rows: rows[1].update(answer="many"), "sample 'maze-1': its answer 'many' is no number answer"),
        (lambda rows: rows[1].update(family="mazes"), "bad row 'maze-1': unknown task family 'mazes'; known: perc"),
        (lambda rows: rows[1]["image"].update(bytes=b"junk"), "bad row 'maze-1': not an image"),
        (lambda rows: rows[1].update(image={"bytes": None, "path": "/etc/passwd"}), "must be embedded as bytes"),
        (lambda rows: rows[1].update(id="maze-0"), "holds the id 'maze-0'.* ids must be unique"),
        (lambda rows: rows[1].update(id="chart-0"), "chart holds the id 'chart-0', which maze holds too"),
        (lambda rows: rows[1].update(task="mice"), "'maze-1' lies in the data of maze but belongs to 'mice'"),
        (lambda rows: rows[1].update(edit_image=None), "oracle needs ground-truth edits, sample 'maze-1' has none"),
        (lambda rows: rows.clear(), "holds no samples"),
    ]:
        path.write_bytes(good)
        rewrite(path, change)
        refuse(run, run.config({"direct": SystemConfig(), "oracle": SystemConfig("oracle_edit")}), match)

    path.write_bytes(good)
    refuse(run, run.config({"x": run.edits(prompt="instruction")}), "'maze-0' has no explicit instruction")

    rewrite(path, lambda rows: rows[1].update(answer=None))  # which does not matter beyond num_samples
    assert run(run.config(num_samples=1))["systems"]["direct"]["tasks"]["maze"]["num_samples"] == 1


def test_options_that_cannot_be():
    for make, match in [
        (lambda: SystemConfig("evrr"), "system kind='evrr' must be one of direct, evr, always_edit"),
        (lambda: SystemConfig("evr"), "a system of kind evr needs an editor"),
        (lambda: SystemConfig("direct", "nano"), "a system of kind direct has no editor"),
        (
            lambda: SystemConfig("evr", "nano", prompt="q"),
            "system prompt='q' must be one of question, instruction, enhanced",
        ),
        (lambda: SystemConfig("direct", router="x"), "direct has no editor to prompt: leave router=x out"),
        (lambda: SystemConfig("evr", lora="x"), "a lora needs an editor to go with"),
        (lambda: SystemConfig("iterate", "nano", attempts=0), "attempts=0 must be at least 1"),
        (lambda: ModelConfig("grpc"), "model kind 'grpc' must be reader or http"),
        (lambda: ModelConfig("http"), "needs model=NAME and base_urls"),
        (lambda: EditingConfig(batch_size=0), "batch_size=0 must be at least 1"),
        (lambda: EditingConfig(num_inference_steps=0), "num_inference_steps=0 must be at least 1"),
        (lambda: EvalConfig(), "no systems to compare"),
        (lambda: EvalConfig({"x": SystemConfig()}, concurrency=0), "concurrency=0 must be at least 1"),
        (lambda: EvalConfig({"x": SystemConfig()}, sheet=["y"]), "sheet names 'y', no system; there are: x"),
        (
            lambda: EvalConfig({"x": SystemConfig()}, story=[StoryConfig("it", "x", "y")]),
            "story names 'y', no system; there are: x",
        ),
        (lambda: StoryConfig("it"), "an entry of story needs what and system, got what='it' system=''"),
        (lambda: EvalConfig({"x": SystemConfig()}, num_samples=0), "num_samples=0 must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=match):
            make()


# -------------------------------------------------------------------------------------------------- command line


def words(run):
    return ["systems.direct.kind=direct", f"data={run.data}", f"out={run.out}", "tasks=[maze,chart]"]


def test_the_command_evaluates_and_reports_again_from_the_records(run, capsys):
    main(words(run))
    first = (run.out / "report.json").read_bytes()
    printed = capsys.readouterr().out
    head, direct, guess, _, where = printed.splitlines()[2:]
    assert head.split() == ["system", "maze", "chart", "mean"]  # no editor, so no picture sheet and no matching edits
    assert direct.startswith("direct ")
    assert guess.split() == ["a", "blind", "guess", "0.0", "0.0", "0.0"]
    assert where == f"all samples: {run.out / 'report.html'}"
    (run.out / "report.json").unlink()
    main(["report", *words(run)])
    assert (run.out / "report.json").read_bytes() == first
    assert capsys.readouterr().out.splitlines()[-1] == printed.splitlines()[-1]


def test_the_command_exits_with_the_sentence(run):
    with pytest.raises(SystemExit, match=r"no run at .*out; start one") as caught:
        main(["report", *words(run)])
    assert not run.out.exists()
    run.out.write_text("a file in the way of the folder")
    with pytest.raises(SystemExit, match="cannot go on: "):
        main(words(run))
    run.out.unlink()
    with pytest.raises(SystemExit, match="cannot be reached"):
        main([*words(run), "reasoner.kind=http", "reasoner.model=m", f"reasoner.base_urls=['{dead_url()}']"])
    assert isinstance(caught.value.code, str)  # printed, exit status 1


def test_samples_are_written_as_they_are_read(run):
    """`write_parquet` of a read set gives the same set: what the tests change is what users can change."""
    path = run.data / "maze" / "test.parquet"
    before = pq.read_table(path)
    write_parquet([read_parquet(path)[i] for i in range(2)], path)
    assert pq.read_table(path).equals(before)
