"""A ``python`` whose scripts begin with the large libraries imported.

Their import takes longer than most jobs of a tiny cohort. ``install(program, python)`` writes a
program that asks a server for a fork, which becomes the script. The first call starts the server;
it ends when it has had nothing to do for a while. It is the ``python`` that the call would have
been, so that what its environment lacks is missing still. Anything but ``program script.py ...``
and ``program -m snakemake ...`` is given to that Python as it is, and so is a call whose variables
PYTHON... are not those that ``install`` saw. A script ends with its caller, also where that is
killed. One thing is not as it would be: all forks of a server have the same seed of string hashes.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve()
MODULE = ["-m", "snakemake"]
IDLE_S = 60
START_S = 120
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # handed on to the script
LIBRARIES = (
    "asyncio", "cc3d", "concurrent.futures.process", "edt", "h5py", "logging.handlers",
    "matplotlib.backends.backend_agg", "matplotlib.figure", "monai.losses", "monai.networks.nets",
    "monai.networks.schedulers", "nibabel", "numpy", "optuna", "pandas", "PIL.Image", "rtree",
    "safetensors.torch", "scipy.interpolate", "scipy.ndimage", "scipy.optimize",
    "scipy.sparse.csgraph", "scipy.spatial.transform", "scipy.stats", "skimage.measure",
    "skimage.morphology", "tensorboardX", "torch", "torch._dynamo", "torch.distributed",
    "torch.nn.parallel", "torch.utils.checkpoint", "torch.utils.data", "trimesh", "yaml",
)  # fmt: skip
COARSE = (*LIBRARIES, "coarse")  # pictures and distances are coarse: see coarse.py


def install(program: Path, python: Path | str, libraries: Sequence[str] = LIBRARIES) -> None:
    """Write ``program``, which runs scripts as ``python`` would, with ``libraries`` imported."""
    given = (str(program), str(python), tuple(libraries), python_variables())
    program.parent.mkdir(parents=True, exist_ok=True)
    program.unlink(missing_ok=True)
    program.write_text(
        f"#!{os.path.realpath(sys.executable)} -IS\n"
        f"import sys\nsys.path.insert(0, {str(HERE.parent)!r})\n"
        f"import forked_python\nforked_python.call(*{given!r})\n"
    )
    program.chmod(0o755)


def python_variables() -> dict[str, str]:
    """What a Python reads when it starts, which a fork cannot."""
    return {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}


# ---- the program


def call(program: str, python: str, libraries: Sequence[str], variables: dict[str, str]) -> None:
    """Have a fork of the server run the script, and end as it does."""
    arguments, address = sys.argv[1:], f"{program}.socket"
    forks = arguments[:2] == MODULE or "".join(arguments[:1]).endswith(".py")
    if not forks or python_variables() != variables:
        os.execv(python, [python, *arguments])
    child, early = 0, []

    def hand_on(number: int, _frame) -> None:
        if not child:
            early.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    with connected(address, python, libraries) as server:
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, hand_on)
        request = {"arguments": arguments, "cwd": os.getcwd(), "env": dict(os.environ)}
        message = json.dumps(request | {"program": program}).encode()
        socket.send_fds(server, [len(message).to_bytes(8, "big")], [0, 1, 2])
        server.sendall(message)
        answers = server.makefile()
        child = int(answers.readline())
        while early:
            hand_on(early.pop(0), None)
        code = int(answers.readline())
    if code < 0:
        die_of(-code)
    os._exit(code)


def die_of(number: int) -> None:
    with contextlib.suppress(OSError):  # SIGKILL has no handler to take away
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def connected(address: str, python: str, libraries: Sequence[str]) -> socket.socket:
    """A connection with the server, which is started where none answers."""
    with open(f"{address}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):
            return reached(address)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address)
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        with open(f"{address}.log", "w") as log:
            command = [python, str(HERE), address, *libraries]
            subprocess.Popen(command, **quiet, stderr=log, start_new_session=True, close_fds=True)
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                return reached(address)
            time.sleep(0.02)
    raise SystemExit(f"{address}: no server answers; see {address}.log")


def reached(address: str) -> socket.socket:
    """AF_UNIX has short names only: go by the folder's descriptor."""
    folder = os.open(os.path.dirname(address), os.O_RDONLY)
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(f"/proc/self/fd/{folder}/{os.path.basename(address)}")
    except OSError:
        server.close()
        raise
    finally:
        os.close(folder)
    return server


# ---- the server


def serve(address: str, *libraries: str) -> None:
    for name in libraries:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the pages of all these objects
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    folder = os.open(os.path.dirname(address), os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/{os.path.basename(address)}")
        server.listen(16)
        server.settimeout(IDLE_S)
        while os.path.exists(address):
            try:
                connection, _ = server.accept()
            except TimeoutError:
                break
            connection.settimeout(None)
            if not os.fork():
                server.close()
                watch(connection)
            connection.close()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)


def watch(connection: socket.socket) -> None:
    """Between the server and the script: tells the caller how the script ends, or ends it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, *_ = socket.recv_fds(connection, 8, 3)
    message = connection.makefile("rb").read(int.from_bytes(size, "big"))
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the script can take them
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        connection.close()
        become(json.loads(message), streams)
    with contextlib.suppress(OSError):  # the child may have done it, or be gone
        os.setpgid(child, child)
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(OSError):
        connection.sendall(f"{child}\n".encode())
    ended = os.pidfd_open(child)
    if ended not in select.select([connection, ended], [], [])[0]:  # the caller is gone
        os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def become(request: dict, streams: list[int]) -> None:
    """Run the script as ``python script.py ...`` does, then end the process as Python does."""
    for stream, target in zip(streams, (0, 1, 2), strict=True):
        os.dup2(stream, target)
        os.close(stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.executable, sys.argv = request["program"], request["arguments"]
    module = sys.argv[:2] == MODULE
    sys.path[0] = os.getcwd() if module else os.path.dirname(os.path.abspath(sys.argv[0]))
    random.seed()
    if numpy := sys.modules.get("numpy"):  # all forks have the server's state
        numpy.random.seed()
    if torch := sys.modules.get("torch"):  # read when it was imported
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    code = run_script(module)
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if code < 0:
        die_of(-code)
    os._exit(code)


def run_script(module: bool) -> int:
    """The exit code of the script or the module; that of a signal is below zero."""
    script = sys.argv[0]
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if module:
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException as error:
        trace = error.__traceback__  # without the frames of this file and of runpy
        while trace and trace.tb_frame.f_code.co_filename != script:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


if __name__ == "__main__":
    serve(*sys.argv[1:])
