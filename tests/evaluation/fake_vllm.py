#!/usr/bin/env python3
"""A program with vLLM's command line that serves nothing but /health, and can be told to fail.

The model's name says how: `dies` never answers, `late` takes a while, `stubborn` ends only when it is killed. Every
server leaves a child behind when it is killed, as vLLM does; its standard output says what it was started with.
"""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


def main() -> None:
    assert sys.argv[1] == "serve"
    model, port = sys.argv[2], int(sys.argv[sys.argv.index("--port") + 1])
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    about = {"argv": sys.argv[1:], "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "child": child.pid}
    print(json.dumps(about), flush=True)
    if "dies" in model:
        print("CUDA out of memory, says the last line", flush=True)
        sys.exit(3)
    if "late" in model:
        time.sleep(1.5)
    if "stubborn" in model:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    HTTPServer(("127.0.0.1", port), Health).serve_forever()


if __name__ == "__main__":
    main()
