"""Runs scripts one after another on every rank: the libraries are imported once, not per script.

    torchrun --nproc-per-node 2 rank_driver.py jobs.json folder

jobs.json is a list of [script, argument, ...]. Each rank leaves ``folder/rank<n>.json``: of every
job the exit code, what it said, and the files below ``folder`` that this rank touched.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))

from inside import SCRIPTS, run_inside

sys.path.insert(0, str(SCRIPTS))

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Touched:
    """Notes what this process writes, makes, moves or removes below a folder."""

    def __init__(self, folder: Path):
        self.folder, self.paths = str(folder), set()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = flags & WRITING if mode is None else set(mode) & set("wax+")
        else:
            path, writes = arguments[0] if arguments else "", event in CHANGES
        if writes and isinstance(path, (str, os.PathLike)) and str(path).startswith(self.folder):
            self.paths.add(str(path))


class Ports:
    """A port of its own for every process group: the launcher's store keeps what is in it."""

    def __init__(self):
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.store = dist.TCPStore(*address, is_master=False)
        self.number = 0
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"

    def next(self) -> None:
        """Agree on a free port; the next process group will meet there."""
        name = f"port{self.number}"
        self.number += 1
        if os.environ["RANK"] == "0":
            with socket.socket() as free:
                free.bind(("", 0))
                self.store.set(name, str(free.getsockname()[1]))
        os.environ["MASTER_PORT"] = self.store.get(name).decode()


def main() -> None:
    jobs, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    torch.set_num_threads(1)
    touched, ports, reports = Touched(folder), Ports(), []
    for job in jobs:
        ports.next()
        touched.paths.clear()
        result = run_inside(*job)
        reports.append([result.returncode, result.stderr, sorted(touched.paths)])
        if dist.is_initialized():  # after an error no farewell is said
            dist.destroy_process_group()
    report = json.dumps(reports)
    (folder / f"rank{os.environ['RANK']}.json").write_text(report)


if __name__ == "__main__":
    main()
