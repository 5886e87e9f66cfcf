"""Scripts beside the package: what a checkout holds and the wheel does not, because few need it."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import emor3
from emor3.errors import UserError


def script(command: str, folder: str, name: str) -> ModuleType:
    """The module `FOLDER/NAME.py` of the checkout that this package runs from. Raises UserError if it is installed."""
    path = Path(emor3.__file__).parents[2] / folder
    if not (path / f"{name}.py").is_file():
        raise UserError(f"{command} runs {folder}/{name}.py, which is not installed: clone emor3 and run it there")
    if str(path) not in sys.path:
        sys.path.append(str(path))
    return import_module(name)
