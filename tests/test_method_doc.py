"""The docs name modules, functions, files and tests; all of them must exist."""

import importlib
import re
from typing import Any

import pytest

from places import ROOT

TEXT = (ROOT / "docs" / "method.md").read_text("utf-8")
ROWS = re.findall(r"\| `(emor3[\w.]*)\.(\w+)` \| `(tests/[\w/]+\.py)::(\w+)` \|", TEXT)
PAST = ("log", "CHANGELOG")  # which tell of what there was, by the names of its day
TO_COME = {"docs/performance/gpu.json"}  # written by a benchmark that the page says was not run yet
PAGES = {path.name: path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")] if path.stem not in PAST}


@pytest.mark.parametrize(("module", "function", "file", "test"), ROWS, ids=lambda part: part.split("/")[-1])
def test_a_row_of_the_method_names_a_function_and_a_test_that_exist(
    module: Any, function: Any, file: Any, test: Any
) -> None:
    assert callable(vars(importlib.import_module(module))[function])
    assert f"\ndef {test}(" in (ROOT / file).read_text("utf-8")


def test_every_row_of_the_tables_names_both() -> None:
    tables = [line for line in TEXT.splitlines() if line.startswith("| ")]
    heads = [line for line in tables if line.endswith("| function | test |")]
    assert len(tables) - len(heads) == len(ROWS) > 20


@pytest.mark.parametrize("name", PAGES)
def test_dotted_names_in_the_docs_exist(name: str) -> None:
    found = set(re.findall(r"\bemor3(?:\.[A-Za-z_]\w*)+", PAGES[name].read_text("utf-8")))
    assert sorted(dotted for dotted in found if not exists(dotted)) == []


@pytest.mark.parametrize("name", PAGES)
def test_files_of_the_repository_named_in_the_docs_exist(name: str) -> None:
    file_and_test = r"(?<![\w/.])((?:src|tests|docs|recipes|benchmarks|scripts)/[\w./-]*\w)(?![\w*])(?:::(\w+))?"
    found = set(re.findall(file_and_test, PAGES[name].read_text("utf-8")))
    missing = [file for file, test in found if file not in TO_COME and not (ROOT / file).exists()]
    missing += [test for file, test in found if test and f"\ndef {test}(" not in (ROOT / file).read_text("utf-8")]
    assert sorted(missing) == []


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module or stands in one."""
    module, _, name = dotted.rpartition(".")
    try:
        importlib.import_module(dotted)
    except ImportError:
        return bool(module) and exists(module) and hasattr(importlib.import_module(module), name)
    return True
