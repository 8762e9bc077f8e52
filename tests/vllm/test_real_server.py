"""Against a real vLLM: the chat client, the rewards' calls, Edit-Verify-Reason, and an evaluation through two outages.

`bash scripts/test_vllm.sh` installs vLLM's CPU build and runs this; it is skipped unless ETCHR_VLLM names the program.
The model's weights are random. Its replies are held to a form by the server (`structured_outputs`), so that they can be
read; which verdict, letter or number they name is noise, but the same noise at temperature 0.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from etchr.editor.folder import NANO_BASE
from etchr.editor.klein import KleinEditor
from etchr.evr import Proposal, Sampling, edit_verify_reason
from etchr.mllm.answers import ground_truth
from etchr.mllm.chat import ChatClient, ChatSettings
from etchr.mllm.protocol import CallFailed, Reply, user_message
from etchr.mllm.settings import ModelConfig
from etchr.mllm.verdict import Verdict
from etchr.rewards.score import EditRewards
from etchr.rewards.settings import CorrectnessConfig, GuidanceConfig, RewardConfig
from etchr.router import Router
from etchr.sample import read_parquet
from tests.vllm.tiny_model import OWN_MAX_PIXELS, write_tiny_model

ROOT = Path(__file__).parents[2]
PATIENCE_S = 900  # on two cores that others use too, a start takes minutes
VERDICT, LETTER = r"\\boxed\{[01]\}", r"\\boxed\{[A-D]\}"
TALK = "[a-zA-Z0-9 ,.]{20}"  # before the box, so that a reply takes its time
TASKS = ("perception", "view3d")  # questions with four options
RED, BLUE = Image.new("RGB", (256, 256), "red"), Image.new("RGB", (320, 256), "blue")

pytestmark = pytest.mark.skipif("ETCHR_VLLM" not in os.environ, reason="ETCHR_VLLM names no vLLM program")


class Served:
    """Servers started by `scripts/serve_vllm.sh`."""

    def __init__(self, folder: Path) -> None:
        model = write_tiny_model(folder / "tiny")
        self.logs = folder / "logs"
        options = [f"vllm={os.environ['ETCHR_VLLM']}", f"logs={self.logs}", "name=tiny", "port=8765", "restarts=9"]
        options += ["images=[1024x1024]", f"own_max_pixels={OWN_MAX_PIXELS}", "systems=[evr]", "max_tokens=1024"]
        command = ["bash", str(ROOT / "scripts" / "serve_vllm.sh"), str(model), *options]
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        self._output = (folder / "said").open("w+")
        self.process = subprocess.Popen(
            [*command, "--", "--dtype", "float32", "--enforce-eager"], env=environment, stdout=self._output
        )
        self.wait_for("etchr.rl: ")

    @property
    def said(self) -> str:
        return Path(self._output.name).read_text()

    @property
    def words(self) -> list[str]:
        """The options that the script prints for the evaluation."""
        return re.search(r"^evaluation.*?: (.*)$", self.said, re.MULTILINE)[1].split()

    @property
    def url(self) -> str:
        return re.search(r"base_urls=\[(.*?)\]", self.said)[1]

    def wait_for(self, words: str, times: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.said.count(words) < times:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill the server as it is now; the script starts it again."""
        before = self.said.count("started again")
        os.kill(int(re.findall(r"process (\d+)", self.said)[-1]), signal.SIGKILL)
        self.wait_for("started again", before + 1)

    def completions(self) -> int:
        """Chat requests that the servers have answered, by their own log."""
        log = "".join(path.read_text(errors="replace") for path in self.logs.glob("*.log"))
        return len(re.findall(r'"POST /v1/chat/completions HTTP/1.1" 200', log))

    def client(self, **settings) -> ChatClient:
        return ChatClient(ChatSettings((self.url,), "tiny", max_retries=0, **settings))

    def model(self, regex: str, **options) -> ModelConfig:
        """The options of a model whose replies have the form of `regex`."""
        body = {"structured_outputs": {"regex": regex}}
        return ModelConfig("http", "tiny", [self.url], extra_body=body, **options)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    running = Served(tmp_path_factory.mktemp("vllm"))
    yield running
    running.process.terminate()
    running.process.wait(60)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten questions of each task."""
    folder = tmp_path_factory.mktemp("data")
    for task in TASKS:
        words = [task, "split=test", "seed=7", "num_samples=10", f"out={folder}"]
        subprocess.run([sys.executable, "-m", "data_prep", *words], cwd=ROOT, check=True, capture_output=True)
    return folder


def chat(client: ChatClient, *images: Image.Image, text: str = "What do you see?", **options) -> list[Reply]:
    async def call() -> list[Reply]:
        async with client:
            await client.check()
            return await client.chat([user_message(text, *images)], Sampling(**options))

    return asyncio.run(call())


# ----------------------------------------------------------------------------------------------------- chat client


def test_several_replies_to_two_pictures_come_with_one_request(served):
    client = served.client(top_logprobs=5)
    replies = chat(client, RED, BLUE, n=4, temperature=0.7, max_tokens=24, seed=3)
    assert client.stats.calls == 1
    assert len({reply.text for reply in replies}) == 4
    assert replies[0].completion_tokens == 4 * 24
    assert {reply.finish_reason for reply in replies} == {"length"}
    for reply in replies:
        assert reply.logprobs is not None
        assert all(value <= 0 for candidates in reply.logprobs for value in candidates.values())
    assert [reply.text for reply in chat(served.client(), RED, BLUE, n=4, temperature=0.7, max_tokens=24, seed=3)] == [
        reply.text for reply in replies
    ]


def test_at_temperature_0_a_reply_depends_on_pictures_and_words_alone(served):
    def said(*images, text="What do you see?", seed=1):
        return chat(served.client(), *images, text=text, max_tokens=24, seed=seed)[0].text

    assert said(RED, BLUE) == said(RED, BLUE, seed=2)
    assert len({said(RED, BLUE), said(BLUE, RED), said(RED), said(RED, BLUE, text="And now?")}) == 4


def test_pictures_go_in_whole_up_to_the_size_that_the_server_was_started_for(served):
    def tokens(side):
        return chat(served.client(), Image.new("RGB", (side, side), "red"), max_tokens=8)[0].prompt_tokens

    small, whole, larger = tokens(512), tokens(1024), tokens(1280)
    assert whole - small == 1024 - 256  # a token for every 32x32 pixels, though the model's own limit is 512x512
    assert larger == whole


@pytest.mark.parametrize(
    ("images", "text", "words"),
    [((RED, RED, RED), "What?", "At most 2 image"), ((RED,), "long " * 4000, "maximum context length|longer than")],
)
def test_what_the_server_refuses_is_a_failed_call_in_its_own_words(served, images, text, words):
    with pytest.raises(CallFailed, match=f"answered HTTP 400: .*({words})"):
        chat(served.client(), *images, text=text, max_tokens=8)


# --------------------------------------------------------------------------------------------------------- rewards


def reward(served, config: RewardConfig, sample, edit):
    """The score of an edit, and the number of HTTP requests of reasoner and judge."""

    async def call():
        rewards = EditRewards.from_config(config)
        async with rewards.reasoner, rewards.judge:
            return await rewards.score(sample, edit, seed=5), rewards

    score, rewards = asyncio.run(call())
    return score, rewards.reasoner.stats.calls, rewards.judge.stats.calls


def test_eight_decodings_of_each_reward_are_one_request(served, data):
    sample = read_parquet(data / "view3d", "test")[0]
    config = RewardConfig(num_decodings=8, reasoner=served.model(LETTER), judge=served.model(VERDICT))
    score, asked, judged = reward(served, config, sample, sample.edit_image)
    assert (score.missing, asked, judged) == (None, 1, 1)
    for value in (score.guidance, score.correctness):
        assert 8 * value in range(9)
    assert reward(served, config, sample, sample.edit_image)[0] == score  # by its seed


def test_dense_rewards_are_probabilities_from_one_request_each(served, data):
    sample = read_parquet(data / "view3d", "test")[0]
    config = RewardConfig(
        guidance=GuidanceConfig(dense=True),
        correctness=CorrectnessConfig(dense=True),
        reasoner=served.model(LETTER, top_logprobs=20),
        judge=served.model(VERDICT, top_logprobs=20),
    )
    score, asked, judged = reward(served, config, sample, sample.edit_image)
    assert (score.missing, asked, judged) == (None, 1, 1)
    assert 0 < score.guidance < 1
    assert 0 < score.correctness < 1
    by_letter = []
    for letter in "ABCD":
        [choice] = [sample.choices["ABCD".index(letter)]]
        other = replace(sample, answer=letter)
        assert ground_truth(other) == letter, choice
        by_letter.append(reward(served, config, other, sample.edit_image)[0].guidance)
    assert sum(by_letter) == pytest.approx(1, abs=1e-4)


# ------------------------------------------------------------------------------------------------------------- evr


def test_the_nano_editor_proposes_and_the_served_model_verifies_and_answers(served, data):
    editor, router = KleinEditor.load(str(NANO_BASE)), Router.load()
    samples = [read_parquet(data / task, "test")[index] for task in TASKS for index in range(4)]

    async def propose(sample):
        prompt = router.prompt(sample.question, sample.family)
        return Proposal(editor.edit([sample.image], [prompt], [1])[0], editor.name, prompt, 1)

    async def run():
        settings = Sampling(max_tokens=64)
        body = [{"structured_outputs": {"regex": TALK + form}} for form in (VERDICT, LETTER)]
        async with served.client(extra_body=body[0]) as verifier, served.client(extra_body=body[1]) as reasoner:
            return [await edit_verify_reason(each, propose, verifier, reasoner, settings) for each in samples]

    traces = asyncio.run(run())
    assert [trace.unscored for trace in traces] == [None] * len(samples)
    assert {trace.verdict for trace in traces} == {Verdict.ACCEPTED, Verdict.REJECTED}
    for trace in traces:
        assert trace.used_edit == (trace.verdict is Verdict.ACCEPTED)
        assert trace.answer in "ABCD"
        assert trace.proposal is not None
        assert trace.usage["tiny"].prompt_tokens > 0


# ------------------------------------------------------------------------------------------- evaluation and outage


def evaluation(served, data, out: Path, max_retries: int) -> list[str]:
    """`python -m evaluation` on the 20 questions, with the nano editor."""
    forms = {"reasoner": TALK + LETTER, "verifier": TALK + VERDICT}
    words = [*served.words, *(word.replace("reasoner.", "verifier.", 1) for word in served.words)]
    words += [f"{role}.extra_body={{structured_outputs:{{regex:'{form}'}}}}" for role, form in forms.items()]
    words += [f"{role}.{key}" for role in forms for key in (f"max_retries={max_retries}", "max_concurrency=2")]
    words += ["systems.direct.kind=direct", "systems.etchr.kind=evr", "systems.etchr.editor=nano"]
    words += [f"tasks=[{','.join(TASKS)}]", f"data={data}", f"out={out}", f"editing.cache={out}-edits"]
    words += ["editing.batch_size=1"]  # edits made together differ in single pixels by who else is in the batch
    return [sys.executable, "-m", "evaluation", *words, "max_tokens=64", "concurrency=2"]


def records(out: Path) -> dict:
    """What the records hold, but for times."""
    found = {}
    for path in sorted((out / "records").glob("*.jsonl")):
        for record in map(json.loads, path.read_text().splitlines()):
            record.pop("seconds")
            if record["edit"] is not None:
                record["edit"] = {key: value for key, value in record["edit"].items() if key not in ("file", "seconds")}
            found[record["system"], record["sample_id"]] = record
    return found


def calls(out: Path) -> list[str]:
    """The keys of the finished calls."""
    path = out / "calls" / "calls.jsonl"
    return [json.loads(line)["key"] for line in path.read_text().splitlines()] if path.is_file() else []


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for_records(out: Path, number: int, process: subprocess.Popen) -> None:
    """Return when so many samples are scored, the run still being at work."""
    deadline = time.monotonic() + PATIENCE_S
    while len([record for record in records(out).values() if record["unscored"] is None]) < number:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_outage_leaves_samples_unscored_or_late_but_never_wrong(served, data, tmp_path):
    calm, out = tmp_path / "calm", tmp_path / "out"
    done = subprocess.run(evaluation(served, data, calm, 0), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = records(calm)
    assert len(expected) == 40
    assert {record["correct"] for record in expected.values()} == {True, False}
    assert {record["verdict"] for record in expected.values() if record["edit"]} == {"accepted", "rejected"}

    # Killed while the run has no patience: what it cannot ask is unscored, what it had asked is as without the outage.
    process = start(evaluation(served, data, out, 0))
    wait_for_records(out, 24, process)  # of both systems: one that has none scored would be given up
    served.kill()
    assert process.wait(PATIENCE_S) == 0, process.stderr.read()
    hasty = records(out)
    missing = [key for key, record in hasty.items() if record["unscored"] is not None]
    assert missing
    assert all(hasty[key]["correct"] is None for key in missing)
    assert {key: record for key, record in hasty.items() if key not in missing} == {
        key: record for key, record in expected.items() if key not in missing
    }
    before = calls(out)
    served.wait_for("answers again")

    # The same command with patience: killed again in the middle, it rides the outage out and repeats no finished call.
    answered = served.completions()
    process = start(evaluation(served, data, out, 40))
    wait_for_records(out, 40 - len(missing) + 4, process)
    served.kill()
    finished, since = calls(out), served.completions()
    assert process.wait(PATIENCE_S) == 0, process.stderr.read()
    assert records(out) == expected
    after = calls(out)
    assert len(set(after)) == len(after)
    assert after[: len(before)] == before
    assert after[: len(finished)] == finished
    assert served.completions() - since == len(after) - len(finished)
    assert len(finished) - len(before) <= since - answered <= len(finished) - len(before) + 2  # two were in flight
    assert sorted(after) == sorted(calls(calm))
    report = json.loads((out / "report.json").read_text())
    assert report["systems"]["etchr"]["tasks"].keys() == set(TASKS)
