"""A chat endpoint that knows the cases' prompts and misbehaves on the way, and a run against it that can be killed.

`python -m tests.evaluation.faulty URL DATA OUT NUM_KILLS SEED` starts the run in a child, kills it after a moment, and
starts it again, so many times, and at last lets it end. The child is forked: it does not load everything anew.
"""

import dataclasses
import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from etchr.mllm.chat import ChatClient
from etchr.mllm.settings import ModelConfig, build_model
from evaluation.factory import read_tasks
from evaluation.report import write_reports
from evaluation.run import evaluate
from evaluation.settings import EditingConfig, EvalConfig, SystemConfig
from tests.evaluation.fakes import ACCEPT, MUMBLE, REJECT, Case, TableModel
from tests.mllm.fake_server import MODEL, FakeEndpoint, Step, answer, refusal

CASES = [
    Case(
        task,
        str(i),
        source="\\boxed{7}" if i % 3 else "\\boxed{5}",
        edited="\\boxed{7}" if i % 4 else "I cannot tell.",
        verdict=(ACCEPT, REJECT, MUMBLE)[i % 3],
    )
    for task in ("maze", "jigsaw")
    for i in range(10)
]
CONCURRENCY = 4
SYSTEMS = {"direct": SystemConfig(), "oracle": SystemConfig("oracle_edit")}


class Table(FakeEndpoint):
    """Replies as the cases say; notes how often each prompt was answered."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self.replies = TableModel(CASES).replies
        self.answered: Counter[str] = Counter()
        self.delay_s = 0.0

    def step(self, request):
        self.requests.append(request)
        if request["model"] != MODEL:
            return refusal(404, "no such model")
        prompt = text_of(request)
        self.answered[prompt] += 1
        usage = {"prompt_tokens": len(prompt), "completion_tokens": 5}
        return answer(self.replies[prompt][2], usage=usage, delay_s=self.delay_s)


class Faulty(Table):
    """The first two attempts of most prompts go wrong, each in one of these ways."""

    FAULTS = (
        refusal(500),
        refusal(429, retry_after="0.2"),
        refusal(503, "overloaded"),
        answer("\\boxed{5}", delay_s=3.0),  # after the client has given up
        Step(b'{"choices": [{"message": {"content": "\\\\boxed{5}'),  # cut off
        Step(answer("\\boxed{5}").body, dies=True),
        answer(""),
        answer(None),
        Step(b"<html>bad gateway</html>"),
        Step(json.dumps({"choices": []}).encode()),
    )

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self.attempts: Counter[str] = Counter()
        self.seen: Counter[int] = Counter()

    def step(self, request):
        prompt = text_of(request)
        self.attempts[prompt] += 1
        lot = hashlib.sha256(f"{prompt}/{self.attempts[prompt]}".encode()).digest()[0]
        if self.attempts[prompt] <= 2 and lot % 4:
            fault = lot % len(self.FAULTS)
            self.seen[fault] += 1
            return self.FAULTS[fault]
        return super().step(request)


def text_of(request) -> str:
    """The text of a request's only message."""
    content = request["messages"][0]["content"]
    return content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")


def config(data: Path, out: Path, *urls: str, **model) -> EvalConfig:
    """A run of the cases against these endpoints."""
    options = {"timeout_s": 1.0, "api_key_env": "NO_SUCH_KEY"} | model
    reasoner = ModelConfig("http", MODEL, list(urls), **options)
    return EvalConfig(
        SYSTEMS,
        data=str(data),
        tasks=["maze", "jigsaw"],
        out=str(out),
        reasoner=reasoner,
        editing=EditingConfig(cache=None),
        concurrency=CONCURRENCY,
    )


def impatient(config: ModelConfig) -> ChatClient:
    """The model of `config`, which hardly waits between its attempts: a server here is back at once."""
    client = build_model(config)
    assert isinstance(client, ChatClient)
    return ChatClient(dataclasses.replace(client.settings, backoff_base_s=0.02, retry_after_max_s=0.2))


def table(options: EvalConfig):
    """Run and report: what report.json holds, without the seconds, which differ from run to run."""
    folder = evaluate(options, impatient)
    report = write_reports(folder, options, read_tasks(options))
    for cost in report["cost"].values():
        cost.pop("seconds")
    return json.loads(json.dumps(report))


def main(url: str, data: Path, out: Path, num_kills: int, seed: int) -> None:
    """Kill the run at random moments, then let it end; print how many kills hit it while it was at work."""
    tqdm.set_lock(threading.RLock())  # its own is shared with forks: one that is killed while it has it stops them all
    rng, hits = random.Random(seed), 0
    options = config(data, out, url)
    journal = out / "calls" / "calls.jsonl"
    evaluate(config(data, out.with_name("warm"), url))  # everything is loaded before the first fork
    for _ in range(num_kills):
        wanted = written(journal) + rng.randint(0, 2)  # replies after which it may be killed
        child = os.fork()
        if child == 0:
            try:
                evaluate(options)
            finally:
                os._exit(0)
        while written(journal) < wanted and os.waitpid(child, os.WNOHANG)[0] == 0:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.03))
        try:
            os.kill(child, signal.SIGKILL)
            hits += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        except (ProcessLookupError, ChildProcessError):
            pass  # it had ended
    print(json.dumps({"hits": hits, "report": table(options)}))


def written(journal: Path) -> int:
    """How many replies lie in a run's journal."""
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
