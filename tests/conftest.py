"""Shared fixtures: a randomly initialised tiny model, and small data sets drawn from the embedded world."""

import pytest

from build_tiny import tokenizer_texts
from emor3.models.checkpoints import save
from emor3.tiny.folders import write_domain
from emor3.tiny.world import DOMAINS
from rows import write_mixed
from skips import pytest_addoption, pytest_sessionfinish, pytest_terminal_summary
from tiny_model import build_model, build_processor, build_tokenizer

__all__ = ["pytest_addoption", "pytest_sessionfinish", "pytest_terminal_summary"]  # pytest finds its hooks here


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory):
    """Folder of a tiny Qwen2.5-VL with random weights: right in form, and knowing nothing."""
    folder = tmp_path_factory.mktemp("random_checkpoint")
    tokenizer = build_tokenizer(tokenizer_texts(200))
    save(build_model(tokenizer, seed=0), build_processor(tokenizer), folder)
    return str(folder)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Folder of a few drawn scenes with Mikels' labels: 24 to train on, 8 to test on."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_domain(folder, DOMAINS["scenes8"], seed=0, sizes={"train": 24, "test": 8})
    return str(folder)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """Folder with four rows in each split: one image, two, none but a text, one with a text."""
    return write_mixed(tmp_path_factory.mktemp("mixed"))
