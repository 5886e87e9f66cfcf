"""A trainer of another version: an old one is refused, a newer one is told about once and goes on."""

import re
import tomllib
from typing import Any

import pytest

from emor3.errors import UserError
from emor3.hosts import trl, verl, versions
from emor3.hosts.exports.catalogue import HOSTS
from places import ROOT


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function that says which version of every host is installed; None: none that can be told."""

    def have(found: str | None) -> None:
        def version(package: str) -> str:
            if found is None:
                raise versions.PackageNotFoundError
            return found

        monkeypatch.setattr(versions, "version", version)
        versions.check_trainer.cache_clear()

    yield have
    versions.check_trainer.cache_clear()


@pytest.mark.parametrize("package", versions.TRAINERS)
def test_the_version_that_was_run_says_nothing(installed: Any, capsys: Any, package: str) -> None:
    for found in (versions.TRAINERS[package], f"{versions.TRAINERS[package]}.post1", None)[::2]:
        installed(found)
        versions.check_trainer(package)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("found", ["99.0.0", "99.0.0.dev3", "a-fork"])
def test_a_newer_or_odd_one_is_told_about_in_one_line_once(installed: Any, capsys: Any, found: str) -> None:
    installed(found)
    for _ in range(3):
        versions.check_trainer("verl")
    told = capsys.readouterr().err
    assert told.startswith(f"verl {found} is installed, and emor3's adapter was run with 0.9.1: ")
    assert told.count("\n") == 1
    assert "make integrations" in told


@pytest.mark.parametrize("package", versions.TRAINERS)
def test_an_older_one_is_refused_with_the_one_to_install(installed: Any, package: str) -> None:
    installed("0.0.1")
    wanted = re.escape(f"pip install '{package}=={versions.TRAINERS[package]}'")
    with pytest.raises(UserError, match=rf"^{package} 0.0.1 is installed, .* or newer .*{wanted}$"):
        versions.check_trainer(package)


def test_the_hosts_ask_before_anything_is_scored(installed: Any) -> None:
    installed("0.0.1")
    with pytest.raises(UserError, match=r"^trl 0.0.1 is installed"):
        trl.accuracy(completions=["x"], emor3=["{}"])
    with pytest.raises(UserError, match=r"^trl 0.0.1 is installed"):
        trl.PolicyRewards()
    with pytest.raises(UserError, match=r"^verl 0.0.1 is installed"):
        verl.compute_score("emor3", "x", "{}").send(None)


def test_the_versions_are_those_of_the_docs_the_makefile_and_our_own_bounds() -> None:
    rows = re.findall(r"^\| (\S+) \| ([\d.]+) \|", (ROOT / "docs" / "trainers.md").read_text(), re.M)
    assert dict(rows) == {HOSTS[name].title: HOSTS[name].run_with for name in ("trl", "verl", "swift", "verifiers")}
    make = (ROOT / "Makefile").read_text()
    for package in ("verl", "ms-swift", "verifiers"):
        minor = versions.TRAINERS[package].rpartition(".")[0]
        assert f"'{package}=={minor}.*'" in make
    bounds = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert any(one.startswith("trl>=1.16") for one in bounds)
