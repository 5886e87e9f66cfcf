"""Contract tests: each host loads our plugin by its own loader and scores the golden cases (`make integrations`).

They run in an environment with that host, outside `make test`. The judge is a server on this machine that says what the
case wants, so that the whole way is taken: settings file, questions, requests, verdicts.
"""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

import torchvision_operators  # noqa: F401  # before anything that imports torchvision
from golden import row_text, settings_file


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible chat server for one golden case at a time."""

    case: dict[str, Any]

    def prepared(self, case: dict[str, Any], folder: Path) -> tuple[str, str]:
        """Settings file and packed row of a case, which is served from now on."""
        self.case = case
        judge = {"endpoint": {"base_url": f"http://127.0.0.1:{self.server_port}/v1", "model": "golden", "retries": 0}}
        Image.new("RGB", (8, 8)).save(folder / "a.png")
        asks = None if case.get("judge") is None else {"model": "endpoint", **judge}
        return settings_file(folder, case, asks), row_text(case, str(folder / "a.png"))


class Replies(BaseHTTPRequestHandler):
    """The reply of the case: on consistency to a question with an image, on coherence to one without."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pictured = any(part["type"] == "image_url" for part in body["messages"][0]["content"])
        said = self.server.case["judge"]["consistency" if pictured else "coherence"]
        reply = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The judge, on a free port."""
    with Server(("127.0.0.1", 0), Replies) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()
