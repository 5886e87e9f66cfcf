"""Shared fixtures: a randomly initialised tiny model, small data sets drawn from the embedded world, the command."""

import signal
import sys
from collections.abc import Callable, Iterator

import pytest

import torchvision_operators  # noqa: F401  # before anything that imports torchvision
from build_tiny import tokenizer_texts
from emor3.cli.main import main
from emor3.models.checkpoints import save
from emor3.tiny.folders import write_domain
from emor3.tiny.world import DOMAINS
from rows import write_mixed
from skips import pytest_addoption, pytest_sessionfinish, pytest_terminal_summary
from tiny_model import build_model, build_processor, build_tokenizer

__all__ = ["pytest_addoption", "pytest_sessionfinish", "pytest_terminal_summary"]  # pytest finds its hooks here


@pytest.fixture(scope="session", autouse=True)
def listening_to_ctrl_c() -> Iterator[None]:
    """Also where the tests were put in the background, by a shell that lets its jobs, and theirs, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny Qwen2.5-VL with random weights: right in form, and knowing nothing."""
    folder = tmp_path_factory.mktemp("random_checkpoint")
    tokenizer = build_tokenizer(tokenizer_texts(200))
    save(build_model(tokenizer, seed=0), build_processor(tokenizer), folder)
    return str(folder)


@pytest.fixture
def main_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the `emor3` command with arguments in this process, as the shell would; returns the exit status."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["emor3", *map(str, arguments)])
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that another command holds is refused at once, not after the time that one takes to end."""
    monkeypatch.setattr("emor3.storage.locks.PATIENCE", 0.0)


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the resamples of a confidence interval and of a paired test, which take most of a test's time."""
    monkeypatch.setattr("emor3.stats.uncertainty.BOOTSTRAP_DRAWS", 100)
    monkeypatch.setattr("emor3.stats.uncertainty.PERMUTATION_DRAWS", 999)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a few drawn scenes with Mikels' labels: 24 to train on, 8 to test on."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_domain(folder, DOMAINS["scenes8"], seed=0, sizes={"train": 24, "test": 8})
    return str(folder)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder with four rows in each split: one image, two, none but a text, one with a text."""
    return write_mixed(tmp_path_factory.mktemp("mixed"))
