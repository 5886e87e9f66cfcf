"""Median wall time of `import emor3` and `emor3 --help` in fresh interpreters. Run: python benchmarks/startup.py"""

import subprocess
import sys
import time
from statistics import median

ROUNDS = 9
COMMANDS = {"import emor3": ["-c", "import emor3"], "emor3 --help": ["-m", "emor3.cli.main", "--help"]}


def seconds(arguments: list[str]) -> float:
    """Wall time of one fresh interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


for name, arguments in COMMANDS.items():
    times = [seconds(arguments) for _ in range(ROUNDS)]
    print(f"{name}: median {median(times):.3f} s of {ROUNDS} ({min(times):.3f} to {max(times):.3f})")
