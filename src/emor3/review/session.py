"""One reviewer's session: from a request to a page, a picture or a saved mark. No socket here (`server`)."""

import io
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from statistics import median
from urllib.parse import parse_qs, urlsplit

from emor3.errors import UserError
from emor3.review.access import Access
from emor3.review.draw import Drawn
from emor3.review.marks import Mark, append_mark, fingerprint, marks_file
from emor3.review.page import SMALL, asset, completion_page, message_page
from emor3.storage.images import open_image

LONGEST_FORM = 4096
"""Bytes of a form; a mark takes about a hundred."""
LARGEST_SIDE = 1600
"""Pixels of a picture's longer side as it is sent."""
ENOUGH = 3
"""Marks after which the time that is left is told."""
YES_NO: Mapping[str, bool] = {"yes": True, "no": False}
ASSETS = {"/style.css": "text/css", "/script.js": "text/javascript"}


@dataclass(frozen=True)
class Request:
    """What a browser asks for."""

    method: str
    path: str
    """With its query."""
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """What it gets."""

    status: int
    body: bytes = b""
    kind: str = "text/html"
    headers: Mapping[str, str] = field(default_factory=dict)


class Session:
    """The completions of one draw, one reviewer's marks on them, and what each request does."""

    def __init__(
        self, drawn: Sequence[Drawn], marks: Mapping[int, Mark], reviewer: str, seed: int, access: Access
    ) -> None:
        self.drawn, self.marks, self.access = drawn, dict(marks), access
        self._reviewer, self._seed = reviewer, seed
        self._shown: dict[int, float] = {}
        self._seconds: list[float] = []
        self._lock = threading.Lock()
        """Requests come in threads of their own."""

    def respond(self, request: Request) -> Response:
        """The answer to a request; one that may not be is refused with the reason."""
        if reason := self.access.refusal(request.headers):
            return _refused(reason)
        address = urlsplit(request.path)
        if request.method == "GET" and address.path == "/" and address.query:
            return self._let_in(parse_qs(address.query).get("token", [""])[0])
        if not self.access.holds(request.headers):
            return _refused("open the address that emor3 review printed when it was started last")
        if request.method == "POST":
            return self._save(address.path, request.body)
        return self._show(address.path)

    def _let_in(self, token: str) -> Response:
        """Swap the token of the printed address for a cookie; pages elsewhere can make no form carry that (Lax)."""
        if not self.access.is_token(token):
            return _refused("this address is of another session: open the one that emor3 review printed last")
        cookie = f"{self.access.cookie}={self.access.token}; HttpOnly; SameSite=Lax; Path=/"
        return Response(303, headers={"Location": "/", "Set-Cookie": cookie})

    def _show(self, path: str) -> Response:
        if path in ASSETS:
            return Response(200, asset(path[1:]).encode(), ASSETS[path])
        match path.split("/")[1:]:
            case [""]:
                return self._next(-1)
            case ["item", place] if (number := self._place(place)) is not None:
                return self._completion(number)
            case ["image", place, which] if (number := self._place(place)) is not None:
                return _image(self.drawn[number].prediction.sample.images, which)
        return _message(404, "There is nothing here", "This page does not exist.", ("/", "Go on marking"))

    def _place(self, text: str) -> int | None:
        """Place of a completion in the draw, from an address; None if there is none."""
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
        return number if 0 <= number < len(self.drawn) else None

    def _next(self, place: int) -> Response:
        """On to the first completion after a place that is not marked, or to the end."""
        following = self._unmarked_after(place)
        if following is not None:
            return Response(303, headers={"Location": f"/item/{following}"})
        done = f"All {len(self.drawn)} completions are marked, and every mark is saved. You can close this page."
        return _message(200, "Thank you", done, (f"/item/{len(self.drawn) - 1}", "Look at the last one again"))

    def _unmarked_after(self, place: int) -> int | None:
        """The next place without a mark, past the end from the start on."""
        total = len(self.drawn)
        around = ((place + step) % total for step in range(1, total + 1))
        return next((other for other in around if other not in self.marks), None)

    def _completion(self, place: int) -> Response:
        with self._lock:
            self._shown[place] = time.monotonic()
            skip = self._unmarked_after(place)
            page = completion_page(
                place,
                self.drawn[place],
                self.marks.get(place),
                self.access.token,
                done=len(self.marks),
                total=len(self.drawn),
                minutes=self._minutes_left(),
                back=place - 1 if place > 0 else None,
                skip=skip if skip != place else None,
            )
        return Response(200, page.encode(errors="replace"))

    def _minutes_left(self) -> int | None:
        """By the median time of this session's marks; None before there are some."""
        if len(self._seconds) < ENOUGH:
            return None
        return round(median(self._seconds) * (len(self.drawn) - len(self.marks)) / 60)

    def _save(self, path: str, body: bytes) -> Response:
        place = self._place(path.removeprefix("/mark/")) if path.startswith("/mark/") else None
        if place is None:
            return _message(404, "There is nothing here", "This page does not exist.", ("/", "Go on marking"))
        form = {name: values[0] for name, values in parse_qs(body.decode("ascii", "replace")).items()}
        if not self.access.is_token(form.get("token", "")):
            return _refused("the form is of another session: open the address that emor3 review printed last")
        with self._lock:
            mark = self._mark(place, form)
            if mark is None:
                return _message(400, "Not saved", "Some question has no answer.", (f"/item/{place}", "Answer it"))
            try:
                append_mark(marks_file(self.drawn[place].evaluation.folder, self._reviewer), mark)
            except UserError as error:
                return _message(500, "Not saved", str(error), (f"/item/{place}", "Try it again"))
            self.marks[place] = mark
            self._seconds.append(mark.seconds)
        return self._next(place)

    def _mark(self, place: int, form: Mapping[str, str]) -> Mark | None:
        """The mark that a form holds; None if it lacks an answer, or has one that is no choice."""
        drawn = self.drawn[place]
        labels = drawn.prediction.sample.labels.labels
        emotions = {"none": None, **{str(number): label for number, label in enumerate(labels)}}
        has_step_3 = drawn.prediction.thought.conclusion is not None
        if (
            form.get("emotion") not in emotions
            or form.get("describes") not in YES_NO
            or (form.get("follows") in YES_NO) != has_step_3
        ):
            return None
        return Mark(
            data=drawn.data,
            id=drawn.prediction.sample.id,
            completion=fingerprint(drawn.prediction),
            reviewer=self._reviewer,
            emotion=emotions[form["emotion"]],
            describes=YES_NO[form["describes"]],
            follows=YES_NO[form["follows"]] if has_step_3 else None,
            seed=self._seed,
            seconds=round(time.monotonic() - self._shown.get(place, time.monotonic()), 1),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _image(paths: Sequence[str], which: str) -> Response:
    """A picture of one row, decoded and written anew, so that no other file can be read through this address."""
    if not (which.isascii() and which.isdecimal() and len(which) < 10 and int(which) < len(paths)):
        return _message(404, "There is nothing here", "This row has no such picture.")
    try:
        return Response(200, *_picture(paths[int(which)]))
    except UserError as error:
        return _message(404, "There is nothing here", str(error))


@lru_cache(maxsize=32)
def _picture(path: str) -> tuple[bytes, str]:
    """Content and kind of a picture as it is sent."""
    picture = open_image(path, at_least=LARGEST_SIDE)
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    form, content = "PNG" if max(picture.size) <= SMALL else "JPEG", io.BytesIO()
    picture.save(content, form, quality=90)
    return content.getvalue(), f"image/{form.lower()}"


def _refused(reason: str) -> Response:
    return _message(403, "Refused", f"{reason[0].upper()}{reason[1:]}.")


def _message(status: int, heading: str, text: str, way: tuple[str, str] | None = None) -> Response:
    return Response(status, message_page(heading, text, way).encode(errors="replace"))
