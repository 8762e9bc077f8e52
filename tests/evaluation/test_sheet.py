"""sheet.png: the first sample of each task, and what the systems drew of it."""

from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from etchr.images import open_image
from evaluation.factory import read_tasks
from evaluation.records import EvalFolder
from evaluation.report import write_reports
from evaluation.report.sheet import GAP, HEAD, LABEL, SIDE, shown_systems
from evaluation.settings import SystemConfig
from tests.evaluation.fakes import REJECT, Case

CASES = [Case("maze", "0", draws="wrong", verdict=REJECT), Case("maze", "1"), Case("chart", "0")]


@pytest.fixture
def run(new_run):
    return new_run(CASES)


def pictures(run):
    """The sheet's pictures, row by row, as arrays; None where a place is white."""
    sheet = np.asarray(open_image(run.out / "sheet.png"))
    columns = (sheet.shape[1] - LABEL) // (SIDE + GAP)
    rows = (sheet.shape[0] - HEAD) // (SIDE + GAP)
    found = []
    for row in range(rows):
        top = HEAD + row * (SIDE + GAP + 22)
        places = [(top, LABEL + column * (SIDE + GAP)) for column in range(columns)]
        found.append([sheet[y : y + SIDE, x : x + SIDE] for y, x in places])
    return found


def enlarged(image):
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST))


def test_a_row_shows_source_truth_and_edits_of_a_tasks_first_sample(run):
    run(run.config({"direct": SystemConfig(), "base_evr": run.edits(), "always": run.edits("always_edit")}))
    maze, chart = pictures(run)
    source, truth = (enlarged(image) for image in (CASES[0].sample().image, CASES[0].sample().edit_image))
    for row, drawn in ((maze, source), (chart, truth)):  # of the maze nothing was drawn
        assert len(row) == 3  # verified or not, the edit is the same
        assert (row[0] == source).all()
        assert (row[1] == truth).all()
        assert (row[2] == drawn).all()


def test_the_systems_may_be_chosen_and_a_run_that_is_not_finished_leaves_places_empty(run):
    systems = {"base_evr": run.edits(), "always": run.edits("always_edit"), "oracle": SystemConfig("oracle_edit")}
    run(run.config(systems, sheet=["oracle", "always", "base_evr"]))
    assert [len(row) for row in pictures(run)] == [5, 5]
    assert (pictures(run)[0][2] == enlarged(CASES[0].sample().edit_image)).all()

    systems = {"evr": run.edits(), "oracle": SystemConfig("oracle_edit")}
    config = run.config(systems, sheet=["evr", "oracle"])
    run(config)
    (run.out / "records" / "evr.jsonl").unlink()
    write_reports(EvalFolder(run.out), config, read_tasks(config))
    maze, _ = pictures(run)
    assert (maze[2] == 255).all()
    assert (maze[3] == enlarged(CASES[0].sample().edit_image)).all()


def test_without_a_choice_each_edit_is_shown_once_and_of_seeds_the_first(run):
    systems = {
        "direct": SystemConfig(),
        "evr": run.edits(),
        "always": run.edits("always_edit"),
        "told": run.edits(prompt="instruction"),
        "bare": run.edits(router="none.yaml"),
        "s0": run.edits(lora="a", group="seeds"),
        "s1": run.edits(lora="b", group="seeds"),
        "several": run.edits("best_of_n"),
    }
    assert shown_systems(run.config(systems)) == ["evr", "told", "bare", "s0"]
    many = {f"system{i}": run.edits(lora=str(i)) for i in range(12)}
    assert shown_systems(run.config(many)) == [f"system{i}" for i in range(8)]


@dataclass(frozen=True)
class Wide(Case):
    """A case whose pictures are large and twice as wide as high."""

    def sample(self):
        sample = super().sample()
        for name in ("image", "edit_image"):
            object.__setattr__(sample, name, getattr(sample, name).resize((600, 300)))
        return sample


def test_large_pictures_keep_their_shape(new_run):
    run = new_run([Wide("maze", "0")])
    run(run.config({"evr": run.edits()}))
    ((_, truth, _),) = pictures(run)
    red = (truth[..., 0] > 200) & (truth[..., 1] < 60)
    assert red[: SIDE // 2].any()
    assert not red[SIDE // 2 :].any()


def test_without_an_editor_there_is_no_sheet(run):
    run(run.config({"evr": run.edits()}))
    assert (run.out / "sheet.png").is_file()
    config = run.config()
    run(config)
    assert not (run.out / "sheet.png").exists()
    assert "sheet.png" not in (run.out / "report.md").read_text()
