"""CI runs every test: one that is skipped fails it unless tests/support/skips.py says why."""

from collections.abc import Callable
from typing import Any

import pytest

from places import ROOT, SUPPORT
from skips import EXPECTED

pytest_plugins = ["pytester"]

HOOKS = (SUPPORT / "skips.py").read_text(encoding="utf-8")
SKIPPED = {
    "a test": "import pytest\ndef test_page():\n    pytest.skip('no browser')\n",
    "a module": "import pytest\npytest.importorskip('no_such_module', reason='no browser')\n",
}


@pytest.fixture
def pytest_on(pytester: Any) -> Callable[..., pytest.RunResult]:
    """Run pytest in a folder of its own, on one module beside one that passes."""

    def run(source: Any, *options: Any) -> Any:
        pytester.makeconftest(HOOKS)
        pytester.makepyfile(test_other="def test_other():\n    pass\n", test_page=source)
        return pytester.runpytest_inprocess(*options)

    return run


@pytest.mark.parametrize("source", SKIPPED.values(), ids=SKIPPED.keys())
def test_what_is_skipped_fails_ci_and_is_named(pytest_on: Callable[..., pytest.RunResult], source: Any) -> None:
    done = pytest_on(source, "--no-skips")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines_random("SKIPPED, which fails here: test_page.py*: no browser")


def test_elsewhere_it_may_be_skipped_and_in_ci_nothing_else_fails(pytest_on: Callable[..., pytest.RunResult]) -> None:
    assert pytest_on(SKIPPED["a test"]).ret == pytest.ExitCode.OK
    assert pytest_on("def test_page():\n    pass\n", "--no-skips").ret == pytest.ExitCode.OK


def test_every_listed_skip_is_of_a_test_that_exists() -> None:
    for name in EXPECTED:
        file, _, test = name.split("[")[0].partition("::")
        assert (f"def {test}(" if test else "def test_") in (ROOT / file).read_text(encoding="utf-8")
