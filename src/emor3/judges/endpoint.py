"""A judge on an OpenAI-compatible chat server: concurrent requests, retries, a cache, and a limit on failures.

A question that gets no reply is answered by a Reply with an error, which no reward counts against the policy.
"""

import asyncio
import hashlib
import json
import math
import os
import random
import re
import sqlite3
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from emor3.errors import UserError
from emor3.judges.settings import KEY_VARIABLE, EndpointBlock
from emor3.method.types import Question, Reply
from emor3.printing import say
from emor3.storage.images import data_uri, open_image

RETRIED = frozenset({408, 409, 425, 429, *range(500, 600)})
LONGEST_WAIT = 60.0
"""Seconds; a server that asks for more than this, or than `timeout`, in Retry-After waits this long only."""
MOST_BYTES = 4_000_000
"""A reply of a few tokens is far smaller."""
MOST_SHOWN = 300
"""Characters of a refusal that are quoted."""
ROUNDING = 1e-3
"""A log-probability this far above 0 is a rounded one of certainty; one further is none."""
CACHE = "replies.sqlite"
WINDOW = 100
"""The share of errors is that among so many questions in a row, so that small batches do not stop a run."""


Answer = TypeVar("Answer")


class NoReplyError(Exception):
    """One try brought no reply. `again`: whether another may; `wait`: the seconds that the server asked to wait."""

    def __init__(self, reason: str, *, again: bool, wait: float | None = None) -> None:
        super().__init__(reason)
        self.again = again
        self.wait = wait


class EndpointJudge:
    """Asks `POST {base_url}/chat/completions`, greedily; reads candidate probabilities if the server gives them."""

    def __init__(self, settings: EndpointBlock, key: str | None = None) -> None:
        """Raises UserError if the key would cross a network in the clear, or the cache cannot be opened.

        And for a key that no header can hold.
        """
        if key and not (key.isascii() and key.isprintable()):
            raise UserError(f"{KEY_VARIABLE} holds a character that no key has, such as a line break: set it again")
        url = urlsplit(settings.base_url)
        local = _is_loopback(url.hostname or "")
        if key and url.scheme == "http" and not local:
            raise UserError(
                f"judge.endpoint.base_url {settings.base_url} would send the key of {KEY_VARIABLE} unencrypted: "
                "use https or a tunnel to localhost, or unset the key"
            )
        self.settings = settings
        self._key = _spellings(key) if key else None
        self._cache = _open_cache(settings.cache)
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._stop = Event()
        self._lock = Lock()
        self._jitter = random.Random()  # its own: the global one belongs to the run, which must repeat
        self._requests = _Requests()
        self._told_until = 0.0
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else None,
            timeout=None,  # what httpx times is each read, and a byte now and then is enough for it
            limits=httpx2.Limits(max_connections=settings.concurrency),
            trust_env=not local,  # a proxy must not see what is meant for this machine
        )

    @classmethod
    def from_settings(cls, settings: EndpointBlock) -> "EndpointJudge":
        """The judge of a recipe, with the key of the environment, if any. Raises UserError as the constructor."""
        return cls(settings, os.environ.get(KEY_VARIABLE, "").strip() or None)

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply per question, in order; a reply with an error if the server gave none.

        Raises UserError once errors pass their share. The replies so far stay in the cache.
        """
        digests = {image: _digest(image) for image in {path for question in questions for path in question.images}}
        keys = [self._cache_key(question, digests) for question in questions]
        replies = {key: reply for key in set(keys) if (reply := self._recall(key)) is not None}
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in replies}
        images = {path for question in missing.values() for path in question.images}
        self._stop.clear()
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            try:
                urls = dict(zip(images, pool.map(self._data_url, images), strict=True))
                futures = {pool.submit(self._ask, question, urls): key for key, question in missing.items()}
                for future in as_completed(futures):
                    reply = replies[futures[future]] = future.result()
                    self._keep(futures[future], reply)
            finally:  # however it ends, by a signal too, the threads stop; if all is answered there is nothing to stop
                self._stop.set()
                self._requests.cancel()
                pool.shutdown(wait=False, cancel_futures=True)
        return [replies[key] for key in keys]

    def _ask(self, question: Question, urls: Mapping[str, str]) -> Reply:
        """The server's reply after as many tries as it takes, or one with the last try's error.

        The waits that a server asks for are part of the time of all tries.
        """
        deadline = time.monotonic() + self.settings.timeout * (self.settings.retries + 1)
        for retry in range(self.settings.retries + 1):
            try:
                return self._try_once(question, urls, min(self.settings.timeout, deadline - time.monotonic()))
            except NoReplyError as failed:
                error, asked = str(failed), failed.wait
                if not failed.again:
                    break
            if asked is None:
                wait = min(2.0**retry, LONGEST_WAIT) * self._jitter.uniform(0.5, 1)
                deadline += wait
            else:
                wait = self._bound(asked)
            if retry == self.settings.retries or time.monotonic() + wait > deadline or self._stop.wait(wait):
                break
        return Reply("", error=error)

    def _bound(self, asked: float) -> float:
        """Seconds to wait when a server asks for some; printed, unless other questions are waiting already."""
        wait = min(asked, LONGEST_WAIT, self.settings.timeout)
        with self._lock:
            known, self._told_until = time.monotonic() < self._told_until, time.monotonic() + wait
        if wait and not known:
            say(f"the judge at {self.settings.base_url} asks to wait {asked:g} s: waiting {wait:g} s", error=True)
        return wait

    def _try_once(self, question: Question, urls: Mapping[str, str], seconds: float) -> Reply:
        try:
            status, headers, content = self._requests.run(self._exchange(self._request(question, urls), seconds))
        except TimeoutError:
            raise NoReplyError(f"no whole reply within {self.settings.timeout:g} seconds", again=True) from None
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise NoReplyError(self._masked(f"{type(error).__name__}: {error}"), again=True) from None
        text = self._masked(content.decode("utf-8-sig", "backslashreplace"))  # broken bytes make no JSON
        if status != 200:
            raise NoReplyError(
                f"HTTP {status}: {' '.join(text.split())[:MOST_SHOWN]}",
                again=status in RETRIED,
                wait=_seconds(headers.get("Retry-After")),
            )
        return _reply(question, text)

    async def _exchange(self, body: Mapping[str, Any], seconds: float) -> tuple[int, httpx2.Headers, bytes]:
        """Status, headers and body, all within the time of one try, however slowly any of them come."""
        if self._stop.is_set():  # this one began between the stop and the end of those under way
            raise NoReplyError("stopped", again=False)
        url = f"{self.settings.base_url}/chat/completions"
        async with asyncio.timeout(seconds), self._client.stream("POST", url, json=body) as response:
            content = b""
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MOST_BYTES:
                    raise NoReplyError(f"a reply of more than {MOST_BYTES:,} bytes", again=False)
        return response.status_code, response.headers, content

    def _masked(self, text: str) -> str:
        """What came from the server without the key, which a server may quote from our own headers."""
        return self._key.sub("[key]", text) if self._key else text

    def _request(self, question: Question, urls: Mapping[str, str]) -> dict[str, Any]:
        pictures = [{"type": "image_url", "image_url": {"url": urls[path]}} for path in question.images]
        content: list[dict[str, Any]] = [*pictures, {"type": "text", "text": question.text}]
        body = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.settings.max_tokens,
        }
        wanted = self.settings.top_logprobs
        return {**body, "logprobs": True, "top_logprobs": wanted} if wanted else body

    def _data_url(self, path: str) -> str:
        """The picture as a PNG inside a URL, scaled down to `max_pixels`."""
        picture = open_image(path)
        scale = math.sqrt(self.settings.max_pixels / (picture.width * picture.height))
        if scale < 1:
            picture = picture.resize((max(1, int(picture.width * scale)), max(1, int(picture.height * scale))))
        return data_uri(picture, "PNG")

    def _cache_key(self, question: Question, digests: Mapping[str, str]) -> str:
        """Digest of all that a reply depends on."""
        chosen = self.settings.model_dump(include={"base_url", "model", "max_tokens", "top_logprobs", "max_pixels"})
        images: list[str | None] = [digests[path] for path in question.images]
        parts = [chosen, question.text, question.candidates, *(images or [None])]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _recall(self, key: str) -> Reply | None:
        with _usable(self.settings.cache):
            row = self._cache.execute("SELECT text, probabilities FROM replies WHERE key = ?", (key,)).fetchone()
            return None if row is None else Reply(row[0], json.loads(row[1]))

    def _keep(self, key: str, reply: Reply) -> None:
        """Cache a reply or count an error. Raises UserError once errors pass their share."""
        self._recent.append(reply.error is not None)
        if reply.error is None:
            row = (key, reply.text, json.dumps(reply.probabilities))
            with _usable(self.settings.cache):
                self._cache.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", row)
        elif (errors := sum(self._recent)) > self.settings.max_error_share * WINDOW:
            raise UserError(
                f"the judge at {self.settings.base_url} failed on {errors} of the last {len(self._recent)} questions "
                f"(judge.endpoint.max_error_share is {self.settings.max_error_share:g}): fix the server, then rerun "
                f"with --resume; the last error: {reply.error}"
            )


class _Requests:
    """A thread in which requests of all threads run, since only there one deadline ends a whole request."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = Lock()

    def run(self, request: Coroutine[Any, Any, Answer]) -> Answer:
        """What a request returns or raises."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                Thread(target=self._loop.run_forever, daemon=True).start()
        return asyncio.run_coroutine_threadsafe(request, self._loop).result()

    def cancel(self) -> None:
        """End the requests under way, so that the threads that wait for them continue."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(_cancel_all, self._loop)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def _spellings(key: str) -> re.Pattern[str]:
    """The key as it is, or with characters escaped as JSON and web addresses may have them."""
    ways = (rf"(?:{re.escape(c)}|\\{re.escape(c)}|(?i:\\u{ord(c):04x}|%{ord(c):02x}))" for c in key)
    return re.compile("".join(ways))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _open_cache(folder: str | None) -> sqlite3.Connection:
    """The table of replies, which several processes may share; in memory without a folder."""
    with _usable(folder):
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
        path = ":memory:" if folder is None else Path(folder) / CACHE
        cache = sqlite3.connect(path, timeout=60, isolation_level=None)
        cache.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, text TEXT, probabilities TEXT)")
    return cache


@contextmanager
def _usable(folder: str | None) -> Iterator[None]:
    """Raise UserError if the cache is damaged, its disk is full or it cannot be written."""
    try:
        yield
    except (OSError, ValueError, sqlite3.Error) as error:
        path = Path(folder or ".") / CACHE
        raise UserError(f"judge.endpoint.cache: cannot use {path} ({error}): name a folder to write to") from None


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"image {path} cannot be read ({error.strerror}): check its path") from None


def _seconds(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; None if it says nothing of use."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _reply(question: Question, content: str) -> Reply:
    """The reply in a chat completion. Raises NoReplyError if there is none."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise NoReplyError("the reply is not JSON", again=True) from None
    try:
        choice = body["choices"][0]
        text = choice["message"]["content"]
        first = choice["logprobs"]["content"][0]["top_logprobs"] if choice.get("logprobs") else []
        logarithms = {str(entry["token"]): 0.0 + entry["logprob"] for entry in first}
    except (AttributeError, KeyError, IndexError, TypeError, OverflowError):
        raise NoReplyError("the reply is not a chat completion", again=False) from None
    if not isinstance(text, str):
        raise NoReplyError("the reply has no text", again=False)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise NoReplyError("the reply's text is broken: half a character", again=False)
    if not all(-math.inf < logarithm < ROUNDING for logarithm in logarithms.values()):  # NaN is neither
        raise NoReplyError("the reply has log-probabilities that are none", again=False)
    shares = {token: math.exp(logarithm) for token, logarithm in logarithms.items()}
    probabilities = candidate_probabilities(question.candidates, shares)
    if probabilities is None:
        return Reply(text)
    return Reply(max(probabilities, key=probabilities.__getitem__), probabilities)


def candidate_probabilities(candidates: Sequence[str], shares: Mapping[str, float]) -> dict[str, float] | None:
    """Probabilities over K candidates, from those of the most probable first tokens, in any case and after blanks.

    None if a candidate has no token among them, or two candidates share one: then first tokens do not decide.

    Of Yes 0.5 + 0.1 and No 0.2, Yes has 0.6 / 0.8:

    >>> found = candidate_probabilities(("Yes", "No"), {"Yes": 0.5, " yes": 0.1, "No": 0.2, "The": 0.1})
    >>> {name: round(share, 2) for name, share in found.items()}
    {'Yes': 0.75, 'No': 0.25}
    >>> candidate_probabilities(("excitement", "awe"), {"e": 0.5, "The": 0.3})
    """
    found = dict.fromkeys(candidates, 0.0)
    for token, share in shares.items():
        start = token.strip().casefold()
        begun = [candidate for candidate in candidates if start and candidate.casefold().startswith(start)]
        if len(begun) > 1:
            return None
        for candidate in begun:
            found[candidate] += share
    total = sum(found.values())
    return {name: share / total for name, share in found.items()} if all(found.values()) else None
