"""The package is layered: a module imports only modules before it, and the method's core never loads torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import emor3

PACKAGE = Path(emor3.__file__).parent
ORDER = (
    *(
        "errors",
        "storage.cells",
        "printing",
        "signals",
        "storage.locks",
        "storage.outputs",
        "storage.files",
        "storage.images",
        "storage.yaml_text",
        "bounds",
        "blocks",
    ),
    *("method.labels", "method.types"),
    *(
        "method.templating",
        "method.thinking",
        "method.reflection",
        "method.rewards",
        "method.canaries",
        "method.decoding",
        "runs.score_format",
        "method.scoring",
        "stats.uncertainty",
        "stats.figures",
        "stats.distributions",
        "runs.recipe",
        "runs.changes",
    ),
    *("runs.directory", "runs.predictions", "evaluation.summary", "evaluation.compare", "evaluation.share"),
    *("report.records", "report.plots", "report.cards", "report.page"),
    *("models.loading", "models.processors"),
    *("tiny.drawing", "tiny.world", "tiny.language", "tiny.folders", "tiny.examples", "tiny.model", "tiny.build"),
    *("data.folders", "data.manifest", "data.subsets"),
    *(
        "data.importers.items",
        "data.importers.class_folders",
        "data.importers.lists",
        "data.importers.faces",
        "data.importers.tables",
    ),
    "data.importers.catalogue",
    *(
        "models.sharding",
        "models.checkpoints",
        "evaluation.adapters",
        "models.prefix_cache",
        "models.image_cache",
        "models.dummy_image",
        "models.generation",
        "judges.local",
        "judges.endpoint",
        "judges.vllm",
        "judges.calibration",
        "training.start",
    ),
    *("data.duplicates", "models.tokens", "data.overview"),
    *(
        "training.groups",
        "training.dynamic_sampling",
        "runs.checkpoint_marks",
        "training.callbacks",
        "training.shared_prompts",
        "training.trainer",
        "training.stopping",
        "training.cold_start",
        "training.run",
    ),
    *(
        "data.check",
        "evaluation.evaluate",
        "evaluation.predict",
        "experiments.quickstart",
        "experiments.plan",
        "experiments.reproduce",
    ),
    *("experiments.training_table", "experiments.table", "tools.bench", "tools.bench_growth"),
    *("tools.export", "tools.doctor", "tools.capacity", "tools.reference"),
    *("cli.options", "cli.data", "cli.results", "cli.tools", "cli.main", "__main__"),
)
PURE = ORDER[: ORDER.index("loading")]


def modules() -> list[str]:
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return [".".join(path.parts) for path in paths if path.name != "__init__"]


def imports_of(module: str) -> set[str]:
    """Modules of the package that a module imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative path"
            found |= {node.module or ""} | {f"{node.module}.{name.name}" for name in node.names}
    return {name.removeprefix("emor3.") for name in found} & set(modules())


def modules_loaded_by(code: str) -> set[str]:
    """Names of the modules in a fresh interpreter after it ran the code."""
    script = f"{code}\nimport sys\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_every_module_has_a_place_in_the_order():
    assert sorted(modules()) == sorted(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_downward_only(module):
    lower = set(ORDER[: ORDER.index(module)])
    assert imports_of(module) <= lower


def test_the_core_of_the_method_never_loads_torch():
    loaded = modules_loaded_by("\n".join(f"import emor3.{module}" for module in PURE))
    assert "emor3.method.rewards" in loaded
    assert not loaded & {"torch", "transformers", "trl"}


def test_help_and_the_bare_package_never_load_torch():
    call_help = "from emor3.cli.main import app\napp(['--help'], standalone_mode=False)"
    for code in ("import emor3", call_help):
        assert not modules_loaded_by(code) & {"torch", "transformers", "trl", "numpy"}
