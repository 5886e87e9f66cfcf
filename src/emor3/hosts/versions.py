"""Versions of hosts that the adapters were run with, and what happens with others.

A harness of another version is refused: an evaluation is quickly done anew with the right one. A trainer is not changed
lightly, so one that is newer only warns, once; one below the version that was run has not what the adapter calls, and
is refused.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from emor3.errors import UserError
from emor3.printing import say
from emor3.signals import speaks_for_all

LMMS, INSPECT, VLMEVAL = "lmms-eval", "inspect-ai", "VLMEvalKit"
RUN_WITH: Mapping[str, tuple[str, str]] = {LMMS: (">=0.7.3,<0.8", "0.7.3"), INSPECT: (">=0.3.285,<0.4", "0.3.285")}
"""Package of a harness -> versions that are taken, and the one that `make integrations` runs."""
VLMEVAL_RUN = "0.0.20 of ms-vlmeval"
"""What `make integrations` runs of VLMEvalKit, which is no package: others have made it one."""

TRL, VERL, SWIFT, VERIFIERS = "trl", "verl", "ms-swift", "verifiers"
TRAINERS: Mapping[str, str] = {TRL: "1.16.0", VERL: "0.9.1", SWIFT: "4.6.0", VERIFIERS: "0.4.0"}
"""Package of a trainer -> the version that `make integrations` runs. EasyR1 is none, and its code calls itself verl."""


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


@cache
def check_trainer(package: str) -> None:
    """Say once if the trainer that is installed is newer than the one that the adapter was run with.

    Raises UserError for an older one. One without package data, as in a checkout on the path, cannot be told.
    """
    ran = TRAINERS[package]
    try:
        found = version(package)
        older, newer = Version(found) < Version(ran), Version(found) > Version(ran)
    except PackageNotFoundError:
        return
    except InvalidVersion:
        older, newer = False, True
    if older:
        raise UserError(
            f"{package} {found} is installed, and emor3's adapter needs {ran} or newer (it was run with {ran}): "
            f"pip install '{package}=={ran}'"
        )
    if newer and speaks_for_all():
        say(
            f"{package} {found} is installed, and emor3's adapter was run with {ran}: if rewards look odd, install "
            "that, or run `make integrations` on yours in a checkout of emor3",
            error=True,
        )
