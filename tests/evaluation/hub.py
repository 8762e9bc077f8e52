"""A data set hub on this machine that speaks the protocol of huggingface.co, as far as downloads go."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "beef"


class Hub:
    """Data sets by name, each with files by path; remembers what was fetched."""

    def __init__(self, datasets: dict[str, dict[str, bytes]]) -> None:
        self.datasets = datasets
        self.fetched: list[str] = []
        self.gated: set[str] = set()
        self.cut: set[str] = set()  # files of which half arrives

        class Handler(BaseHTTPRequestHandler):
            hub = self

            def log_message(self, *_) -> None:
                pass

            def do_HEAD(self) -> None:
                self.hub.answer(self, body=False)

            def do_GET(self) -> None:
                self.hub.answer(self, body=True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(urlsplit(request.path).path).strip("/")
        name = next((name for name in self.datasets if f"datasets/{name}/" in f"{path}/"), None)
        if name is None:
            return self._send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        files, rest = self.datasets[name], f"{path}/".partition(f"datasets/{name}/")[2].strip("/")
        if rest.startswith("resolve/"):
            if name in self.gated:
                return self._send(request, 403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
            return self._file(request, rest.split("/", 2)[2], files, body)
        if rest.startswith("tree/"):
            entries = [
                {"type": "file", "path": file, "size": len(data), "oid": _oid(data)} for file, data in files.items()
            ]
            return self._send(request, 200, json.dumps(entries).encode(), {}, body)
        siblings = [{"rfilename": file, "size": len(data)} for file, data in files.items()]
        info = {
            "id": name,
            "sha": COMMIT,
            "siblings": siblings,
            "private": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
        }
        return self._send(request, 200, json.dumps(info).encode(), {}, body)

    def _file(self, request: BaseHTTPRequestHandler, file: str, files: dict[str, bytes], body: bool) -> None:
        if file not in files:
            return self._send(request, 404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        data = files[file]
        if body:
            self.fetched.append(file)
            if file in self.cut:
                request.send_response(200)
                request.send_header("Content-Length", str(len(data)))
                request.send_header("ETag", f'"{_oid(data)}"')
                request.end_headers()
                request.wfile.write(data[: len(data) // 2])
                return None
        return self._send(request, 200, data, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": COMMIT}, body)

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str], body: bool
    ) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if body:
            request.wfile.write(data)


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
