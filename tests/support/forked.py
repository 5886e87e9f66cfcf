"""Processes of their own at the cost of a fork: a server of the tests has imported torch, TRL and the package before.

To import these takes nine CPU seconds, more than most of what a test then asks of a process. A forked process is as
separate as a started one: it can be killed, has an environment of its own, and several can be ranks of one run. That
`emor3` and the launchers start from nothing is tested elsewhere, once (tests/cli/test_main.py; `environments` below).
"""

import _socket
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from json import loads
from pathlib import Path
from tempfile import mkdtemp

import yaml

from places import ROOT, SUPPORT
from waiting import HANGS

PRELOADED = ("deepspeed", "emor3.cli.main", "emor3.evaluation.evaluate", "emor3.training.run")
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(list(PRELOADED))


class Forked:
    """A process that runs `emor3` or a script of tests/support; has what tests use of `subprocess.Popen`."""

    def __init__(self, script: str, *arguments: object, env: Mapping[str, str] | None = None) -> None:
        self.folder = Path(mkdtemp())
        texts = [str(argument) for argument in arguments]
        self.process = server.Process(target=work, args=(script, texts, dict(env or {}), self.folder))
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def communicate(self, timeout: float = HANGS) -> tuple[str, str]:
        """What it wrote to its output and its errors, once it has ended. Fails if it seems to hang."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"process {self.pid} hangs")
        out, err = ((self.folder / name).read_text() for name in ("out", "err"))
        return out, err


def work(script: str, arguments: list[str], env: dict[str, str], folder: Path) -> None:
    """Become the process that was asked for."""
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    os.environ.update(env)
    sys.argv = [script, *arguments]
    if script == "emor3":
        from emor3.cli.main import main

        main()
    else:
        runpy.run_path(str(SUPPORT / script), run_name="__main__")


@cache
def environments(layout: str) -> Sequence[dict[str, str]]:
    """What a real launcher sets for each of two ranks: torchrun for `ddp`, else accelerate with the shipped file."""
    folder = Path(mkdtemp())
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    if layout != "ddp":
        shipped = yaml.safe_load((ROOT / f"recipes/accelerate/{layout}.yaml").read_text())
        shipped |= {"use_cpu": layout == "fsdp2", "num_processes": 2, "mixed_precision": "no", "main_process_port": 0}
        (folder / "accelerate.yaml").write_text(yaml.safe_dump(shipped))
        launcher = ["accelerate.commands.launch", "--config_file", str(folder / "accelerate.yaml")]
    env = os.environ | {"ACCELERATE_USE_CPU": str(layout != "zero3"), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *launcher, str(SUPPORT / "print_environment.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stderr
    ranks = [loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["WORLD_SIZE"] for rank in ranks] == ["2", "2"]
    # The launcher's own store is gone with it: rank 0 opens one.
    return [{name: value for name, value in rank.items() if not name.startswith("TORCHELASTIC")} for rank in ranks]


def start_ranks(layout: str, script: str, *arguments: object) -> list[Forked]:
    """Two ranks of one run, in a layout: `ddp`, `fsdp2` or `zero3`."""
    free = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)  # below the guard that keeps tests off the network
    free.bind(("127.0.0.1", 0))
    port = str(free.getsockname()[1])
    free.close()
    return [Forked(script, *arguments, env=env | {"MASTER_PORT": port}) for env in environments(layout)]


def end_of(processes: Sequence[Forked]) -> str:
    """What all wrote to their errors, once they ended. Ends all if one fails, as a launcher does, or seems to hang."""
    deadline = time.monotonic() + HANGS
    while any(process.poll() is None for process in processes):
        if any(process.poll() for process in processes) or time.monotonic() > deadline:
            for process in processes:
                process.process.kill()
        time.sleep(0.02)
    return "".join(process.communicate()[1] for process in processes)
