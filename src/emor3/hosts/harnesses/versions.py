"""Versions of the harnesses that the adapters were run with; others are refused in one line."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from emor3.errors import UserError

LMMS, INSPECT, VLMEVAL = "lmms-eval", "inspect-ai", "VLMEvalKit"
RUN_WITH: Mapping[str, tuple[str, str]] = {LMMS: (">=0.7.3,<0.8", "0.7.3"), INSPECT: (">=0.3.285,<0.4", "0.3.285")}
"""Package -> versions that are taken, and the one that `make integrations` runs."""


def check_version(package: str) -> str:
    """The version of a harness that is installed. Raises UserError if it is none that the adapter was run with."""
    wanted, ran = RUN_WITH[package]
    try:
        found = version(package)
    except PackageNotFoundError:
        raise UserError(f"{package} is not installed: pip install '{package}=={ran}'") from None
    if not SpecifierSet(wanted).contains(found, prereleases=True):
        raise UserError(
            f"{package} {found} is installed, and emor3's adapter was run with {ran} (it takes {wanted}): "
            f"pip install '{package}=={ran}'"
        )
    return found
