"""What each request gets: marks are saved, pages tell nothing they should not, and what may not be is refused."""

import io
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from emor3.errors import UserError
from emor3.method.labels import label_set_from
from emor3.method.thinking import parse
from emor3.review.server import HEADERS, review_server
from emor3.review.session import LONGEST_FORM, Response
from made_up import prediction, save_evaluation
from reviewing import TOKEN, ask, pictured, save_pictured, serving, session_of

FORM = f"token={TOKEN}&emotion=3&describes=no&follows=yes"
"""Joy, which is the fourth of the labels."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_pictured(tmp_path, model="the-model", judge="the-judge")


@pytest.fixture(scope="module")
def unmarked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for the tests after which no mark may be there."""
    return save_pictured(tmp_path_factory.mktemp("unmarked"))


def marks_of(folder: Path, reviewer: str = "anna") -> list[dict[str, object]]:
    file = folder / f"marks-{reviewer}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def text(response: Response) -> str:
    return response.body.decode()


def test_a_mark_is_on_disk_when_the_next_completion_is_shown(folder: Path) -> None:
    session = session_of(folder)
    assert ask(session, "/").headers["Location"] == "/item/0"
    saved = ask(session, "/mark/0", FORM)
    assert (saved.status, saved.headers["Location"]) == (303, "/item/1")
    (row,) = marks_of(folder)
    first = session.drawn[0].prediction.sample.id
    told = {"data": "d", "id": first, "reviewer": "anna", "emotion": "joy", "describes": False, "follows": True}
    assert told.items() <= row.items()


def test_a_mark_can_be_changed_and_the_page_shows_what_was_marked(folder: Path) -> None:
    session = session_of(folder)
    ask(session, "/mark/1", FORM)
    page = text(ask(session, "/item/1"))
    assert page.count(" checked") == 3
    assert 'value="3" data-key="4" required checked' in page
    ask(session, "/mark/1", FORM.replace("emotion=3", "emotion=none"))
    assert [row["emotion"] for row in marks_of(folder)] == ["joy", None]
    assert "1 of 3 marked" in text(ask(session, "/item/1"))


def test_what_was_skipped_comes_again_and_the_end_is_told(folder: Path) -> None:
    session = session_of(folder)
    assert 'href="/item/1" data-key="s"' in text(ask(session, "/item/0"))
    assert ask(session, "/mark/1", FORM).headers["Location"] == "/item/2"
    assert ask(session, "/mark/2", FORM).headers["Location"] == "/item/0"
    assert "All 3 completions are marked" in text(ask(session, "/mark/0", FORM))
    assert "Thank you" in text(ask(session, "/"))


@pytest.mark.parametrize(
    "form",
    [
        FORM.replace("&follows=yes", ""),
        FORM.replace("emotion=3", "emotion=6"),
        FORM.replace("emotion=3", "emotion=joy"),
        FORM.replace("describes=no", "describes=maybe"),
        f"token={TOKEN}",
    ],
)
def test_a_form_without_an_answer_to_everything_is_not_saved(unmarked: Path, form: str) -> None:
    assert ask(session_of(unmarked), "/mark/0", form).status == 400
    assert marks_of(unmarked) == []


def test_a_completion_without_step_3_has_two_questions(tmp_path: Path) -> None:
    words = "<step1>A dog.</step1><step2>Joy.</step2>\\boxed{joy}"
    one = replace(pictured(tmp_path, 1)[0], completion=words, thought=parse(words))
    folder = save_evaluation(tmp_path / "a", {"d": [one]})
    session = session_of(folder)
    assert "Step 3" not in text(ask(session, "/item/0"))
    assert ask(session, "/mark/0", FORM).status == 400  # it answers what was not asked
    assert ask(session, "/mark/0", FORM.replace("&follows=yes", "")).status == 200
    assert marks_of(folder)[0]["follows"] is None


def test_pages_tell_nothing_of_model_judge_label_and_sample(folder: Path) -> None:
    session = session_of(folder)
    for place in range(3):
        page = text(ask(session, f"/item/{place}"))
        assert "A dog." in page
        for secret in ("the-model", "the-judge", "picture", str(folder.parent), "boxed", "upported"):
            assert secret not in page.replace("Picture", ""), secret
        assert page.count("joy") == 1  # a choice; neither the true label nor the answer


def test_texts_are_escaped_and_labels_of_any_kind_can_be_chosen(tmp_path: Path) -> None:
    labels = label_set_from(["<b>calm</b>", '"><script>x</script>', *map(str, range(40))], "hostile")
    words = "<step1><script>x</script></step1><step2>{{ 7 * 7 }}</step2><step3>\u202e\ud800&amp;</step3>"
    base = prediction("<b>calm</b>", None, id=str(tmp_path / "p"), labels=labels)
    folder = save_evaluation(tmp_path / "a", {"d": [replace(base, completion=words, thought=parse(words))]})
    session = session_of(folder)
    page = text(ask(session, "/item/0"))
    assert "<script>x" not in page
    assert "<b>calm" not in page
    assert "{{ 7 * 7 }}" in page
    assert "&amp;amp;" in page
    assert ask(session, "/mark/0", FORM.replace("emotion=3", "emotion=41")).status == 200
    assert marks_of(folder)[0]["emotion"] == "39"


def test_a_clip_is_shown_as_its_frames_and_asked_about_as_a_video(tmp_path: Path) -> None:
    (first, second) = pictured(tmp_path / "pictures", 2)
    frames = (first.sample.image, second.sample.image)
    one = replace(first, sample=replace(first.sample, images=frames, clip="a.mp4"))
    page = text(ask(session_of(save_evaluation(tmp_path / "a", {"d": [one]})), "/item/0"))
    assert "Does step 1 describe the video?" in page
    assert page.count("<img") == 2


def test_a_sample_that_is_a_text_is_shown_and_asked_about_as_one(tmp_path: Path) -> None:
    base = prediction("joy", "joy", id="t")
    one = replace(base, sample=replace(base.sample, images=(), text="It <rained>."))
    page = text(ask(session_of(save_evaluation(tmp_path / "a", {"d": [one]})), "/item/0"))
    assert "It &lt;rained&gt;." in page
    assert "Does step 1 describe the text?" in page
    assert "<img" not in page


# --- pictures --------------------------------------------------------------------------------------------------------


def test_a_picture_is_sent_decoded_and_no_larger_than_a_screen(tmp_path: Path) -> None:
    made = pictured(tmp_path, 1)
    Image.new("RGB", (2000, 1000), "red").save(made[0].sample.image)
    session = session_of(save_evaluation(tmp_path / "a", {"d": made}))
    found = ask(session, "/image/0/0")
    assert (found.status, found.kind) == (200, "image/jpeg")
    with Image.open(io.BytesIO(found.body)) as picture:
        assert picture.size == (1600, 800)


@pytest.mark.parametrize(
    "path",
    ["/image/0/1", "/image/3/0", "/image/0/-1", "/image/0/", "/image/0/../../etc/passwd", "/image/0/²", "/etc/passwd"],
)
def test_nothing_but_the_pictures_of_the_rows_is_served(unmarked: Path, path: str) -> None:
    for asked in (path, quote(path)):
        assert ask(session_of(unmarked), asked).status == 404


def test_a_file_that_is_no_picture_is_not_sent_and_the_page_says_so(tmp_path: Path) -> None:
    made = pictured(tmp_path, 1)
    Path(made[0].sample.image).write_text("root:x:0:0")
    session = session_of(save_evaluation(tmp_path / "a", {"d": made}))
    found = ask(session, "/image/0/0")
    assert found.status == 404
    assert b"root:x" not in found.body
    assert "1 of 1 pictures cannot be read" in text(ask(session, "/item/0"))


# --- who may ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "form", "headers"),
    [
        ("/item/0", None, {"Host": "evil.example:8765"}),
        ("/item/0", None, {"Host": ""}),
        ("/item/0", None, {"Host": "127.0.0.1.evil.example"}),
        ("/item/0", None, {"Host": "["}),
        ("/item/0", None, {"Host": "192.168.0.1:8765"}),
        ("/item/0", None, {"Cookie": ""}),
        ("/item/0", None, {"Cookie": "emor3-review-8765=other"}),
        ("/item/0", None, {"Cookie": "emor3-review-8766=secret"}),
        ("/style.css", None, {"Cookie": ""}),
        ("/image/0/0", None, {"Cookie": ""}),
        ("/?token=wrong", None, {"Cookie": ""}),
        ("/mark/0", FORM, {"Origin": "http://evil.example"}),
        ("/mark/0", FORM, {"Origin": "null"}),
        ("/mark/0", FORM, {"Origin": "https://127.0.0.1:8765"}),
        ("/mark/0", FORM, {"Cookie": ""}),
        ("/mark/0", FORM.replace(TOKEN, "guess"), {}),
        ("/mark/0", FORM.replace(f"token={TOKEN}&", ""), {}),
    ],
)
def test_a_foreign_name_or_origin_and_a_missing_token_are_refused(
    unmarked: Path, path: str, form: str | None, headers: dict[str, str]
) -> None:
    found = ask(session_of(unmarked), path, form, **headers)
    assert found.status == 403
    assert "A dog." not in text(found)
    assert marks_of(unmarked) == []


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:9000", "LOCALHOST", "[::1]:8765"])
def test_this_machines_names_are_taken_on_any_port_as_through_a_tunnel(folder: Path, host: str) -> None:
    found = ask(session_of(folder), "/mark/0", FORM, Host=host, Origin=f"http://{host}")
    assert found.status == 303


def test_a_server_opened_to_a_network_goes_by_its_numbers_and_its_own_name(unmarked: Path) -> None:
    session = session_of(unmarked, host="0.0.0.0")
    for host, status in (("192.168.0.7:8765", 200), (f"{socket.gethostname()}:8765", 200), ("evil.example", 403)):
        assert ask(session, "/item/0", Host=host).status == status


def test_the_printed_address_lets_in_once_and_leaves_the_token_in_a_cookie(unmarked: Path) -> None:
    found = ask(session_of(unmarked), f"/?token={TOKEN}", Cookie="")
    assert (found.status, found.headers["Location"]) == (303, "/")
    assert found.headers["Set-Cookie"] == f"emor3-review-8765={TOKEN}; HttpOnly; SameSite=Lax; Path=/"


# --- over a socket ----------------------------------------------------------------------------------------------------


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
def test_the_server_bounds_what_it_reads_and_sends_its_headers(unmarked: Path) -> None:
    def status(server_port: int, request: str) -> tuple[int, str]:
        with socket.create_connection(("127.0.0.1", server_port), timeout=5) as connection:
            connection.sendall(request.encode())
            answer = connection.makefile("rb").read().decode(errors="replace")
        return int(answer.split()[1]), answer

    with serving([unmarked]) as server:
        port, session = server.server_address[1], server.session
        start = f"Host: 127.0.0.1:{port}\r\nCookie: {session.access.cookie}={session.access.token}\r\n"
        post = f"POST /mark/0 HTTP/1.1\r\n{start}"
        assert status(port, f"{post}\r\n")[0] == 411
        assert status(port, f"{post}Content-Length: {LONGEST_FORM + 1}\r\n\r\n")[0] == 413
        assert status(port, f"{post}Content-Length: {'9' * 5000}\r\n\r\n")[0] == 413
        assert status(port, f"{post}Content-Length: -1\r\n\r\n")[0] == 411
        assert status(port, f"DELETE / HTTP/1.1\r\n{start}\r\n")[0] == 501
        assert status(port, f"GET / HTTP/1.1\r\n{start}origin: http://evil.example\r\n\r\n")[0] == 403
        code, answer = status(port, f"GET /item/0 HTTP/1.1\r\n{start}\r\n")
        assert code == 200
        assert all(f"{name}: {value}\r\n" in answer for name, value in HEADERS.items())
        assert "script-src 'self'" in answer
        assert "Python" not in answer


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
def test_one_reviewer_marks_once_at_a_time_and_others_beside(folder: Path, impatient: None) -> None:
    with serving([folder], "anna"):
        with serving([folder], "ben"):
            pass
        with pytest.raises(UserError, match="another emor3 command"), serving([folder], "anna"):
            pass
    with serving([folder], "anna"):  # free again
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.json", "predictions.jsonl", "results.json"]


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
def test_a_new_session_goes_on_with_the_same_completions(folder: Path) -> None:
    with serving([folder]) as server:
        drawn = [one.prediction.sample.id for one in server.session.drawn]
        ask(server.session, "/mark/1", FORM)  # refused: the token is another
        assert server.session.marks == {}
        token = server.session.access.token
        cookie = f"{server.session.access.cookie}={token}"
        ask(server.session, "/mark/1", FORM.replace(TOKEN, token), Cookie=cookie)
    with serving([folder]) as server:
        assert [one.prediction.sample.id for one in server.session.drawn] == drawn
        assert server.session.marks.keys() == {1}
    with serving([folder], "ben") as server:
        assert server.session.marks == {}


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.enable_socket
def test_a_port_that_is_taken_ends_with_one_line(unmarked: Path) -> None:
    with serving([unmarked]) as server:
        port = server.server_address[1]
        with (
            pytest.raises(UserError, match=f"cannot listen on 127.0.0.1, port {port} .*--port"),
            review_server([unmarked], 9, 0, "ben", "127.0.0.1", port),
        ):
            pass


def test_the_command_ends_with_one_line_if_it_knows_no_reviewer(
    main_with: Callable[..., int], unmarked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert main_with("review", unmarked) == 2
    assert main_with("review", unmarked, "--reviewer", "../x") == 2
    no_name, no_file_name = capsys.readouterr().err.splitlines()
    assert no_name == "error: this user has no login name: give one by --reviewer"
    assert no_file_name.startswith("error: --reviewer '../x': a name has up to 40 letters")


def test_a_disk_that_takes_no_mark_is_told_on_the_page(folder: Path) -> None:
    session = session_of(folder)
    (folder / "marks-anna.jsonl").mkdir()
    found = ask(session, "/mark/0", FORM)
    assert found.status == 500
    assert "cannot write to" in text(found)
    assert session.marks == {}
