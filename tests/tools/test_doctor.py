"""Doctor passes what works, warns of what was not tested, and fails on what cannot work."""

import json
import re
import shutil
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

from emor3.cli.main import app
from emor3.tools import doctor
from emor3.tools.doctor import (
    TESTED,
    Check,
    check_disk,
    check_hub,
    check_model,
    check_packages,
    check_version,
    check_vllm,
    self_test,
)
from places import ROOT


def test_every_pinned_package_runs_on_the_oldest_python_that_we_name() -> None:
    named = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().split()}
    oldest = "3.11.0"
    assert oldest in named
    assert "3.10.99" not in named
    needs = {name: metadata(name).get("Requires-Python") for name in pinned if installed(name)}
    assert len(needs) > 100  # those of `make docs` are in an environment of their own
    assert not {name: said for name, said in needs.items() if said and oldest not in SpecifierSet(said)}


def installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert {name: pinned[name] for name in TESTED} == TESTED


def test_every_package_that_is_looked_at_is_one_we_require() -> None:
    assert [check.name for check in check_packages()] == list(TESTED)


@pytest.mark.parametrize(
    ("found", "status"),
    [("1.16.0", "ok"), ("1.16.0+cpu", "ok"), ("1.17.0", "warn"), ("1.15.0", "fail"), ("2.0", "fail")],
)
def test_a_version_is_in_range_and_tested_or_not(found: str, status: str) -> None:
    assert check_version("trl", found, "1.16.0", Requirement("trl>=1.16,<2")).status == status


def test_vllm_is_named_by_the_module_since_its_cpu_builds_are_another_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vllm.py").write_text('__version__ = "0.31.0"')
    monkeypatch.syspath_prepend(tmp_path)
    assert check_vllm() == Check("vLLM", "ok", "0.31.0")
    monkeypatch.delitem(sys.modules, "vllm")
    (tmp_path / "vllm.py").write_text('raise ImportError("no libcuda")')
    assert check_vllm().status == "fail"


def test_the_embedded_model_passes(random_checkpoint: str) -> None:
    assert check_model("embedded").status == "ok"
    assert check_model(random_checkpoint).status == "ok"
    assert self_test().status == "ok"


def test_a_processor_that_does_not_belong_to_the_model_fails(random_checkpoint: str, tmp_path: Path) -> None:
    folder = shutil.copytree(random_checkpoint, tmp_path / "mixed")
    config = json.loads((folder / "config.json").read_text())
    config["image_token_id"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    check = check_model(str(folder))
    assert (check.status, "no image token" in check.detail) == ("fail", True)
    config["image_token_id"] -= 1
    config["text_config"]["vocab_size"] = 10
    (folder / "config.json").write_text(json.dumps(config))
    assert re.search(r"tokenizer has \d+ tokens, the model only 10", check_model(str(folder)).detail)


def test_a_missing_checkpoint_a_text_model_a_full_disk_and_a_silent_hub_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_model("/no/such/folder").status == "fail"
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert check_model(str(tmp_path)).status == "fail"
    assert [check_disk(free).status for free in (1e9, 10e9, 100e9)] == ["fail", "warn", "ok"]

    class Hub:
        def model_info(self, name: str, timeout: float | None) -> None:
            if timeout < 60:
                raise OSError("no network")

    monkeypatch.setattr(doctor, "HfApi", Hub)
    assert (check_hub().status, "no network" in check_hub().detail) == ("warn", True)
    assert check_hub(60).status == "ok"


@pytest.mark.parametrize(("free", "status", "code"), [(10e9, "warn", 0), (1e9, "fail", 1)])
def test_a_failed_check_makes_the_status_1(
    monkeypatch: pytest.MonkeyPatch, free: float, status: str, code: int
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == code
    assert re.search(rf"disk\s+│ {status} ", done.output)
