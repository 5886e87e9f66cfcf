"""`pytest --no-skips`: a test that is skipped fails the suite, unless it stands here with its reason.

So CI tests what it is there to test, also after a dependency or a browser has gone missing.
"""

import pytest

EXPECTED = {
    "tests/models/test_architectures.py::test_a_mixed_batch_has_the_log_probabilities_and_gradients_of_its_rows"
    "[llava_onevision-": "TRL cannot train it on rows with several images; that it is refused is tested there, too",
    "tests/models/test_real_tokenizer.py": "the published files are no part of the project; a clone alone has none",
}
"""Beginnings of the tests' names, or whole modules, and why each is skipped."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option; for all of CI it is set by PYTEST_ADDOPTS."""
    parser.addoption(
        "--no-skips", action="store_true", help="fail where a test is skipped that tests/support/skips.py lacks"
    )


def unexpected(config: pytest.Config) -> list[pytest.TestReport]:
    """Reports of the skipped tests and modules that nothing excuses."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if not config.getoption("no_skips") or reporter is None:  # workers of pytest-xdist report to their master
        return []
    return [report for report in reporter.stats.get("skipped", ()) if not report.nodeid.startswith(tuple(EXPECTED))]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail."""
    if exitstatus == pytest.ExitCode.OK and unexpected(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name them."""
    for report in unexpected(terminalreporter.config):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"SKIPPED, which fails here: {report.nodeid}: {reason}", red=True)
