"""Start vLLM for an understanding model, on one GPU or several, and keep it up: what `scripts/serve_vllm.sh` calls.

Several servers on successive ports stand for data parallelism: `ChatClient` sends each call to the least loaded one,
and one that fails leaves the others at work. All are waited for; one that dies at its start ends the command with the
last lines of its log, one that dies later is started again while clients wait and retry. vLLM is never imported: it is
a program, in this environment or another one.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

from annotated_types import Ge

from etchr.checks import Count, Natural
from etchr.config import parse_command
from evaluation.benchmarks import BENCHMARKS
from evaluation.context_length import KINDS, Request, RequestConfig, longest_request

POLL_S = 0.5
STOP_S = 20.0  # that a server has to end by itself
LOG_LINES = 30  # of a dead server's log that are shown
LOG_BYTES = 64 * 1024  # that are read of its end


@dataclass
class ServerConfig(RequestConfig):
    """Options of `scripts/serve_vllm.sh`."""

    model: str = ""  # hub id or folder of the understanding model
    name: str | None = None  # under which it is served; null: as model
    host: str = "127.0.0.1"  # 0.0.0.0 to be reached from other machines; set VLLM_API_KEY then
    port: Count = 8000  # of the first server; the others take the next ones
    gpus: list[str] | None = None  # to use; null: CUDA_VISIBLE_DEVICES, or all that nvidia-smi lists
    tensor_parallel: Count = 1  # GPUs that share one server, for a model that is too large for one
    servers: Count | None = None  # null: as many as the GPUs allow, one without GPUs
    max_model_len: Count | None = None  # tokens; null: what the longest request needs
    vllm: str = "vllm"  # the program
    logs: str = "outputs/vllm"  # folder of the servers' logs
    start_timeout_s: Annotated[float, Ge(1)] = 1800.0  # until all servers answer; the first start downloads the weights
    restarts: Natural = 3  # of a server that dies
    dry_run: bool = False  # print the commands and stop

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise ValueError("no model; give its hub id or folder, such as Qwen/Qwen3-VL-8B-Instruct")


def server_command(config: ServerConfig, request: Request, port: int, extra: Sequence[str] = ()) -> list[str]:
    """The command of one server; `extra` are flags of vLLM that come last and so have the last word."""
    command = [config.vllm, "serve", config.model]
    command += ["--served-model-name", config.name or config.model]
    command += ["--host", config.host, "--port", str(port)]
    command += ["--max-model-len", str(config.max_model_len or request.max_model_len)]
    command += ["--limit-mm-per-prompt", json.dumps({"image": request.num_images, "video": 0})]
    # Without the model's own sampling defaults: what decides a reply stands in the request, and so in the records.
    command += ["--generation-config", "vllm"]
    if request.max_pixels is not None:
        command += ["--mm-processor-kwargs", json.dumps({"max_pixels": request.max_pixels})]
    if config.tensor_parallel > 1:
        command += ["--tensor-parallel-size", str(config.tensor_parallel)]
    return [*command, *extra]


def share_gpus(gpus: Sequence[str], tensor_parallel: int, servers: int | None) -> list[list[str]]:
    """The GPUs of each server, in order; without GPUs, empty lists. `ValueError` if there are too few."""
    if not gpus:
        if tensor_parallel > 1:
            raise ValueError(
                f"tensor_parallel={tensor_parallel} needs GPUs, and none were found; name them in gpus=[0,1]"
            )
        return [[] for _ in range(servers or 1)]
    possible = len(gpus) // tensor_parallel
    if possible < (servers or 1):
        raise ValueError(
            f"{servers or 1} server(s) of tensor_parallel={tensor_parallel} need {(servers or 1) * tensor_parallel} "
            f"GPUs, and there are {len(gpus)}: {', '.join(gpus)}"
        )
    groups = range(0, (servers or possible) * tensor_parallel, tensor_parallel)
    return [list(gpus[start : start + tensor_parallel]) for start in groups]


def find_gpus() -> list[str]:
    """CUDA_VISIBLE_DEVICES if it is set, else the numbers that nvidia-smi lists, else none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True).stdout.split()


def address(host: str, port: int) -> str:
    """The URL at which a server that listens on `host` is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def endpoints(config: ServerConfig, urls: Sequence[str]) -> str:
    """The options by which the project's commands reach the servers."""
    listed = ",".join(f"{url}/v1" for url in urls)
    options = {"kind": "http", "model": config.name or config.model, "base_urls": f"[{listed}]"}
    if os.environ.get("VLLM_API_KEY"):
        options["api_key_env"] = "VLLM_API_KEY"
    lines = []
    for command, role in (("evaluation, data_prep.filter_rl", "reasoner"), ("etchr.rl", "reward.reasoner")):
        lines.append(f"{command}: " + " ".join(f"{role}.{key}={value}" for key, value in options.items()))
    return "\n".join(lines)


class Server:
    """One vLLM process and all that it starts."""

    def __init__(self, command: list[str], url: str, gpus: Sequence[str], log: Path) -> None:
        self.command, self.url, self.gpus, self.log = command, url, gpus, log
        self.starts = 0
        self.healthy = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process in a session of its own, so that all of it can be ended together."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {})
        with self.log.open("ab" if self.starts else "wb") as log:
            self._process = subprocess.Popen(
                self.command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.starts, self.healthy = self.starts + 1, False
        on = f" on GPU {', '.join(self.gpus)}" if self.gpus else ""
        say(f"{self.url}{on}: process {self._process.pid}, log {self.log}")

    def exit_code(self) -> int | None:
        """The exit code of a process that has ended, else None."""
        return None if self._process is None else self._process.poll()

    def check(self) -> bool:
        """Whether the server has answered since its start; it is asked until it has."""
        self.healthy = self.healthy or answers(f"{self.url}/health")
        return self.healthy

    def terminate(self) -> None:
        """Ask the process to end."""
        if self._process is not None:
            self._signal(signal.SIGTERM)

    def end(self, patience_s: float = STOP_S) -> None:
        """Wait for the process, and kill what is left of it: children outlive a killed parent and hold its GPU."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(self._process.pid, number)

    def last_words(self) -> str:
        """The end of the log."""
        with self.log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - LOG_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with success, no proxy between."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:  # refused, reset, timed out, or an error status
        return False


def is_free(host: str, port: int) -> bool:
    """Whether a server can listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def wait_until_healthy(servers: Sequence[Server], timeout_s: float) -> None:
    """Return when all servers answer; `ValueError` if one dies, the end of its log being shown, or if time is up."""
    deadline = time.monotonic() + timeout_s
    while not all([server.check() for server in servers]):  # a list: all of them are asked
        for server in servers:
            if (code := server.exit_code()) is not None:
                say(server.last_words())
                raise ValueError(
                    f"the server of {server.url} ended with exit code {code} before it answered; "
                    f"the last lines of its log, {server.log}, are shown above"
                )
        if time.monotonic() > deadline:
            late = ", ".join(str(server.log) for server in servers if not server.healthy)
            raise ValueError(f"no answer within start_timeout_s={timeout_s:g}; see {late}, or give more time")
        time.sleep(POLL_S)


def keep_up(servers: Sequence[Server], restarts: int) -> None:
    """Start a server that dies again, `restarts` times at most; `ValueError` when none is left."""
    alive = list(servers)
    while alive:
        for server in list(alive):
            code = server.exit_code()
            if code is None:
                if not server.healthy and server.check():
                    say(f"{server.url}: answers again")
                continue
            server.end()
            if server.starts > restarts:
                say(f"{server.url}: ended with exit code {code}; given up after {server.starts} starts")
                alive.remove(server)
            else:
                say(f"{server.url}: ended with exit code {code}; it is started again")
                server.start()
        time.sleep(POLL_S)
    say(servers[-1].last_words())
    raise ValueError(f"no server is left; the last lines of {servers[-1].log} are shown above")


def serve(config: ServerConfig, extra: Sequence[str]) -> None:
    """Start the servers and stay until interrupted; `ValueError` in one sentence for what is in the way."""
    request = longest_request(config)
    gpus = find_gpus() if config.gpus is None else config.gpus
    servers = []
    for number, share in enumerate(share_gpus(gpus, config.tensor_parallel, config.servers)):
        port = config.port + number
        command = server_command(config, request, port, extra)
        servers.append(Server(command, address(config.host, port), share, Path(config.logs) / f"{port}.log"))
    say(request.describe())
    if config.dry_run:
        for server in servers:
            say(shlex.join(server.command))
        return
    if shutil.which(config.vllm) is None:
        raise ValueError(
            f"no program {config.vllm!r}: install vLLM, .venv/bin/pip install -e '.[serve]' on a machine with GPUs, "
            "or name the one of another environment with vllm=PATH/bin/vllm"
        )
    for number, server in enumerate(servers):
        if not is_free(config.host, config.port + number):
            raise ValueError(f"{server.url} is in use; give another port=, or stop what listens there")
    try:
        begin = time.monotonic()
        for server in servers:
            server.start()
        wait_until_healthy(servers, config.start_timeout_s)
        say(f"up after {time.monotonic() - begin:.0f} s; Ctrl-C stops all")
        say(endpoints(config, [server.url for server in servers]))
        keep_up(servers, config.restarts)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would leave servers behind
        for server in servers:
            server.terminate()
        for server in servers:
            server.end()


def say(text: str) -> None:
    """Print at once: what waits for the servers reads along."""
    print(text, flush=True)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Other signals end the command as Ctrl-C does, servers included."""
    raise KeyboardInterrupt


def main(argv: Sequence[str]) -> None:
    """`MODEL key=value ... [-- FLAGS OF VLLM]`; exits with one sentence if something is wrong."""
    words, extra = list(argv), []
    if "--" in words:
        words, extra = words[: words.index("--")], words[words.index("--") + 1 :]
    if words and "=" not in words[0] and not words[0].startswith("-"):
        words[0] = f"model='{words[0]}'"
    config = parse_command(
        ServerConfig,
        config_name=None,
        argv=words,
        prog="serve_vllm.sh MODEL",
        description="Serve an understanding model with vLLM, one server per GPU, and print the options that reach it.\n"
        "Flags of vLLM's own come last: serve_vllm.sh MODEL key=value ... -- --quantization fp8\n"
        f"Benchmarks: {', '.join(BENCHMARKS)}, and the procedural tasks.\nKinds of system: {', '.join(KINDS)}.",
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, interrupt)
    try:
        serve(config, extra)
    except ValueError as error:
        raise SystemExit(f"serve_vllm.sh: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("stopped") from None


if __name__ == "__main__":
    main(sys.argv[1:])
