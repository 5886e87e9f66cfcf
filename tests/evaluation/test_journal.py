"""A killed evaluation goes on after its last whole batch and ends with the same files, or says why it cannot."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from emor3.errors import UserError
from emor3.evaluation.candidate import Candidate, load_candidate
from emor3.evaluation.evaluate import evaluate
from emor3.evaluation.journal import Journal, OtherEvaluationError, evaluation_folder
from emor3.evaluation.settings import EvaluationSettings
from emor3.method.types import Question, Reply
from emor3.models.engines.batches import Decoding
from emor3.models.generation import Request
from emor3.report.records import read_records
from emor3.runs.overview import standings
from emor3.runs.predictions import read_evaluation
from emor3.signals import Stopped

SETTINGS = EvaluationSettings(limit=4, batch_size=2, samples=2, temperature=1.0, max_new_tokens=2, seed=3)
FILES = ("evaluation.json", "predictions.jsonl", "results.json")


class KilledError(BaseException):
    """What ends the process."""


class Dying:
    """An engine and a judge that are killed after so many batches, and count how many they made."""

    def __init__(self, candidate: Candidate, lives: int) -> None:
        self.engine, self.judge, self.lives, self.made = candidate.engine, candidate.judge, lives, 0

    processor = property(lambda self: self.engine.processor)
    context = property(lambda self: self.engine.context)

    def _live(self) -> None:
        if self.made == self.lives:
            raise KilledError
        self.made += 1

    def batches(self, requests: Sequence[Request], decoding: Decoding, batch_size: int) -> list[list[int]]:
        return self.engine.batches(requests, decoding, batch_size)

    def complete(self, requests: Sequence[Request], decoding: Decoding) -> list[list[str]]:
        self._live()
        # A random policy names no steps: these let the judge be asked, and still depend on what was drawn.
        return [
            [f"<step1>{text}</step1><step2>{text}</step2>\\boxed{{awe}}" for text in texts]
            for texts in self.engine.complete(requests, decoding)
        ]

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        self._live()
        return self.judge.answer(questions)


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    """As `few_draws`, for fixtures that serve several tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emor3.stats.uncertainty.BOOTSTRAP_DRAWS", 100)
        yield


@pytest.fixture(scope="module")
def candidate(random_checkpoint: str) -> Candidate:
    return load_candidate(random_checkpoint)


def run(
    candidate: Candidate,
    data: str,
    folder: Path,
    lives: int,
    *,
    settings: EvaluationSettings = SETTINGS,
    **options: Any,
) -> int:
    """Evaluate until it is whole or killed; returns how many batches were made."""
    dying = Dying(candidate, lives)
    mortal = Candidate(candidate.path, dying, candidate.judge_path, dying, None)
    with suppress(KilledError):
        evaluate(mortal, [data], settings, folder, **options)
    return dying.made


@pytest.fixture(scope="module")
def whole(candidate: Candidate, scenes: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """An evaluation that was never stopped, and its number of batches."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    made = run(candidate, scenes, folder, 1000)
    # 2 batches of 2 images, 4 of an image with its 2 draws, and 2 calls of the judge (own and swapped descriptions),
    # of which each asks in one or more batches.
    assert made >= 2 + 4 + 2
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    return folder, made


def test_an_evaluation_that_was_killed_anywhere_ends_with_the_same_files_and_makes_no_batch_twice(
    candidate: Candidate, scenes: str, whole: tuple[Path, int], tmp_path: Path
) -> None:
    expected, batches = whole
    for lives in (1, batches - 5, batches - 1):  # among answers, while they are judged, and among draws
        folder = tmp_path / f"killed-{lives}"
        assert run(candidate, scenes, folder, lives) == lives
        with (folder / "unfinished.jsonl").open("a") as file:
            file.write('{"batch": "cut sho')  # as a process that is killed while it writes leaves it
        assert run(candidate, scenes, folder, 1000, resume=True) == batches - lives
        for name in FILES:
            assert (folder / name).read_bytes() == (expected / name).read_bytes()
        assert not (folder / "unfinished.jsonl").exists()


def test_what_was_done_before_decides_no_draw(candidate: Candidate, scenes: str, whole: tuple[Path, int]) -> None:
    engine = candidate.engine
    requests: list[Request] = [((), f"What is felt? {place}") for place in range(4)]
    decoding = Decoding(max_new_tokens=4, temperature=1.0, seed=5, draws=2)
    second = decoding.of_batch(1)
    alone = engine.complete(requests[2:], second)
    engine.complete(requests[:2], decoding.of_batch(0))
    assert engine.complete(requests[2:], second) == alone
    assert second.seed != decoding.seed == decoding.of_batch(0).seed


@pytest.fixture
def unfinished(candidate: Candidate, scenes: str, tmp_path: Path) -> Path:
    folder = tmp_path / "unfinished"
    run(candidate, scenes, folder, 2)
    return folder


def test_another_limit_model_or_data_is_refused_by_name_and_nothing_is_lost(
    candidate: Candidate, scenes: str, unfinished: Path, tmp_path: Path
) -> None:
    before = (unfinished / "unfinished.jsonl").read_bytes()
    fewer = SETTINGS.model_copy(update={"limit": 3})
    with pytest.raises(OtherEvaluationError, match=r"settings\.limit 4 -> 3"):
        run(candidate, scenes, unfinished, 9, settings=fewer, resume=True)
    head = json.loads((unfinished / "evaluation.json").read_text())
    head["checkpoints"][candidate.path] = "of other weights"
    (unfinished / "evaluation.json").write_text(json.dumps(head))
    with pytest.raises(OtherEvaluationError, match=r"checkpoints\..*of other weights -> "):
        run(candidate, scenes, unfinished, 9, resume=True)
    head["checkpoints"] = {}
    head["data"][0]["content_sha256"] = "of another picture"
    (unfinished / "evaluation.json").write_text(json.dumps(head))
    with pytest.raises(OtherEvaluationError, match=r"content_sha256 of another picture -> "):
        run(candidate, scenes, unfinished, 9, resume=True)
    assert (unfinished / "unfinished.jsonl").read_bytes() == before


@pytest.mark.parametrize(("weighed", "goes_on"), [(False, True), (True, False)])
def test_one_that_older_code_began_goes_on_if_what_is_gone_did_nothing(
    candidate: Candidate, scenes: str, unfinished: Path, weighed: bool, goes_on: bool
) -> None:
    head = json.loads((unfinished / "evaluation.json").read_text())
    head["settings"]["reflective"] = weighed
    (unfinished / "evaluation.json").write_text(json.dumps(head))
    if goes_on:
        run(candidate, scenes, unfinished, 1000, resume=True)
        assert (unfinished / "results.json").is_file()
    else:
        with pytest.raises(OtherEvaluationError, match=r"settings\.reflective True -> False"):
            run(candidate, scenes, unfinished, 9, resume=True)


def test_no_command_takes_an_unfinished_evaluation_for_a_whole_one(unfinished: Path) -> None:
    with pytest.raises(UserError, match=r"an unfinished evaluation: .* --resume goes on"):
        read_evaluation(unfinished)  # as compare, share and evaluate --from read it
    records = read_records([unfinished])
    assert not records.evaluations
    assert "an unfinished evaluation" in records.faults[0]
    (row,) = standings(unfinished.parent)
    assert row.state == "stopped"
    with pytest.raises(UserError, match="holds an unfinished evaluation: give --resume"):
        evaluation_folder(unfinished, resume=False).__enter__()


def test_a_whole_evaluation_has_nothing_left_to_go_on_with(
    candidate: Candidate, scenes: str, whole: tuple[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(candidate, scenes, whole[0], 0, resume=True) == 0
    assert "is finished, nothing is left to do" in capsys.readouterr().out


def test_only_a_named_folder_with_an_evaluation_or_nothing_in_it_is_gone_on_in(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name it with --output"), evaluation_folder(None, resume=True):
        pass
    (tmp_path / "kept.txt").touch()
    refusal = r"nothing to go on with in .*: it has no evaluation\.json"
    with pytest.raises(UserError, match=refusal), evaluation_folder(tmp_path, resume=True):
        pass
    with evaluation_folder(tmp_path / "new", resume=True) as folder:
        assert folder == tmp_path / "new"


def test_a_signal_names_the_way_to_go_on(unfinished: Path) -> None:
    hint = f"--resume --output {unfinished} goes on"
    with pytest.raises(Stopped, match=hint), evaluation_folder(unfinished, resume=True):
        raise Stopped(2)


def test_a_batch_is_known_by_what_it_was_made_from(tmp_path: Path) -> None:
    def never() -> list[Any]:
        raise AssertionError

    ways: list[Callable[[], list[Any]]] = [lambda: ["joy"], lambda: ["awe"]]
    path = tmp_path / "unfinished.jsonl"
    assert [Journal(path).once(content, make) for content, make in zip("ab", ways, strict=True)] == [["joy"], ["awe"]]
    assert Journal(path).once("a", never) == ["joy"]
