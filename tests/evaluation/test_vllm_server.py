"""Starting servers, waiting for them, keeping them up and stopping them, with a stand-in for vLLM's program."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from evaluation.vllm_server import find_gpus, main, share_gpus

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).parent / "fake_vllm.py"
PATIENCE_S = 60


class Said:
    """What a command has said of the servers that it started, and what they have logged."""

    said: str

    def __init__(self, folder: Path) -> None:
        self.logs, self.port = folder / "logs", free_port()

    def started(self, number: int = 0) -> list[dict]:
        """What each start of a server says of itself."""
        log = (self.logs / f"{self.port + number}.log").read_text()
        return [json.loads(line) for line in log.splitlines() if line.startswith("{")]

    def processes(self) -> list[int]:
        """The servers' own processes, in the order of their starts."""
        lines = [line for line in self.said.splitlines() if ": process " in line]
        return [int(line.split(": process ")[1].split(",")[0]) for line in lines]


class Launch(Said):
    """A running `python -m evaluation.vllm_server`, and what it has said so far."""

    def __init__(self, folder: Path, model: str, *words: str, before: Sequence[str] = (), **variables: str) -> None:
        super().__init__(folder)
        self._output = (folder / "said").open("w+")
        command = [*before, sys.executable, "-m", "evaluation.vllm_server", model, *options(folder, self.port), *words]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""} | variables
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=self._output, stderr=self._output)

    @property
    def said(self) -> str:
        return Path(self._output.name).read_text()

    def wait_for(self, words: str, times: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.said.count(words) < times:
            assert time.monotonic() < deadline, self.said
            assert self.process.poll() is None or self.said.count(words) >= times, self.said
            time.sleep(0.02)

    def ended(self) -> int:
        return self.process.wait(PATIENCE_S)


def options(folder: Path, port: int) -> list[str]:
    """A program that stands in for vLLM, a folder for its logs and a port."""
    program = folder / "vllm"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{FAKE}' \"$@\"\n")
    program.chmod(0o755)
    return [f"vllm={program}", f"logs={folder / 'logs'}", f"port={port}"]


def free_port() -> int:
    """A port with two free ones after it."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        try:
            for number in (port + 1, port + 2):
                socket.create_server(("127.0.0.1", number)).close()
        except OSError:
            continue
        return port


def is_alive(process: int) -> bool:
    try:
        return "Z (" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def gone(processes) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while any(map(is_alive, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def launch(tmp_path):
    """`with launch(model, option, ...) as running`; all of it is stopped afterwards."""
    folders = map(tmp_path.joinpath, map(str, count()))

    @contextmanager
    def start(model, *words, **variables):
        folder = next(folders)
        folder.mkdir()
        running = Launch(folder, model, *words, **variables)
        try:
            yield running
        finally:
            running.process.terminate()
            running.ended()

    return start


@pytest.fixture
def here(tmp_path, capsys, monkeypatch):
    """`here(words)` runs a command that ends by itself in this process: what it said, and why it exited if it did."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def run(words, has_program=True):
        ran, code = Said(tmp_path), None
        try:
            main([*words[:1], *options(tmp_path, ran.port), *words[1:]] if has_program else words)
        except SystemExit as stop:
            code = stop.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        ran.said, errors = capsys.readouterr()
        return ran, code if isinstance(code, str) else errors  # a text is printed, and the exit status is 1

    return run


# ----------------------------------------------------------------------------------------------- start and stop


def test_two_servers_share_the_gpus_and_are_reached_by_the_options_printed(launch):
    words = ["gpus=[4,5,6,7]", "tensor_parallel=2", "benchmarks=[hrbench_8k]", "systems=[evr,crop]", "name=m"]
    words += ["--", "--quantization", "fp8"]
    with launch("org/late-model", *words, VLLM_API_KEY="very-secret") as running:
        running.wait_for("etchr.rl: ")
        urls = ",".join(f"http://127.0.0.1:{running.port + number}/v1" for number in (0, 1))
        for role in ("reasoner", "reward.reasoner"):
            assert f"{role}.kind=http {role}.model=m {role}.base_urls=[{urls}]" in running.said
        assert running.said.count("api_key_env=VLLM_API_KEY") == 2  # the key is named and not shown
        assert "very-secret" not in running.said
        for number, gpus in enumerate(("4,5", "6,7")):
            [about] = running.started(number)
            assert about["gpus"] == gpus
            assert "very-secret" not in (running.logs / f"{running.port + number}.log").read_text()
            argv = about["argv"]
            flags = dict(zip(argv[2::2], argv[3::2], strict=True))
            assert argv[:2] == ["serve", "org/late-model"]
            assert flags["--port"] == str(running.port + number)
            assert int(flags["--max-model-len"]) >= 32400 + 1024 + 1024 + 4096  # 8K source, edit, crop and reply
            assert json.loads(flags["--limit-mm-per-prompt"]) == {"image": 3, "video": 0}
            assert json.loads(flags["--mm-processor-kwargs"]) == {"max_pixels": 7680 * 4320}
            assert (flags["--tensor-parallel-size"], flags["--quantization"]) == ("2", "fp8")
            assert (flags["--served-model-name"], flags["--generation-config"]) == ("m", "vllm")


def test_an_interrupt_stops_all_servers_and_their_children(launch):
    for number in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]:
        with launch("model", "servers=2") as running:
            running.wait_for("up after")
            everybody = [*running.processes(), *(running.started(n)[0]["child"] for n in (0, 1))]
            assert all(map(is_alive, everybody)), number
            running.process.send_signal(number)
            assert running.ended() == 1, number
            assert running.said.endswith("stopped\n"), number
            assert gone(everybody), number

    with launch("late-model") as running:  # while it waits for what it started
        running.wait_for(": process ")
        running.process.send_signal(signal.SIGINT)
        assert running.ended() == 1
        assert gone(running.processes())


def test_under_nohup_the_end_of_the_terminal_stops_nothing_and_who_dies_again_and_again_is_given_up(launch):
    with launch("model", "restarts=1", before=["nohup"]) as running:
        running.wait_for("up after")
        running.process.send_signal(signal.SIGHUP)
        os.kill(running.processes()[0], signal.SIGKILL)
        running.wait_for("answers again")
        os.kill(running.processes()[1], signal.SIGKILL)
        assert running.ended() == 1
        assert "given up after 2 starts" in running.said
        assert "no server is left" in running.said


# --------------------------------------------------------------------------------------------------------- deaths


def test_a_server_that_dies_at_its_start_or_does_not_answer_stops_all(here):
    ran, sentence = here(["dies", "servers=2"])
    assert "CUDA out of memory, says the last line" in ran.said
    assert sentence.startswith("serve_vllm.sh: the server of http://127.0.0.1:")
    assert "ended with exit code 3 before it answered" in sentence
    assert gone([*ran.processes(), *(ran.started(n)[0]["child"] for n in (0, 1))])

    _, sentence = here(["late-model", "start_timeout_s=1"])
    assert sentence.startswith("serve_vllm.sh: no answer within start_timeout_s=1; see ")


def test_a_killed_server_is_started_again_alone_and_what_it_left_is_removed(launch):
    with launch("model", "servers=2") as running:
        running.wait_for("up after")
        first, other = running.processes()
        os.kill(first, signal.SIGKILL)
        running.wait_for("answers again")
        assert f"http://127.0.0.1:{running.port}: ended with exit code -9; it is started again" in running.said
        assert len(running.processes()) == 3
        before, after = running.started()
        assert before["argv"] == after["argv"]
        assert gone([before["child"]])
        assert is_alive(other)


# ------------------------------------------------------------------------------------------------------- mistakes


def test_a_mistake_is_one_sentence(here):
    for words, sentence in [
        (["m", "vllm=nowhere/vllm"], "no program 'nowhere/vllm': install vLLM"),
        (["m", "systems=[evrr]"], "no kind of system 'evrr'; there are: direct,"),
        (["m", "benchmarks=[hrbench]"], "no benchmark 'hrbench'; there are: "),
        (["m", "gpus=[0,1]", "tensor_parallel=4"], "1 server(s) of tensor_parallel=4 need 4 GPUs, and there are 2"),
        (["m", "gpus=[]", "tensor_parallel=2"], "tensor_parallel=2 needs GPUs, and none were found"),
        (["m", "servers=0"], "servers=0 must be at least 1"),
        (["systems=[evr]"], "no model; give its hub id or folder"),
        ([], "no model; give its hub id or folder"),
        (["m", "portt=1"], "no option 'portt' (did you mean 'port'?)"),
    ]:
        _, said = here(words, has_program=False)
        assert said.startswith("serve_vllm.sh"), words
        assert sentence in said, words


def test_a_taken_port_is_named_and_a_dry_run_prints_the_commands_and_nothing_is_started(here):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran, sentence = here(["model", f"port={port}"])
    assert sentence.startswith(f"serve_vllm.sh: http://127.0.0.1:{port} is in use")
    assert ran.processes() == []

    ran, sentence = here(["model", "servers=2", "images=[640x480]", "dry_run=true"])
    assert sentence == ""
    assert ran.said.count(" serve model --served-model-name model ") == 2
    assert ran.processes() == []


# ----------------------------------------------------------------------------------------------------------- GPUs


def test_gpus_are_shared_out_in_order(tmp_path, monkeypatch):
    for gpus, tensor_parallel, servers, shares in [
        ("", 1, None, [[]]),
        ("", 1, 2, [[], []]),
        ("0123", 1, None, [["0"], ["1"], ["2"], ["3"]]),
        ("0123", 2, None, [["0", "1"], ["2", "3"]]),
        ("0123", 2, 1, [["0", "1"]]),
        ("01234", 2, None, [["0", "1"], ["2", "3"]]),
    ]:
        assert share_gpus(list(gpus), tensor_parallel, servers) == shares, (gpus, tensor_parallel, servers)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8a6f")
    assert find_gpus() == ["2", "GPU-8a6f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert find_gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 0\necho 1\n")
    program.chmod(0o755)
    assert find_gpus() == ["0", "1"]
