"""Evaluations to be reviewed, with real pictures, and a session or a running server for them."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from emor3.method.types import Prediction
from emor3.review.access import Access
from emor3.review.draw import draw
from emor3.review.server import Server, review_server
from emor3.review.session import Request, Response, Session
from emor3.runs.predictions import read_evaluation
from made_up import prediction, save_evaluation

TOKEN = "secret"


def pictured(folder: Path, number: int, **fields: Any) -> list[Prediction]:
    """Predictions whose pictures are there, each in a colour of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [prediction("joy", "joy", id=str(folder / f"picture{place}"), **fields) for place in range(number)]
    for place, one in enumerate(made):
        Image.new("RGB", (120, 80), (20 * place, 90, 90)).save(one.sample.image)
    return made


def save_pictured(folder: Path, number: int = 3, **head: Any) -> Path:
    """An evaluation of a few predictions whose pictures are there."""
    return save_evaluation(folder / "evaluation", {"d": pictured(folder, number)}, **head)


def session_of(folder: Path, reviewer: str = "anna", host: str = "127.0.0.1") -> Session:
    """A new session on one evaluation."""
    return Session(draw([read_evaluation(folder)], 100, 0), {}, reviewer, 0, Access(host, 8765, TOKEN))


def ask(session: Session, path: str, form: str | None = None, **headers: str) -> Response:
    """What a browser that was let in gets; `Name=""` leaves a header out."""
    sent = {"Host": "127.0.0.1:8765", "Cookie": f"{session.access.cookie}={TOKEN}", **headers}
    method = "GET" if form is None else "POST"
    kept = {name: value for name, value in sent.items() if value}
    return session.respond(Request(method, path, kept, (form or "").encode()))


@contextmanager
def serving(paths: Sequence[Path], reviewer: str = "anna") -> Iterator[Server]:
    """A server in a thread of its own."""
    with review_server(paths, 100, 0, reviewer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
