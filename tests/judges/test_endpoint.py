"""The endpoint judge against a stand-in server on this machine, in the ways servers fail, and against a real one."""

import base64
import contextlib
import io
import itertools
import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from test_train import run_of

from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.judges.endpoint import EndpointJudge, NoReplyError, candidate_probabilities
from emor3.judges.local import GenerateJudge
from emor3.judges.settings import KEY_VARIABLE, EndpointBlock
from emor3.method.labels import MIKELS8
from emor3.method.reflection import coherence_question, consistency_question
from emor3.method.types import Question
from emor3.models.checkpoints import load, resolve_checkpoint
from emor3.models.processors import load_processor
from emor3.runs.recipe import build_recipe
from emor3.runs.records import read_jsonl
from places import SUPPORT
from steps import writes
from waiting import HANGS, wait_until

EMBEDDED = resolve_checkpoint("embedded")
pytestmark = [pytest.mark.allow_hosts(["127.0.0.1"]), pytest.mark.enable_socket]


def completion(text: str, top: list[tuple[str, float]] | None = None) -> str:
    """Body of a chat completion, with (token, probability) of the most probable first tokens where given."""
    choice = {"message": {"role": "assistant", "content": text}}
    if top is not None:
        first = [{"token": token, "logprob": math.log(share)} for token, share in top]
        choice["logprobs"] = {"content": [{"token": top[0][0], "logprob": 0.0, "top_logprobs": first}]}
    return json.dumps({"choices": [choice]})


def text_of(request: Any) -> Any:
    return request["messages"][0]["content"][-1]["text"]


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is what some tests are about."""


class StandIn:
    """A chat server whose replies are given: `script(request, nth)` -> (status, headers, body).

    Remembers the requests with their headers, and how many were under way at once. `nth` counts the tries of a text.
    """

    def __init__(self, script: Any) -> None:
        self.requests, self.tries, self.busy, self.most_busy = [], Counter(), 0, 0
        self.script, self.lock = script, threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stand_in.lock:
                    stand_in.requests.append((self.path, dict(self.headers), request))
                    stand_in.tries[text_of(request)] += 1
                    nth = stand_in.tries[text_of(request)]
                    stand_in.busy += 1
                    stand_in.most_busy = max(stand_in.most_busy, stand_in.busy)
                try:
                    status, headers, body = stand_in.script(request, nth)
                finally:
                    with stand_in.lock:
                        stand_in.busy -= 1
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body.encode())), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def serve() -> Iterator[Callable[..., StandIn]]:
    started = []

    def start(script: Any) -> Any:
        started.append(StandIn(script))
        return started[-1]

    yield start
    for stand_in in started:
        stand_in.server.shutdown()
        stand_in.server.server_close()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that judges would have waited between tries; they wait none."""
    waited = []

    class Patient(threading.Event):
        def wait(self, timeout: float | None = None) -> Any:
            waited.append(timeout)
            return self.is_set()

    monkeypatch.setattr("emor3.judges.endpoint.Event", Patient)
    return waited


def judge_at(url: Any, key: Any = None, **settings: Any) -> EndpointJudge:
    return EndpointJudge(EndpointBlock(**{"base_url": url, "model": "judge", "retries": 2, **settings}), key)


def texts(count: int) -> list[Question]:
    return [coherence_question(f"Scene {number}.", "Joy.", MIKELS8) for number in range(count)]


def always(status: Any, body: str = "", headers: Any = None) -> Callable[..., Any]:
    return lambda request, nth: (status, headers or {}, body)


@pytest.fixture(scope="module")
def images(scenes: str) -> list[str]:
    return [sample.image for sample in load_samples(scenes, split="test")]


# --- a server that works ---------------------------------------------------------------------------------------------


def test_replies_come_in_the_order_of_the_questions_whatever_the_order_of_the_server(
    serve: Callable[..., StandIn],
) -> None:
    barrier = threading.Barrier(4)

    def last_first(request: Any, nth: Any) -> tuple[Any, ...]:
        barrier.wait(HANGS)  # four are under way at once, or this breaks
        number = int(text_of(request).split("Scene ")[1].split(".")[0])
        time.sleep(0.02 * (4 - number))
        return 200, {}, completion(f"reply {number}")

    server = serve(last_first)
    replies = judge_at(server.url, concurrency=4).answer(texts(4))
    assert [reply.text for reply in replies] == [f"reply {number}" for number in range(4)]
    assert all(reply.error is None and reply.probabilities is None for reply in replies)


def test_no_more_requests_are_under_way_than_allowed(serve: Callable[..., StandIn]) -> None:
    def slow(request: Any, nth: Any) -> tuple[Any, ...]:
        time.sleep(0.02)
        return 200, {}, completion("joy")

    server = serve(slow)
    judge_at(server.url, concurrency=2).answer(texts(8))
    assert 1 <= server.most_busy <= 2


def test_a_request_is_greedy_and_short_and_shows_the_image_before_the_text(
    serve: Callable[..., StandIn], images: list[str]
) -> None:
    server = serve(always(200, completion("Yes")))
    question = consistency_question((images[0],), "A dog.")
    judge_at(server.url + "/", key="sk-secret").answer([question])
    path, headers, request = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer sk-secret"
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("judge", 0, 16)
    assert "logprobs" not in request
    picture, text = request["messages"][0]["content"]
    assert text == {"type": "text", "text": question.text}
    kind, _, data = picture["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent, Image.open(images[0]) as file:
        assert sent.tobytes() == file.convert("RGB").tobytes()  # a small image arrives as it is


def test_large_images_are_sent_scaled_down_in_their_shape(serve: Callable[..., StandIn], tmp_path: Path) -> None:
    Image.new("RGB", (400, 100)).save(tmp_path / "wide.png")
    server = serve(always(200, completion("Yes")))
    judge_at(server.url, max_pixels=10_000).answer([consistency_question((str(tmp_path / "wide.png"),), "A wall.")])
    data = server.requests[0][2]["messages"][0]["content"][0]["image_url"]["url"].partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert sent.size == (200, 50)  # 40,000 pixels at half the side are 10,000


def test_without_a_key_none_is_sent(serve: Callable[..., StandIn]) -> None:
    server = serve(always(200, completion("joy")))
    judge_at(server.url).answer(texts(1))
    assert "Authorization" not in server.requests[0][1]


def test_first_token_probabilities_are_read_where_the_server_gives_them(
    serve: Callable[..., StandIn], images: list[str]
) -> None:
    server = serve(always(200, completion("Sure", [("Sure", 0.5), ("Yes", 0.2), (" yes", 0.1), ("No", 0.1)])))
    judge = judge_at(server.url, top_logprobs=20)
    asked = [consistency_question((images[0],), "A dog."), *texts(1)]
    yes_no, label = judge.answer(asked)
    assert [request["top_logprobs"] for *_, request in server.requests] == [20, 20]
    # (0.2 + 0.1) / (0.2 + 0.1 + 0.1) and 0.1 / 0.4
    assert yes_no.probabilities == pytest.approx({"Yes": 0.75, "No": 0.25})
    assert yes_no.text == "Yes"
    assert (label.text, label.probabilities) == ("Sure", None)  # no label among the tokens: the text is what there is
    assert judge.answer(asked) == [yes_no, label]  # also from the cache


def test_first_tokens_decide_nothing_where_labels_share_them() -> None:
    assert candidate_probabilities(("awe", "amusement"), {"awe": 0.5, "am": 0.5}) == {"awe": 0.5, "amusement": 0.5}
    assert candidate_probabilities(("awe", "amusement"), {"a": 0.8, "awe": 0.1, "am": 0.1}) is None
    assert candidate_probabilities(("Yes", "No"), {"Yes": 1.0, "None": 0.1, "": 0.1}) is None


# --- the cache -------------------------------------------------------------------------------------------------------


def test_a_question_is_sent_once_in_a_run(serve: Callable[..., StandIn]) -> None:
    server = serve(always(200, completion("joy")))
    judge = judge_at(server.url)
    assert judge.answer([*texts(2), *texts(3)]) == judge.answer(texts(2)) + judge.answer(texts(3))
    assert len(server.requests) == 3


def test_later_runs_find_the_replies_in_the_folder_but_another_model_does_not(
    serve: Callable[..., StandIn], tmp_path: Path
) -> None:
    server = serve(lambda request, nth: (200, {}, completion(request["model"])))
    folder = str(tmp_path / "cache")
    first = judge_at(server.url, cache=folder).answer(texts(2))
    assert judge_at(server.url, cache=folder).answer(texts(2)) == first
    assert len(server.requests) == 2
    other = EndpointJudge(EndpointBlock(base_url=server.url, model="other", cache=folder))
    assert [reply.text for reply in other.answer(texts(2))] == ["other", "other"]


def test_a_changed_image_under_the_same_name_is_asked_again(serve: Callable[..., StandIn], tmp_path: Path) -> None:
    server, path = serve(always(200, completion("Yes"))), tmp_path / "image.png"
    judge = judge_at(server.url)
    for colour in ("red", "red", "blue"):
        Image.new("RGB", (64, 64), colour).save(path)
        judge.answer([consistency_question((str(path),), "A wall.")])
    assert len(server.requests) == 2


def test_failures_are_not_cached(serve: Callable[..., StandIn]) -> None:
    server = serve(lambda request, nth: (400, {}, "") if nth == 1 else (200, {}, completion("joy")))
    judge = judge_at(server.url)
    assert [judge.answer(texts(1))[0].error is None for _ in range(2)] == [False, True]


def test_a_cache_that_cannot_be_opened_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "replies.sqlite").write_text("no database, but text of some length")
    for folder in (tmp_path / "file", tmp_path):
        with pytest.raises(UserError, match=r"judge\.endpoint\.cache"):
            judge_at("http://127.0.0.1:9/v1", cache=str(folder))


@pytest.mark.parametrize(
    "harm",
    ["DROP TABLE replies", "UPDATE replies SET probabilities = '{'", "PRAGMA query_only = 1"],
    ids=["damaged", "a row that is no JSON", "not to be written"],
)
def test_a_cache_that_fails_in_a_run_is_a_users_error(serve: Callable[..., StandIn], tmp_path: Path, harm: str) -> None:
    judge = judge_at(serve(always(200, completion("joy"))).url, cache=str(tmp_path))
    judge.answer(texts(1))
    judge._cache.execute(harm)
    with pytest.raises(UserError, match=r"judge\.endpoint\.cache: cannot use .*replies\.sqlite"):
        judge.answer(texts(2))


# --- a server that fails ---------------------------------------------------------------------------------------------


def test_a_rate_limit_is_waited_out_for_as_long_as_the_server_asks(
    serve: Callable[..., StandIn], waits: list[float]
) -> None:
    server = serve(lambda _, nth: (429, {"Retry-After": "7"}, "") if nth == 1 else (200, {}, completion("joy")))
    assert [reply.text for reply in judge_at(server.url).answer(texts(1))] == ["joy"]
    assert len(server.requests) == 2
    assert waits == [7.0]


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("-3", 0.0),
        ("86400", 60.0),
        ("nan", None),
        ("soon", None),
    ],
    ids=["a date in the past", "negative", "a day", "not a number", "a word"],
)
def test_other_forms_of_retry_after_are_understood_or_left_aside(
    serve: Callable[..., StandIn], waits: list[float], header: str, wait: Any
) -> None:
    server = serve(lambda _, nth: (503, {"Retry-After": header}, "") if nth == 1 else (200, {}, completion("joy")))
    assert judge_at(server.url).answer(texts(1))[0].text == "joy"
    assert waits == [wait] if wait is not None else 0.5 <= waits[0] <= 1  # else the first back-off


def test_a_server_that_always_errs_is_tried_with_longer_and_longer_waits(
    serve: Callable[..., StandIn], waits: list[float]
) -> None:
    server = serve(always(500, "out of <b>memory</b>\n"))
    (reply,) = judge_at(server.url, retries=3).answer(texts(1))
    assert (reply.text, reply.error) == ("", "HTTP 500: out of <b>memory</b>")
    assert len(server.requests) == 4
    for wait, longest in zip(waits, (1, 2, 4), strict=True):
        assert longest / 2 <= wait <= longest


def test_a_refusal_is_not_tried_again_and_its_message_never_repeats_the_key(
    serve: Callable[..., StandIn], waits: list[float]
) -> None:
    server = serve(always(401, "Incorrect API key sk-secret"))
    (reply,) = judge_at(server.url, key="sk-secret").answer(texts(1))
    assert reply.error == "HTTP 401: Incorrect API key [key]"
    assert (len(server.requests), waits) == (1, [])


KEY = 'sk-s"e/cret'


@pytest.mark.parametrize(
    "reply",
    [
        (401, {}, f"{'x' * 295} Bearer {KEY}"),
        (401, {}, json.dumps({"error": f"Bearer {KEY}"})),
        (401, {}, json.dumps({"error": KEY}).replace("/", "\\/").replace("s", "\\u0073")),
        (401, {}, "key=sk-s%22e%2fcret"),
        (200, {}, completion(f"your header was Bearer {KEY}")),
        (200, {}, completion(f"a {KEY}").replace("sk", "\\u0073\\u006B").replace("/", "\\/")),
        (200, {"X-Echo\n ": KEY}, completion("joy")),
        (200, {"Content-Encoding": "gzip"}, KEY),
    ],
    ids=["cut", "quoted", "escaped", "in an address", "a reply", "an escaped reply", "a broken header", "broken gzip"],
)
def test_whatever_a_server_quotes_the_key_is_in_no_reply_and_in_no_cache(
    serve: Callable[..., StandIn], tmp_path: Path, reply: tuple[Any, ...]
) -> None:
    server = serve(always(*reply))
    (told,) = judge_at(server.url, key=KEY, retries=0, cache=str(tmp_path)).answer(texts(1))
    kept = (tmp_path / "replies.sqlite").read_bytes()
    assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    for spelling in ("cret", "sk-s", "s\\u0065"):
        assert spelling not in repr(told)
        assert spelling.encode() not in kept


@pytest.mark.parametrize("key", ["sk-\nsecret", "sk-sécret", "sk-\x00secret"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(UserError, match=KEY_VARIABLE) as refused:
        judge_at("http://127.0.0.1:9/v1", key=key)
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip"])
def test_a_reply_that_is_not_encoded_as_it_says_is_no_reply(serve: Callable[..., StandIn], encoding: str) -> None:
    server = serve(always(200, completion("joy"), {"Content-Encoding": encoding}))
    (reply,) = judge_at(server.url).answer(texts(1))
    assert reply.error.startswith("DecodingError: ")
    assert len(server.requests) == 3


def test_a_redirect_is_not_followed_because_the_key_would_go_with_it(serve: Callable[..., StandIn]) -> None:
    elsewhere = serve(always(200, completion("joy")))
    server = serve(always(307, headers={"Location": elsewhere.url}))
    assert judge_at(server.url, key="sk-secret").answer(texts(1))[0].error == "HTTP 307: "
    assert elsewhere.requests == []


NO_LOGARITHM = "the reply has log-probabilities that are none"


@pytest.mark.parametrize(
    ("body", "error", "tries"),
    [
        ("<html>", "the reply is not JSON", 3),
        ("[" * 100_000, "the reply is not JSON", 3),
        ("[]", "the reply is not a chat completion", 1),
        ('{"choices": []}', "the reply is not a chat completion", 1),
        ('{"choices": [{"message": null}]}', "the reply is not a chat completion", 1),
        ('{"choices": ["joy"]}', "the reply is not a chat completion", 1),
        ('{"choices": [{"message": {"content": null}}]}', "the reply has no text", 1),
        ("x" * 4_000_001, "a reply of more than 4,000,000 bytes", 1),
        (completion("joy\ud83d"), "the reply's text is broken: half a character", 1),
        *(
            (completion("Yes", [("Yes", 0.5)]).replace(str(math.log(0.5)), number), NO_LOGARITHM, 1)
            for number in ("NaN", "Infinity", "-1e999", "0.7")
        ),
    ],
    ids=[
        *("html", "deep", "list", "no choice", "no message", "a string", "no text", "huge", "half a character"),
        *("NaN", "infinite", "infinitely low", "more than certain"),
    ],
)
def test_malformed_replies_are_errors_and_only_what_may_be_cut_off_is_tried_again(
    serve: Callable[..., StandIn], body: Any, error: Any, tries: Any
) -> None:
    server = serve(always(200, body))
    (reply,) = judge_at(server.url).answer(texts(1))
    assert (reply.text, reply.probabilities, reply.error) == ("", None, error)
    assert len(server.requests) == tries


def test_an_unreachable_server_is_an_error_of_each_question(serve: Callable[..., StandIn]) -> None:
    server = serve(always(200))
    server.server.shutdown()
    server.server.server_close()
    replies = judge_at(server.url).answer(texts(2))
    assert [reply.error.partition(":")[0] for reply in replies] == ["ConnectError", "ConnectError"]


def test_a_slow_server_is_timed_out_and_tried_again(serve: Callable[..., StandIn]) -> None:
    free = threading.Event()

    def hang_once(request: Any, nth: Any) -> tuple[Any, ...]:
        if nth == 1:
            free.wait(HANGS)
        return 200, {}, completion("joy")

    server = serve(hang_once)
    replies = judge_at(server.url, timeout=0.3, retries=20).answer(texts(1))  # a busy machine may take some
    free.set()
    assert [reply.text for reply in replies] == ["joy"]
    assert len(server.requests) >= 2


@pytest.fixture
def serve_bytes() -> Iterator[Callable[..., str]]:
    """Start a server that reads a request and then sends what `send(write)` writes; returns its address."""
    listening = []

    def start(send: Any) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listening.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed below
                    return
                connection.recv(1_000_000)
                with contextlib.suppress(OSError), connection:  # the client may hang up, and may do so first
                    send(connection.sendall)

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    yield start
    for listener in listening:
        listener.close()


STATUS_LINE = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("begin", "drop"),
    [(b"", b"H"), (STATUS_LINE, b"X-A: b\r\n"), (STATUS_LINE + b"Content-Length: 900\r\n\r\n", b" ")],
    ids=["a line that does not end", "headers", "a body"],
)
def test_a_server_that_drips_is_timed_out_however_little_is_wanting(
    serve_bytes: Callable[..., str], begin: Any, drop: bytes
) -> None:
    def drip(write: Any) -> None:
        write(begin)
        for _ in range(500):
            write(drop)  # each in time, the whole never
            time.sleep(0.01)

    started = time.monotonic()
    judge = judge_at(serve_bytes(drip), timeout=0.2, retries=0)
    assert judge.answer(texts(1))[0].error == "no whole reply within 0.2 seconds"
    assert time.monotonic() - started < 5  # what all 500 writes take at least


def test_a_wait_for_the_server_is_bounded_by_the_time_of_a_try_and_said_once(
    serve: Callable[..., StandIn], waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(always(429, headers={"Retry-After": "1e300"}))
    replies = judge_at(server.url, timeout=5, retries=1).answer(texts(3))
    assert [reply.error for reply in replies] == ["HTTP 429: "] * 3
    assert waits == [5.0] * 3
    assert capsys.readouterr().err == f"the judge at {server.url} asks to wait 1e+300 s: waiting 5 s\n"


def test_the_waits_that_a_server_asks_for_are_part_of_the_time_of_all_tries(
    serve: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_and_busy(request: Any, nth: Any) -> tuple[Any, ...]:
        time.sleep(0.1)
        return 429, {"Retry-After": "60"}, ""

    server = serve(slow_and_busy)
    monkeypatch.setattr("emor3.judges.endpoint.Event", threading.Event)  # this one waits
    assert judge_at(server.url, timeout=0.2, retries=3).answer(texts(1))[0].error == "HTTP 429: "
    # 0.8 seconds in all: the fourth try would begin after 3 x (0.1 + 0.2)
    assert len(server.requests) <= 3


def test_a_stopped_judge_does_not_wait_for_its_requests(serve: Callable[..., StandIn]) -> None:
    free = threading.Event()

    def hang_and_stop(request: Any, nth: Any) -> tuple[Any, ...]:
        if "Scene 0." in text_of(request):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # which waits for the replies
        free.wait(20)
        return 200, {}, completion("joy")

    judge = judge_at(serve(hang_and_stop).url, timeout=20)
    started, before = time.monotonic(), signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        judge.answer(texts(4))
    signal.signal(signal.SIGINT, before)
    free.set()
    assert time.monotonic() - started < 10


def test_a_request_that_begins_after_the_stop_is_not_sent(serve: Callable[..., StandIn]) -> None:
    server = serve(always(200, completion("joy")))
    judge = judge_at(server.url)
    judge._stop.set()
    with pytest.raises(NoReplyError, match="stopped"):
        judge._requests.run(judge._exchange({}, seconds=5))
    assert not server.requests


def test_a_judge_answers_one_batch_after_another(serve: Callable[..., StandIn]) -> None:
    judge = judge_at(serve(always(200, completion("joy"))).url)
    batches = [judge.answer(texts(20)[start : start + 4]) for start in range(0, 20, 4)]  # none cancels what follows
    assert [reply.text for batch in batches for reply in batch] == ["joy"] * 20


def test_one_failed_question_leaves_the_others_their_replies(serve: Callable[..., StandIn]) -> None:
    server = serve(lambda request, _: (400, {}, "") if "Scene 1." in text_of(request) else (200, {}, completion("joy")))
    errors = [reply.error for reply in judge_at(server.url).answer(texts(3))]
    assert errors == [None, "HTTP 400: ", None]


def test_the_run_stops_past_the_share_of_errors_and_keeps_what_was_answered(
    serve: Callable[..., StandIn], tmp_path: Path
) -> None:
    broken = {f"Scene {number}." for number in range(20, 40)}

    def some(request: Any, nth: Any) -> Any:
        number = f"Scene {text_of(request).split('Scene ')[1].split('.')[0]}."
        return (400, {}, "no images") if number in broken else (200, {}, completion("joy"))

    server = serve(some)
    judge = judge_at(server.url, cache=str(tmp_path), max_error_share=0.05)
    judge.answer(texts(20))
    with pytest.raises(UserError, match=r"failed on 6 of the last 26 .*0\.05.*HTTP 400: no images"):
        judge.answer(texts(40))
    assert len(server.requests) < 40  # the rest is not asked
    broken.clear()
    assert len(judge_at(server.url, cache=str(tmp_path)).answer(texts(20))) == 20
    assert max(server.tries[question.text] for question in texts(20)) == 1


def test_few_errors_among_many_questions_do_not_stop_a_run(serve: Callable[..., StandIn]) -> None:
    server = serve(lambda request, _: (400, {}, "") if "Scene 1." in text_of(request) else (200, {}, completion("joy")))
    judge = judge_at(server.url, max_error_share=0.05)
    for _ in range(5):  # 5 errors, and never more than 5 in 100
        judge.answer(texts(2))


# --- in training -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_failure_in_training_is_left_out_for_its_whole_group_and_counted(
    serve: Callable[..., StandIn], tmp_path: Path, scenes: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    animals = itertools.cycle(["dog", "cat"])  # a random model describes nothing
    told = "<step1>A {}.</step1><step2>Joy.</step2><step3>Positive.</step3>"
    tokenizer = load_processor(random_checkpoint).tokenizer
    writes(monkeypatch, tokenizer, lambda count: [told.format(animal) for animal in itertools.islice(animals, count)])
    seen = []

    def fail_on_the_first_cat(request: Any, nth: Any) -> Any:
        if len(request["messages"][0]["content"]) == 1:
            return 200, {}, completion("joy")
        cat = "A cat." in text_of(request)
        seen.append(cat)
        return (400, {}, "") if cat and sum(seen) == 1 else (200, {}, completion("Yes" if cat else "No"))

    endpoint = {"base_url": serve(fail_on_the_first_cat).url, "model": "judge", "concurrency": 1}
    judge = {"model": "endpoint", "endpoint": endpoint, "calibration": 0}
    run = run_of(tmp_path, scenes, random_checkpoint, judge=judge, reward={"contrastive": 0}, grpo={"max_steps": 1})
    rows = list(read_jsonl(run / "rollouts.jsonl"))
    assert [row["reflection"]["consistency"]["verdict"] for row in rows] == ["refuted", "error", "refuted", "supported"]
    assert [row["parts"]["consistency"] for row in rows] == [None, None, 0, 1]  # what trained
    accuracy = [row["parts"]["accuracy"] for row in rows]
    assert sum(accuracy) == 0
    # nothing for format, and 0.3 / 2 for each reflection that supports
    supported = [row["reflection"]["coherence"]["verdict"] == "supported" for row in rows]
    rewards = [0.15 * read for read in supported[:3]] + [0.15 * supported[3] + 0.15]
    assert [row["reward"] for row in rows] == pytest.approx(rewards)
    metrics = next(iter(read_jsonl(run / "metrics.jsonl")))
    assert metrics["judge/errors"] == 0.25  # 1 of 4 completions
    # (0 + 1) / 2 in the second group; with the first group's dog it would be (0 + 0 + 1) / 3
    assert metrics["rewards/consistency/mean"] == 0.5
    assert metrics["reward"] == pytest.approx(sum(rewards) / 4)


@pytest.mark.parametrize("judge", [{"model": "endpoint"}, {"endpoint": {"base_url": "http://localhost", "model": "m"}}])
def test_the_endpoint_and_its_settings_go_together(judge: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"judge\.endpoint go together"):
        build_recipe({"output_dir": "o", "model": {"path": "m"}, "data": {"train": "d"}, "judge": judge}, (), "r.yaml")


# --- keys and addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        {"api_key": "sk-secret"},
        {"headers": {"Authorization": "sk-secret"}},
        {"base_url": "https://user:sk-secret@example.org/v1"},
        {"base_url": "https://example.org/v1?api_key=sk-secret"},
        {"base_url": "https://user:sk-secret@[/v1"},
        {"base_url": "ftp://example.org"},
        {"base_url": "http://example.org:x"},
        {"base_url": "example.org"},
    ],
    ids=["setting", "header", "user", "query", "broken", "ftp", "port", "no scheme"],
)
def test_a_recipe_with_a_key_or_without_a_web_address_is_refused_and_not_repeated(setting: dict[str, Any]) -> None:
    endpoint = {"base_url": "https://example.org/v1", "model": "m", **setting}
    content = {
        "output_dir": "o",
        "model": {"path": "embedded"},
        "data": {"train": "d"},
        "judge": {"endpoint": endpoint},
    }
    with pytest.raises(UserError, match=r"judge\.endpoint") as refused:
        build_recipe(content, (), "recipe.yaml")
    assert "sk-secret" not in str(refused.value)


def test_the_key_comes_from_the_environment_and_is_in_no_setting(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., StandIn]
) -> None:
    server = serve(always(200, completion("joy")))
    monkeypatch.setenv(KEY_VARIABLE, " sk-secret\n")
    judge = EndpointJudge.from_settings(EndpointBlock(base_url=server.url, model="m"))
    judge.answer(texts(1))
    assert server.requests[0][1]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in judge.settings.model_dump_json()


def test_a_key_is_never_sent_in_the_clear_over_a_network() -> None:
    with pytest.raises(UserError, match="unencrypted"):
        judge_at("http://judge.example.org/v1", key="sk-secret")
    for url in ("http://judge.example.org/v1", "https://judge.example.org/v1"):
        judge_at(url, key="sk-secret" if url.startswith("https") else None)
    for host in ("localhost", "127.0.0.1", "[::1]"):
        judge_at(f"http://{host}:8000/v1", key="sk-secret")


# --- a real server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `transformers serve` with the embedded model."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as free:
        port = free.server_address[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    script = SUPPORT / "serve_transformers.py"
    with log.open("w") as output:
        command = [sys.executable, str(script), EMBEDDED, str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{port}"

        def answers() -> Any:
            assert process.poll() is None, log.read_text()
            try:
                return httpx2.get(f"{address}/health", trust_env=False).status_code == 200
            except httpx2.TransportError:
                return False

        wait_until(answers, process)
        yield f"{address}/v1"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_a_real_server_replies_as_the_same_model_does_in_this_process(real_server: str, images: list[str]) -> None:
    asked = [
        *(
            consistency_question((image,), f"A scene with {thing}.")
            for image in images[:4]
            for thing in ("a dog", "rain")
        ),
        *(coherence_question("A dog runs.", feeling, MIKELS8) for feeling in ("It is joyful.", "It is scary.")),
    ]
    replies = judge_at(real_server, model=EMBEDDED, concurrency=2).answer(asked)
    assert [reply.error for reply in replies] == [None] * len(asked)
    assert [reply.text for reply in replies] == [  # the server strips
        reply.text.strip() for reply in GenerateJudge(*load(EMBEDDED)).answer(asked)
    ]
    assert len({reply.text for reply in replies}) > 1  # or equality would say little


@pytest.mark.slow
def test_a_real_server_without_probabilities_is_read_by_its_text(real_server: str) -> None:
    asked = texts(2)
    plain, wanted = (judge_at(real_server, model=EMBEDDED, top_logprobs=top).answer(asked) for top in (0, 5))
    assert plain == wanted
    assert all(reply.error is None and reply.probabilities is None for reply in wanted)


@pytest.mark.slow
def test_a_real_server_says_why_it_refuses(real_server: str) -> None:
    (reply,) = judge_at(real_server, model="another").answer(texts(1))
    assert reply.error.startswith("HTTP 400: ")
    assert "another" in reply.error
