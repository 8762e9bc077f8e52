"""report.html and the files beside it: every sample is there, and safe whatever questions, answers and models say."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from etchr.images import open_image
from etchr.mllm.protocol import GREEDY
from etchr.sample import EditSample, write_parquet
from evaluation.factory import read_tasks
from evaluation.records import EvalFolder
from evaluation.report import gallery, write_reports
from evaluation.report.pictures import LARGE, THUMBNAIL
from evaluation.settings import SystemConfig
from tests.evaluation.fakes import MUMBLE, REJECT, Case
from tests.evaluation.runs import Run

HOSTILE = "</script><script>alert(1)</script><!--<script>&lt;\u2028\u2029<img src=x onerror=alert(1)>{{DATA}}{{TITLE}}"
WRONG = "\\boxed{5}"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
CALL = re.compile(r"// [0-9a-f]{32}\netchrSamples\((\d+), (\".*\")\);\n")


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and the text of each script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self._inside: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in self.texts:
            self._inside = tag
            self.texts[tag].append("")

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside:
            self.texts[self._inside][-1] += data

    @property
    def data(self):
        return json.loads(self.texts["script"][0])

    @property
    def policy(self):
        (content,) = [a["content"] for _, a in self.tags if a.get("http-equiv") == "Content-Security-Policy"]
        return content


class LargeCase(Case):
    """A case whose pictures are larger than a thumbnail."""

    def sample(self):
        small = super().sample()
        rng = np.random.default_rng(int(self.key))
        image = Image.fromarray(rng.integers(0, 255, (3, 30, 3), dtype=np.uint8)).resize((2100, 210))
        edit = image.copy()
        edit.paste("red", (100, 100, 900, 200))
        values = {f: getattr(small, f) for f in ("id", "family", "task", "question", "answer", "meta")}
        return EditSample(image=image, edit_image=edit, **values)


def hostile(folder):
    return Run(folder, [Case("maze", str(i), edited=f"{HOSTILE} \\boxed{{7}}", source=HOSTILE) for i in range(3)])


@pytest.fixture
def run(tmp_path):
    return hostile(tmp_path)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A run that answers without and with an edit, and its page, which nobody changes."""
    run = hostile(tmp_path_factory.mktemp("shown"))
    return run, page_of(run, two_systems(run))


def two_systems(run):
    return {"direct": SystemConfig(), "base_evr": run.edits()}


def page_of(run, systems, **options):
    run(run.config(systems, **options))
    return Page((run.out / "report.html").read_text(encoding="utf-8"))


def again(run, systems, **options):
    """The report alone, from the records."""
    config = run.config(systems, **options)
    write_reports(EvalFolder(run.out), config, read_tasks(config))
    return Page((run.out / "report.html").read_text(encoding="utf-8"))


def items(run):
    """What the files of samples hold, in their order, read as JavaScript would."""
    found = []
    for number, path in enumerate(sorted((run.out / "report").glob("samples-*.js"))):
        call = CALL.fullmatch(path.read_text(encoding="ascii"))
        assert int(call[1]) == number
        assert not set("<>&") & set(call[2])
        found += json.loads(json.loads(call[2]))
    return found


def digest(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# -------------------------------------------------------------------------------------------------------- safety


def test_the_page_runs_its_own_scripts_and_names_no_place_but_its_own_folder(shown):
    run, seen = shown
    data, *scripts = seen.texts["script"]
    (style,) = seen.texts["style"]
    assert seen.policy.split("; ") == [
        "default-src 'none'",
        "img-src 'self'",
        f"style-src {digest(style)}",
        f"script-src {' '.join(map(digest, scripts))} 'strict-dynamic'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert len(scripts) == 2
    kinds = [attrs for tag, attrs in seen.tags if tag == "script"]
    assert kinds == [{"type": "application/json", "id": "data"}, {}, {}]
    assert json.loads(data)

    text = (run.out / "report.html").read_text(encoding="utf-8")
    assert not [tag for tag, _ in seen.tags if tag in ("link", "iframe", "object", "embed", "base", "img", "form")]
    assert not [a for _, a in seen.tags if {"src", "href", "srcset", "action", "style"} & set(a)]
    assert not [name for _, a in seen.tags for name in a if name.startswith("on")]
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket|\bimport\(", text)
    assert set(re.findall(r"https?://[^\s\"']*", text)) <= {"http://www.w3.org/2000/svg"}  # the name of a namespace
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"):
        assert sink not in text


def test_hostile_text_stays_text(shown, tmp_path):
    run, seen = shown
    assert items(run)[0]["runs"][0]["answer_text"] == HOSTILE
    assert items(run)[0]["runs"][1]["answer_text"] == f"{HOSTILE} \\boxed{{7}}"
    for mark in "<>&\u2028\u2029":
        assert mark not in seen.texts["script"][0]
    tame = Run(tmp_path, [Case("maze", str(i)) for i in range(3)])
    assert [tag for tag, _ in page_of(tame, two_systems(tame)).tags] == [tag for tag, _ in seen.tags]


def test_hostile_questions_ids_and_categories(new_run):
    run = new_run([Case("maze", "0"), Case("maze", "1")])
    values = {f: getattr(run.cases[0].sample(), f) for f in ("family", "task", "image", "edit_image")}
    meta = run.cases[0].sample().meta
    names = f"../../{HOSTILE}", "__proto__"
    hostile = [
        EditSample(name, question=HOSTILE, answer="7", choices=(HOSTILE, "8"), meta=meta | {"category": name}, **values)
        for name in names
    ]
    write_parquet(hostile, run.data / "maze" / "test.parquet")

    class Parrot:
        name = HOSTILE

        async def chat(self, messages, sampling=GREEDY):
            from etchr.mllm.protocol import Reply

            return [Reply("\\boxed{7}")]

    run.model = Parrot()
    seen = page_of(run, {"oracle": SystemConfig("oracle_edit")})
    assert seen.data["gallery"]["id"] == [item["id"] for item in items(run)] == list(names)
    assert sorted(seen.data["gallery"]["categories"]) == sorted(names)
    assert (items(run)[0]["question"], items(run)[0]["choices"]) == (HOSTILE, [HOSTILE, "8"])
    assert len(seen.texts["script"]) == 3
    report = (run.out / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in report  # a category heads a column
    assert "../../&lt;/script>" in report
    files = [path.relative_to(run.out).as_posix() for path in run.out.rglob("*") if path.is_file()]
    assert all(re.fullmatch(r"[\w./-]+", name) for name in files)


def test_a_record_cannot_make_the_page_read_or_link_other_files(run):
    page_of(run, {"base_evr": run.edits()})
    assert [item["runs"][0]["image"] is not None for item in items(run)] == [True] * 3
    edits, records = run.out / "edits" / "base_evr", run.out / "records" / "base_evr.jsonl"
    secret = run.folder / "secret.png"
    secret.write_bytes(next(edits.iterdir()).read_bytes())
    (edits / f"{'a' * 20}.png").symlink_to(secret)
    labels = iter(["edits/base_evr/../../../secret.png", str(secret), f"edits/base_evr/{'a' * 20}.png"])
    records.write_text(re.sub(r'"file": "[^"]*"', lambda _: f'"file": "{next(labels)}"', records.read_text()))
    again(run, {"base_evr": run.edits()})
    assert [item["runs"][0]["image"] for item in items(run)] == [None] * 3


# ------------------------------------------------------------------------------------------------------- pictures


def test_a_sample_is_shown_with_its_pictures_and_all_that_led_to_its_answer(shown):
    run, _ = shown
    sample = run.cases[1].sample()
    item = items(run)[1]
    ((source,),) = item["sources"]
    assert open_image(run.out / source).tobytes() == sample.image.tobytes()
    for links in (item["target"], item["runs"][1]["image"]):
        assert len(links) == 1
        assert open_image(run.out / links[0]).tobytes() == sample.edit_image.tobytes()
    assert item["runs"][1]["image"][0].startswith("edits/base_evr/")
    assert item["runs"][0]["image"] is None

    item, record = items(run)[2], run.records("base_evr")["maze-2"]
    shown = item["runs"][1]
    for key in (
        "answer",
        "answer_text",
        "verdict",
        "verdict_text",
        "used_edit",
        "correct",
        "unscored",
        "seconds",
        "parts",
    ):
        assert shown[key] == record[key]
    assert shown["prompt"] == record["edit"]["prompt"]
    assert shown["matches"] is True
    assert (item["question"], item["truth"]) == (run.cases[2].question, "7")


def test_large_pictures_become_thumbnails_that_lead_to_larger_ones_and_damaged_ones_are_shown_as_none(new_run):
    run = new_run([LargeCase("maze", "0")])
    systems = {"base_evr": run.edits(), "always": run.edits("always_edit")}
    page_of(run, systems)
    (item,) = items(run)
    for (shown, whole), longest in (
        (item["sources"][0], LARGE),
        (item["target"], LARGE),
        (item["runs"][0]["image"], 2100),
    ):
        assert max(open_image(run.out / shown).size) == THUMBNAIL
        assert Image.open(run.out / shown).format == "JPEG"
        assert max(open_image(run.out / whole).size) == longest
    assert item["runs"][0]["image"][0] == item["runs"][1]["image"][0]  # one thumbnail of an edit that two systems share
    assert item["runs"][0]["image"][1] != item["runs"][1]["image"][1]
    assert (run.out / "report.html").stat().st_size < 100_000

    (edit,) = (run.out / "edits" / "base_evr").iterdir()
    edit.unlink()  # it may be a link to that of the other system
    edit.write_bytes((run.out / item["runs"][1]["image"][1]).read_bytes()[:-2000])
    shutil.rmtree(run.out / "report")
    again(run, systems)
    ours, theirs = items(run)[0]["runs"]
    assert (ours["image"], theirs["image"] is None) == (None, False)
    assert ours["prompt"]


# ---------------------------------------------------------------------------------------------------- all samples


def test_the_index_says_what_happened_to_every_sample_and_repeat(new_run):
    cases = [
        Case("perception", "0", source=WRONG),
        Case("perception", "1", verdict=REJECT, draws="wrong"),
        Case("chart", "0", verdict=MUMBLE, source=WRONG),
        Case("chart", "1", draws=RuntimeError("no memory")),
    ]
    run = new_run(cases)
    index = page_of(run, two_systems(run)).data["gallery"]
    assert index["id"] == [case.id for case in cases] == [item["id"] for item in items(run)]
    assert [index["tasks"][number] for number in index["task"]] == [case.task for case in cases]
    seen = {}
    for system, letters in zip(index["systems"], index["codes"], strict=True):
        codes = [index["letters"].index(letter) for letter in letters]
        seen[system] = [(index["outcomes"][c % 4], index["verdicts"][c // 4 % 4], c // 16) for c in codes]
    assert seen == {
        "direct": [("wrong", "none", 0), ("right", "none", 0), ("wrong", "none", 0), ("right", "none", 0)],
        "base_evr": [
            ("right", "accepted", 1),
            ("right", "rejected", 2),
            ("wrong", "unparsable", 1),
            ("unscored", "none", 0),
        ],
    }

    run = new_run([Case("maze", str(i)) for i in range(2)])
    index = page_of(run, {"direct": SystemConfig()}, repeats=2).data["gallery"]
    assert list(zip(index["id"], index["repeat"], strict=True)) == [
        (f"maze-{i}", n) for i in range(2) for n in range(2)
    ]
    assert [(item["id"], item["repeat"]) for item in items(run)] == list(zip(index["id"], index["repeat"], strict=True))


def test_attempts_turns_and_the_routed_family_are_shown(run):
    page_of(run, {"best": run.edits("best_of_n", attempts=2), "routed": run.edits(route="rule")})
    record = run.records("best")["maze-1"]
    records = run.out / "records" / "best.jsonl"
    turns = [{"role": "tool", "text": HOSTILE, "file": record["edit"]["file"]}, {"role": "assistant", "text": "Done."}]
    with records.open("a") as stream:  # of several lines about a sample the last one counts
        stream.write(json.dumps(record | {"turns": turns}) + "\n")
    again(run, {"best": run.edits("best_of_n", attempts=2), "routed": run.edits(route="rule")})
    best, routed = items(run)[1]["runs"]
    assert [(a["verdict"], a["score"]) for a in best["attempts"]] == [
        (a["verdict"], a["score"]) for a in record["attempts"]
    ]
    assert [a["image"] for a in best["attempts"]] == [[a["file"]] for a in record["attempts"]]
    assert len({a["image"][0] for a in best["attempts"]}) == 2
    assert best["turns"] == [
        {"role": "tool", "text": HOSTILE, "image": [record["edit"]["file"]]},
        {"role": "assistant", "text": "Done."},
    ]
    assert routed["routed"] == run.records("routed")["maze-1"]["routed"]
    assert set(routed["routed"]) == {"family", "confidence"}


def test_long_texts_are_cut_and_say_so(new_run):
    run = new_run([Case("maze", "0", source="x" * 100_000 + "\\boxed{7}")])
    page_of(run, {"direct": SystemConfig()})
    text = items(run)[0]["runs"][0]["answer_text"]
    assert text == "x" * gallery.MAX_TEXT + "… (100,009 characters)"


def test_many_samples_lie_in_several_files_and_the_page_stays_small(new_run):
    run = new_run([Case(task, str(i)) for task in ("maze", "jigsaw") for i in range(30)])
    seen = page_of(run, {"direct": SystemConfig()})
    assert [path.name for path in sorted((run.out / "report").glob("*.js"))] == [f"samples-00{n}.js" for n in range(3)]
    assert [item["id"] for item in items(run)] == seen.data["gallery"]["id"] == [case.id for case in run.cases]
    few = again(run, {"direct": SystemConfig()}, num_samples=2)
    assert few.data["gallery"]["id"] == ["maze-0", "maze-1", "jigsaw-0", "jigsaw-1"] == [i["id"] for i in items(run)]


def test_an_unfinished_run_shows_what_is_recorded(new_run):
    run = new_run([Case("maze", str(i)) for i in range(4)])
    page_of(run, two_systems(run))
    for name, lines in (("direct", 1), ("base_evr", 2)):
        path = run.out / "records" / f"{name}.jsonl"
        kept = [
            line for line in path.read_text().splitlines(True) if json.loads(line)["sample_id"] in ("maze-1", "maze-3")
        ]
        path.write_text("".join(sorted(kept, key=lambda line: json.loads(line)["sample_id"])[:lines]))
    seen = again(run, two_systems(run))
    assert seen.data["gallery"]["id"] == ["maze-1", "maze-3"]
    assert [[each is not None for each in item["runs"]] for item in items(run)] == [[True, True], [False, True]]


def test_a_report_is_made_again_where_it_was_interrupted_or_records_changed(new_run):
    run = new_run([Case("maze", str(i)) for i in range(30)])
    page_of(run, {"base_evr": run.edits()})
    whole = {path: path.read_bytes() for path in (run.out / "report").rglob("*") if path.is_file()}
    (run.out / "report" / "samples-001.js").unlink()
    os.remove(next(iter((run.out / "report" / "thumbs").glob("*"))))
    first = run.out / "report" / "samples-000.js"
    first.write_bytes(first.read_bytes()[:10])
    again(run, {"base_evr": run.edits()})
    assert {path: path.read_bytes() for path in whole} == whole

    run = new_run([Case("maze", str(i)) for i in range(60)])
    page_of(run, {"base_evr": run.edits()})

    def times():
        return {path.name: path.stat().st_mtime_ns for path in (run.out / "report").rglob("*") if path.is_file()}

    before = times()
    again(run, {"base_evr": run.edits()})
    assert times() == before
    records = run.out / "records" / "base_evr.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    changed = next(record for record in lines if record["sample_id"] == run.cases[30].id) | {"correct": False}
    with records.open("a") as stream:
        stream.write(json.dumps(changed) + "\n")
    again(run, {"base_evr": run.edits()})
    assert [name for name, time in times().items() if before.get(name) != time] == ["samples-001.js"]
    assert [item["runs"][0]["correct"] for item in items(run)].index(False) == 30


def test_the_page_says_who_was_compared_on_what_and_is_not_made_of_other_samples(run):
    systems = {"direct": SystemConfig(), "told": run.edits(prompt="question", lora=None)}
    about = page_of(run, systems).data["run"]
    assert about["systems"][0] == ["direct", "the model answers from the source alone"]
    assert about["systems"][1][1].endswith("editor klein; asked the question")
    assert about["tasks"][0][:3] == ["maze", "maze", 3]
    assert about["models"] == [["reasoner", "the embedded reader"]]
    assert str(run.folder) not in json.dumps(about)

    page_of(run, {"direct": SystemConfig()})
    other = [Case("maze", str(i)).sample() for i in range(3)]
    write_parquet(
        [EditSample(**{**vars(sample), "answer": "8"}) for sample in other], run.data / "maze" / "test.parquet"
    )
    shutil.rmtree(run.out / "report")
    with pytest.raises(ValueError, match=r"sample 'maze-0' of maze is not the one that .*out has a record of"):
        again(run, {"direct": SystemConfig()})


def test_seeds_of_a_method_get_a_row_of_their_mean_and_may_be_grouped_later(run):
    page_of(run, {"direct": SystemConfig(), "s0": run.edits(), "s1": run.edits()})
    before = (run.out / "records" / "s0.jsonl").read_bytes()
    grouped = {"direct": SystemConfig(), "s0": run.edits(), "s1": run.edits()}
    grouped["s0"].group = grouped["s1"].group = "ours"
    seen = page_of(run, grouped)
    assert (run.out / "records" / "s0.jsonl").read_bytes() == before
    report = json.loads((run.out / "report.json").read_text(encoding="utf-8"))
    assert seen.data["report"]["groups"] == report["groups"]
    group, single = report["groups"]["ours"], report["systems"]["s0"]
    assert group["systems"] == ["s0", "s1"]
    assert group["tasks"]["maze"] == group["mean"]["value"] == single["mean"]
    assert group["against"]["value"] == report["paired"]["s0"]["difference"]
    assert group["edits"]["value"] == single["tasks"]["maze"]["edit_correct"]
    assert "| ours | 2 |" in (run.out / "report.md").read_text(encoding="utf-8")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_shows_the_samples_from_a_file_and_runs_nothing_else(shown, tmp_path):
    run, _ = shown
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"]
    done = subprocess.run([*command, (run.out / "report.html").as_uri()], capture_output=True, text=True, timeout=120)
    seen = Page(done.stdout)
    assert sum(a.get("class") == "sample" for _, a in seen.tags) == 3
    sources = [a["src"] for tag, a in seen.tags if tag == "img"]
    assert len(sources) == 3 * 3
    assert all(re.fullmatch(r"(report/thumbs|edits/base_evr)/[0-9a-f]{20}\.png", source) for source in sources)
    assert "1 to 3 of 3" in done.stdout
    assert (
        len([tag for tag, _ in seen.tags if tag == "script"]) == 3
    )  # that of the samples has done its work and is gone
