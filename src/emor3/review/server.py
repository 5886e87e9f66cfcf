"""`emor3 review`: the server behind the page, on this machine alone unless another address is asked for."""

import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from emor3.errors import UserError
from emor3.review.access import Access
from emor3.review.draw import draw
from emor3.review.marks import marks_file, read_marks
from emor3.review.session import LONGEST_FORM, Request, Response, Session
from emor3.runs.predictions import read_evaluation
from emor3.storage.locks import name_held

PATIENCE = 10.0
"""Seconds that a browser may take to send a request."""
EVERYWHERE = ("0.0.0.0", "::", "")
"""All addresses of this machine."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # with none, browsers hide the origin of forms, which is checked
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    """A server of one session."""

    daemon_threads = True
    session: Session

    def __init__(self, host: str, port: int) -> None:
        """Raises UserError if the address cannot be listened on."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise UserError(
                f"cannot listen on {host}, port {port} ({error.strerror or error}): choose another one by --port, or "
                "0 for any that is free"
            ) from None

    @property
    def address(self) -> str:
        """What a person opens, with the token that lets in."""
        access = self.session.access
        name = socket.gethostname() if access.host in EVERYWHERE else access.host
        return f"http://{f'[{name}]' if ':' in name else name}:{access.port}/?token={access.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no error; what is one is told as always."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Reads a request, within limits, and writes the session's answer."""

    server: Server
    timeout = PATIENCE

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            self.send_error(411)
        elif len(length) > 9 or int(length) > LONGEST_FORM:
            self.send_error(413)
        else:
            self._answer(self.rfile.read(int(length)))

    def _answer(self, body: bytes) -> None:
        headers = {name.title(): value for name, value in self.headers.items()}
        self._write(self.server.session.respond(Request(self.command, self.path, headers, body)))

    def _write(self, answer: Response) -> None:
        self.send_response_only(answer.status)
        kind = answer.kind if answer.kind.startswith("image/") else f"{answer.kind}; charset=utf-8"
        own = {"Content-Type": kind, "Content-Length": str(len(answer.body)), **HEADERS, **answer.headers}
        for name, value in own.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing of single requests."""


@contextmanager
def review_server(
    paths: Sequence[Path], number: int, seed: int, reviewer: str, host: str, port: int
) -> Iterator[Server]:
    """A server that is ready to serve, while no other process writes this reviewer's marks.

    Raises UserError if an evaluation cannot be read, nothing can be marked, the reviewer is marking already, or the
    address cannot be listened on.
    """
    read = (read_evaluation(path.resolve()) for path in paths)
    evaluations = {evaluation.folder: evaluation for evaluation in read}
    drawn = draw([*evaluations.values()], number, seed)
    with ExitStack() as stack:
        for folder in evaluations:
            stack.enter_context(name_held(marks_file(folder, reviewer)))
        server = stack.enter_context(Server(host, port))
        earlier = {folder: read_marks(one).by_reviewer.get(reviewer, {}) for folder, one in evaluations.items()}
        found = {
            place: mark
            for place, one in enumerate(drawn)
            if (mark := earlier[one.evaluation.folder].get((one.data, one.prediction.sample.id)))
        }
        access = Access(host, int(server.server_address[1]), token_urlsafe(24))
        server.session = Session(drawn, found, reviewer, seed, access)
        yield server
