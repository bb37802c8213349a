"""Which GPUs a job gets, and how its processes start (standard library only).

Under SLURM all of it follows from the job's environment; elsewhere GPUs are taken by locking a
file per device.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import logging
import os
import stat
import tempfile
import time
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from .errors import InputError, problem

log = logging.getLogger(__name__)

Environment = MutableMapping[str, str]
VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 1.0
# What torchrun grants its processes, once asked to stop, to finish a step and save.
SHUTDOWN_SECONDS = 600


def take_gpus(wanted: int, environment: Environment) -> int:
    """Settle the GPUs of this process and the scripts it becomes; returns how many processes.

    SLURM's word goes: the devices that it granted are used, also where ``wanted`` is 0 (a site
    that grants them by ``gres``). Where it granted more, several scripts share one SLURM job, as
    they share a machine elsewhere: ``wanted`` free devices are locked, which waits until there
    are as many. A machine without devices computes on its CPU, with as many processes.

    environment : CUDA_VISIBLE_DEVICES is set in it, the numbers of threads (OMP_NUM_THREADS and
        its like) are divided among the processes.

    Raises
    ------
    InputError
        The machine never has as many GPUs.
    """
    if "SLURM_JOB_ID" in environment:
        granted = _listed(environment.get(VISIBLE, ""))
        if 0 < wanted < len(granted):
            # SLURM may count the devices of each job from 0: a lock is the job's own
            taken = lock_devices(granted, wanted, prefix=f"{environment['SLURM_JOB_ID']}.")
            environment[VISIBLE] = ",".join(taken)
        else:
            wanted = len(granted) or wanted
    elif wanted == 0:
        environment[VISIBLE] = ""
    elif devices := visible_devices(environment):
        if wanted > len(devices):
            fact = f"asks for {wanted} GPUs, {len(devices)} are visible here"
            raise InputError(problem("--gpus", fact, f"set gpu: {len(devices)} for this rule"))
        environment[VISIBLE] = ",".join(lock_devices(devices, wanted))
    ranks = max(wanted, 1)
    for name, threads in environment.items():
        # Snakemake gives each library the threads of the whole job
        if name.endswith("_NUM_THREADS") and threads.isdigit():
            environment[name] = str(max(1, int(threads) // ranks))
    return ranks


def visible_devices(environment: Environment) -> list[str]:
    """Ids of the NVIDIA devices of this machine that the user lets us see."""
    if VISIBLE in environment:
        return _listed(environment[VISIBLE])
    return [str(i) for i in range(len(glob.glob("/dev/nvidia[0-9]*")))]


def lock_devices(devices: Sequence[str], wanted: int, prefix: str = "") -> list[str]:
    """Lock ``wanted`` of the devices for as long as this process, or what it becomes, lives.

    Devices are tried in one order and all let go where they are too few, so two waiting jobs
    never hold what the other needs.

    prefix : of the names of the locks; other prefixes are other devices.
    """
    locks = {device: lock_folder() / f"{prefix}{device.replace('/', '_')}" for device in devices}
    waiting = False
    while len(taken := _try_lock(locks, wanted)) < wanted:
        if not waiting:
            log.info("waiting for %d free GPUs of %s", wanted, ", ".join(devices))
            waiting = True
        time.sleep(POLL_SECONDS)
    return taken


def lock_folder() -> Path:
    """This user's folder of lock files, which nobody else may write to.

    Raises
    ------
    InputError
        Somebody else made a folder, or a link, of that name.
    """
    # not TMPDIR, which may be another one for each job
    folder = Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir())
    folder /= f"cardiform-gpus-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(problem(folder, "is not this user's own folder", "have it removed"))
    return folder


def _try_lock(locks: Mapping[str, Path], wanted: int) -> list[str]:
    import fcntl

    taken: dict[str, int] = {}
    for device, path in locks.items():
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        os.set_inheritable(handle, True)  # the lock outlives the exec, and ends with the script
        taken[device] = handle
        if len(taken) == wanted:
            return list(taken)
    for handle in taken.values():
        os.close(handle)
    return []


def stop_in_time(arguments: Sequence[str], minutes: float, environment: Environment) -> list[str]:
    """A training's arguments with the ``--max-minutes`` that SLURM's time limit leaves it.

    The margin is for what comes before the training's clock starts and for its last step,
    validation and checkpoint: a twentieth of the limit, 2 to 10 minutes.
    """
    if "SLURM_JOB_ID" not in environment or not minutes:
        return list(arguments)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--max-minutes", type=float, default=0)
    given, others = parser.parse_known_args(arguments)
    margin = min(max(2.0, minutes / 20), 10.0, minutes / 2)
    limit = minutes - margin
    if 0 < given.max_minutes < limit:
        limit = given.max_minutes
    return [*others, "--max-minutes", f"{limit:g}"]


def torchrun_arguments(ranks: int, environment: Environment) -> list[str]:
    """What makes ``python script.py`` a training of several processes; nothing for one."""
    nodes = _nodes(environment)
    if ranks == 1 and nodes == 1:
        return []
    command = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    command += ["--shutdown-timeout", str(SHUTDOWN_SECONDS)]
    if nodes == 1:
        return [*command, "--standalone"]
    # srun was called on the first node of the job; jobs side by side must not share a port
    port = 20_000 + int(environment["SLURM_JOB_ID"]) % 10_000
    command += ["--nnodes", str(nodes), "--node-rank", environment["SLURM_NODEID"]]
    return [
        *command, "--master-addr", environment["SLURM_LAUNCH_NODE_IPADDR"],
        "--master-port", str(port),
    ]  # fmt: skip


def on_a_node_of_several(environment: Environment) -> bool:
    """True where srun started this process, as one of several nodes' processes."""
    return _nodes(environment) > 1


def srun_command(nodes: int, command: Sequence[str], environment: Environment) -> list[str]:
    """The same command once on each node of this SLURM job.

    Raises
    ------
    InputError
        This is no SLURM job.
    """
    if "SLURM_JOB_ID" not in environment:
        fact = f"asks for {nodes} nodes, and this is no SLURM job"
        remedy = "set nodes: 1, or start torchrun on each node (docs/cluster.md)"
        raise InputError(problem("--nodes", fact, remedy))
    # --overlap: the step that Snakemake itself runs in holds the job's resources already
    return [
        "srun", "--overlap", "--nodes", str(nodes), "--ntasks", str(nodes),
        "--ntasks-per-node", "1", "--kill-on-bad-exit=0", *command,
    ]  # fmt: skip


def _nodes(environment: Environment) -> int:
    """Nodes of the job step that this process belongs to."""
    return int(environment.get("SLURM_STEP_NUM_NODES", "1"))


def _listed(devices: str) -> list[str]:
    names = (name.strip() for name in devices.split(","))
    return [name for name in names if name and not name.startswith("-")]  # -1: none
