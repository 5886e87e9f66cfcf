"""What a person may want to do next: one line after every command that leaves something to go on with.

On standard error, so that what a command prints can be saved or piped as it is.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from emor3.printing import say
from emor3.signals import speaks_for_all

NEXT: Mapping[str, str] = {
    "quickstart": "emor3 report {folder} puts it on a page; emor3 recipes lists what else can be trained",
    "init": "emor3 data check {folder} --recipe {recipe}, then emor3 plan {recipe} --memory {memory}, then "
    "emor3 train {recipe}",
    "train": "emor3 evaluate --model {run} --data {folder}, or emor3 report {run}",
    "evaluate": "emor3 compare OTHER {folder} (another evaluation of the same images), or emor3 report {folder}",
    "predict": "emor3 evaluate --model {model} --data DIR measures it on labelled images",
    "demo --export-space": "hf upload NAME/SPACE {folder} . --repo-type space puts it on the hub",
    "reproduce": "emor3 report {folder}",
    "runs": "emor3 report {folder}",
    "runs (none)": "emor3 train quickstart trains a tiny model; emor3 init DATA begins with your own images",
    "compare": "emor3 report {folders}",
    "review": "emor3 report {folders} shows how far judge and people agree, once all have marked",
    "report": "open {page} in a browser",
    "report --paper": "read {page}, and run what its first list says is missing",
    "share": "emor3 export RUN DIR --evaluation {folder} puts these figures on the model's card",
    "score": "emor3 train RECIPE trains by this reward; docs/trainers.md has it in other trainers",
    "export": "emor3 evaluate --model {folder} --data DIR; from_pretrained loads it elsewhere",
    "plan": "emor3 train {recipe}",
    "plan (too large)": "emor3 plan {recipe} with --set KEY=VALUE of what makes it smaller, or more --gpus or --memory",
    "recipes": "emor3 plan NAME, then emor3 train NAME; emor3 recipes NAME copies one to edit it",
    "recipes recipe": "emor3 plan {recipe}, then emor3 train {recipe}",
    "recipes plan": "emor3 reproduce {recipe} --quick, the core methods with one seed",
    "recipes launch": "accelerate launch --config_file {recipe} -m emor3 train RECIPE",
    "doctor": "emor3 quickstart, or emor3 init DATA with your own images",
    "data check": "emor3 init {folder} writes a recipe for it; emor3 recipes lists the shipped ones",
    "data check (faults)": "mend the data; the same command with --faults FILE writes every fault",
    "data check --recipe": "emor3 plan {recipe}, then emor3 train {recipe}",
    "data check --for evaluate": "emor3 evaluate --model MODEL --data {folder}",
    "data check --across": "emor3 data check --across {folders} --output DIR writes a report with the pictures",
    "data check --across --output": "open {page} in a browser",
    "data import": "emor3 data check {folder}",
    "data export": "read {folder}/README.md, which holds the command for it",
    "data sample": "emor3 data check {folder}",
    "data stats": "emor3 data check {folder}",
    "bench step": "emor3 plan RECIPE --probe measures a step of your own recipe here",
    "bench growth": "read {page}",
    "tiny build": "emor3 evaluate --model {folder} --data embedded:scenes8",
}
"""Command, or one way to call it -> what comes next; names in braces are places that the command knows."""


def say_next(way: str, **places: str | Path | Sequence[str | Path]) -> None:
    """Say what comes next on one line, for all ranks once; `places` are spelt as a shell takes them."""
    spelt = {name: [place] if isinstance(place, str | Path) else place for name, place in places.items()}
    if speaks_for_all():
        text = NEXT[way].format_map({name: shlex.join(map(str, several)) for name, several in spelt.items()})
        say(f"next: {text}", error=True)
