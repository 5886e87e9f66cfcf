"""docs/method.md names functions and tests; all of them must exist."""

import importlib
import re

import pytest

from places import ROOT

TEXT = (ROOT / "docs" / "method.md").read_text("utf-8")
ROWS = re.findall(r"\| `(emor3[\w.]+)\.(\w+)` \| `(tests/[\w/]+\.py)::(\w+)` \|", TEXT)


@pytest.mark.parametrize(("module", "function", "file", "test"), ROWS, ids=lambda part: part.split("/")[-1])
def test_a_row_of_the_method_names_a_function_and_a_test_that_exist(module, function, file, test):
    assert callable(vars(importlib.import_module(module))[function])
    assert f"\ndef {test}(" in (ROOT / file).read_text("utf-8")


def test_every_row_of_the_tables_names_both():
    tables = [line for line in TEXT.splitlines() if line.startswith("| ")]
    heads = [line for line in tables if line.endswith("| function | test |")]
    assert len(tables) - len(heads) == len(ROWS) > 20
