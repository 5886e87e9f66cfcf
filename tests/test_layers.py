"""The package is layered: imports point down the list of packages, and the method's core never loads torch."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

import emor3

ROOT = Path(emor3.__file__).parent
PACKAGES = (  # from the bottom; "" are the files beside the packages
    *(
        "",
        "storage",
        "method",
        "scoring",
        "stats",
        "models",
        "tiny",
        "judges",
        "data",
        "heldout",
        "runs",
        "training",
        "evaluation",
    ),
    *("api", "hosts", "review", "report", "demo", "experiments", "tools", "cli"),
)
PURE = ("storage", "method", "scoring", "stats", "runs")
MOST_MODULES = 9


def modules() -> Any:
    """Every module by its dotted name below `emor3`; a package by its own."""
    found = {}
    for path in ROOT.rglob("*.py"):
        *parents, name = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parents if name == "__init__" else [*parents, name])] = path
    del found[""], found["__main__"]  # the entry point may stand above everything
    return found


MODULES = modules()


def package_of(module: str) -> str:
    """The folder of a module directly below `emor3`; "" for a file beside the packages."""
    first = module.split(".")[0]
    return first if (ROOT / first).is_dir() else ""


def imports_of(module: str) -> set[str]:
    """Modules of the package that a module imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative path"
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name.removeprefix("emor3.") in MODULES else node.module for name in names}
    return {name.removeprefix("emor3.") for name in found} & MODULES.keys() - {module}


def modules_loaded_by(code: str) -> set[str]:
    """Names of the modules in a fresh interpreter after it ran the code."""
    script = f"{code}\nimport sys\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_every_package_has_a_place_in_the_order() -> None:
    assert {package_of(module) for module in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down_the_list_of_packages(module: Any) -> None:
    place = PACKAGES.index(package_of(module))
    above = {name for name in imports_of(module) if PACKAGES.index(package_of(name)) > place}
    assert not above


def test_no_modules_import_each_other_in_a_circle() -> None:
    tuple(TopologicalSorter({module: imports_of(module) for module in MODULES}).static_order())  # raises CycleError


@pytest.mark.parametrize(
    "package",
    [
        *PACKAGES,
        "data.copies",
        "data.importers",
        "data.importers.benchmarks",
        "data.importers.clips",
        "hosts.exports",
        "hosts.harnesses",
        "report.paper",
        "models.packing",
        "models.engines",
        "stats.agreement",
        "stats.people",
    ],
)
def test_a_folder_holds_few_modules(package: Any) -> None:
    folder = ROOT / package.replace(".", "/")
    assert len([path for path in folder.glob("*.py") if path.stem != "__init__"]) <= MOST_MODULES


def test_the_core_of_the_method_never_loads_torch() -> None:
    pure = [module for module in MODULES if package_of(module) in PURE]
    loaded = modules_loaded_by("\n".join(f"import emor3.{module}" for module in pure))
    assert "emor3.method.rewards" in loaded
    assert not loaded & {"torch", "transformers", "trl"}


def test_help_and_the_bare_package_never_load_torch() -> None:
    call_help = "from emor3.cli.main import app\napp(['--help'], standalone_mode=False)"
    for code in ("import emor3\nemor3.score_rows, emor3.parse, emor3.Reply", call_help):
        assert not modules_loaded_by(code) & {"torch", "transformers", "trl", "numpy"}
