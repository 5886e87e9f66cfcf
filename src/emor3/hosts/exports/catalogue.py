"""The table HOSTS: every tool that `emor3 data export` writes for.

A new one is a module beside this one with a function `write(samples, folder, options) -> Written`, and its entry here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emor3.data.folders import load_samples, resolve_folder
from emor3.errors import UserError, did_you_mean
from emor3.hosts.exports import easyr1, lmms, swift, trl, verifiers, verl, vlmeval
from emor3.hosts.exports.writing import README, ExportOptions, Written, readme
from emor3.hosts.versions import LMMS, RUN_WITH, SWIFT, TRAINERS, TRL, VERIFIERS, VERL, VLMEVAL_RUN
from emor3.method.types import Sample
from emor3.storage.outputs import new_output, write_whole

Write = Callable[[Sequence[Sample], Path, ExportOptions], Written]
"""Writes rows, prompt file and images of the samples (all splits) into the folder, a draft of `options.out`."""


@dataclass(frozen=True)
class Host:
    """One tool that reads our data."""

    title: str
    write: Write
    run_with: str
    """Version that the adapter was run with, as its README says."""
    rewards: bool = True
    """Whether it trains by our reward, so that rows name distractors."""


HOSTS: Mapping[str, Host] = {
    "trl": Host("TRL", trl.write, TRAINERS[TRL]),
    "easyr1": Host("EasyR1", easyr1.write, "none: its loader at b44b311 (0.3.3.dev0) was followed"),
    "verl": Host("verl", verl.write, TRAINERS[VERL]),
    "swift": Host("ms-swift", swift.write, TRAINERS[SWIFT]),
    "verifiers": Host("verifiers", verifiers.write, TRAINERS[VERIFIERS]),
    "lmms": Host("lmms-eval", lmms.write, RUN_WITH[LMMS][1], rewards=False),
    "vlmeval": Host("VLMEvalKit", vlmeval.write, VLMEVAL_RUN, rewards=False),
}


def known_host(name: str) -> Host:
    """The host of a name. Raises UserError, naming the nearest, for an unknown one."""
    if name in HOSTS:
        return HOSTS[name]
    hint = f"{did_you_mean(name, HOSTS)} There are".lstrip()
    raise UserError(f"--for {name}: no such host: {hint} {', '.join(HOSTS)}")


def export_data(
    host: str,
    data: str,
    out: Path,
    *,
    split: str | None = None,
    template: str = "steps",
    distractors: int = 2,
    seed: int = 0,
    copy: bool = False,
) -> Written:
    """Write a data folder (one split, or all) as the host reads it, with a README that holds the exact command.

    Raises UserError for an unknown host, a folder that cannot be read, and a place that cannot be written to.
    """
    chosen, source = known_host(host), resolve_folder(data)
    samples = load_samples(data, split=split)
    options = ExportOptions(source, out.expanduser().resolve(), template, distractors, seed, copy)
    with new_output(out, source) as folder:
        written = chosen.write(samples, folder, options)
        write_whole(folder / README, "\n".join(readme(chosen.title, chosen.run_with, written)) + "\n")
    return written


def export_lines(written: Written, out: Path) -> Iterator[str]:
    """What was exported, in lines."""
    for split, file in written.files.items():
        yield f"{split}: {out / file}"
    yield f"the command that reads it: {out / README}"
