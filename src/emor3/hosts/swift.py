"""ms-swift: each part of the reward as an ORM plugin, by the names `emor3_accuracy`, `emor3_format` and so on.

`emor3 data export --for swift` writes the file for `--external_plugins`, whose one call is `register()`. ms-swift hands
the plugins the columns of the row; settings and judge stand in the file that EMOR3_REWARD names.
"""

from collections.abc import Sequence
from typing import Any

from emor3.hosts.rows import COLUMN
from emor3.hosts.scoring import SharedParts, scorer
from emor3.hosts.versions import SWIFT, check_trainer

PARTS = ("accuracy", "format", "consistency", "coherence", "confidence")


def register() -> None:
    """Enter the plugins in ms-swift's table of ORMs. Raises ImportError without ms-swift, UserError for an old one."""
    check_trainer(SWIFT)
    from swift.rewards import ORM, orms

    shared = SharedParts(lambda: scorer(None, whole_groups=False))
    for part in PARTS:
        orms[f"emor3_{part}"] = _plugin(ORM, part, shared)


def _plugin(base: type, part: str, shared: SharedParts) -> type:
    """A class of ORM for one part; None for what the judge failed on, which ms-swift leaves out of the sum."""

    def call(self: Any, completions: Sequence[str], **columns: Any) -> list[float | None]:
        return shared.values(part, columns.get(COLUMN), completions)

    return type(f"emor3_{part}", (base,), {"__call__": call, "__doc__": f"The part {part} of emor3's reward."})
