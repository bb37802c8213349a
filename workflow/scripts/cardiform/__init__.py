"""Cardiform: from cardiac label maps to trained 3-D shape models.

The library behind the scripts of the workflow. A script's own folder is on
``sys.path``, so ``import cardiform`` needs no installation.
"""

import os
import signal
import sys
import threading
import time

__version__ = "0.1.0"
# Time limits count from here: importing torch and reading a cohort takes minutes, too.
STARTED = time.monotonic()


def _interrupt(number: int, frame: object) -> None:
    """Ctrl-C: at once and without a traceback while modules are imported, else as usual.

    Imports take seconds, and libraries turn an interrupt within theirs into errors of their own.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):  # type: ignore[attr-defined]
            os._exit(130)
        frame = frame.f_back  # type: ignore[attr-defined]
    raise KeyboardInterrupt


# In our own scripts alone: another program that imports this decides about Ctrl-C itself.
if (
    os.path.dirname(os.path.abspath(sys.argv[0])) == os.path.dirname(os.path.dirname(__file__))
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, _interrupt)
