"""Median CPU time of `import emor3` and `emor3 --help` in fresh interpreters. Run: python benchmarks/startup.py

CPU seconds of the process, because a busy machine stretches the clock's and not these.
"""

import resource
import subprocess
import sys
from statistics import median

ROUNDS = 9
COMMANDS = {"import emor3": ["-c", "import emor3"], "emor3 --help": ["-m", "emor3", "--help"]}


def children() -> float:
    """CPU seconds of all processes that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds(arguments: list[str]) -> float:
    """CPU time of one fresh interpreter."""
    before = children()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return children() - before


for name, arguments in COMMANDS.items():
    times = [seconds(arguments) for _ in range(ROUNDS)]
    print(f"{name}: median {median(times):.3f} CPU s of {ROUNDS} ({min(times):.3f} to {max(times):.3f})")
