"""The files of a Hugging Face Space that serves the page, the package itself among them."""

import shutil
from importlib.metadata import requires, version
from importlib.resources import as_file, files
from pathlib import Path

import jinja2
import yaml
from packaging.requirements import Requirement

from emor3.demo.looking import DemoSettings
from emor3.demo.serving import check_gradio
from emor3.errors import UserError
from emor3.models.checkpoints import PACKAGED
from emor3.storage.outputs import new_output

PYTHON = "3.12"
"""Of the Space."""
NOT_SHIPPED = shutil.ignore_patterns("__pycache__")


def export_space(settings: DemoSettings, output: Path) -> Path:
    """Write app.py, requirements.txt, README.md and the package into a new folder; returns that folder.

    Raises UserError if Gradio is missing, the folder is taken, or a model lies on this machine only.
    """
    check_gradio()
    models = [path for path in (settings.model, settings.compare, settings.judge) if path is not None]
    for path in models:
        if Path(path).exists() and path not in PACKAGED:
            raise UserError(f"a Space cannot read {path} of this machine: push it to the hub, and give its name")
    with new_output(output) as folder:
        with as_file(files("emor3")) as package:  # emor3 is in no registry from which a Space could install it
            shutil.copytree(package, folder / "emor3", ignore=NOT_SHIPPED)
        (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements()), encoding="utf-8")
        (folder / "app.py").write_text(_filled("app.py.jinja", settings=vars(settings)), encoding="utf-8")
        page = _filled("space.md.jinja", header=_header([m for m in models if m not in PACKAGED]), models=models)
        (folder / "README.md").write_text(page, encoding="utf-8")
    return output


def requirements() -> list[str]:
    """What the package needs, without its extras; the Space brings Gradio."""
    needed = map(Requirement, requires("emor3") or [])
    return [str(requirement) for requirement in needed if requirement.marker is None]


def _header(models: list[str]) -> str:
    """The settings of a Space, as YAML."""
    header = {
        "title": "emor3 demo",
        "emoji": "🎭",
        "colorFrom": "blue",
        "colorTo": "yellow",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": PYTHON,
        "app_file": "app.py",
        "license": "apache-2.0",
    }
    return yaml.safe_dump(header | ({"models": models} if models else {}), sort_keys=False, allow_unicode=True)


def _filled(name: str, **values: object) -> str:
    loader = jinja2.PackageLoader("emor3", "demo/templates")
    template = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return template.get_template(name).render(**values)
