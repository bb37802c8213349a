"""A training's figures in Weights & Biases or MLflow, where the user has installed one of them.

Nothing is sent unless the option ``tracker`` asks for it. Where to, and by whose account, is the
tracker's own business: its login, its environment variables (WANDB_MODE=offline,
MLFLOW_TRACKING_URI). No key passes through here.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import outputs
from ..errors import InputError, problem
from ..files import write_text

log = logging.getLogger(__name__)

RUN = "tracker.txt"  # "<tracker> <id>": the run that a resumed training continues
PROJECT = "cardiform"
KEY, HERE = "training.tracker", "into this environment, or leave the key empty"


class Tracker:
    """Sends figures on. One that fails is given up with a warning; the training continues.

    send : (figures by ``group/name``, step).
    end : called once, at the end.
    """

    def __init__(self, name: str, send: Callable[[dict, int], Any], end: Callable[[], Any]):
        self.name, self._send, self._end = name, send, end
        self._working = True

    def add(self, group: str, figures: Mapping[str, float], step: int) -> None:
        """Send figures as ``group/name``."""
        self._try(lambda: self._send({f"{group}/{n}": float(v) for n, v in figures.items()}, step))

    def close(self) -> None:
        """Let the tracker finish."""
        self._try(self._end)

    def _try(self, call: Callable[[], Any]) -> None:
        if not self._working:
            return
        try:
            call()
        except Exception as error:
            self._working = False
            log.warning("%s failed (%s): the training continues without it", self.name, error)


def open_tracker(name: str, out: Path, settings: Mapping[str, Any], *, resumed: bool) -> Tracker:
    """Start or continue a run of the tracker ``name``: wandb or mlflow.

    out : folder of the training; tracker.txt there keeps which run is its own.
    settings : options, for the tracker to list.

    Raises
    ------
    InputError
        The tracker is not installed, or refuses to start.
    """
    title = "/".join(out.resolve().parts[-2:])
    known = _known_run(out / RUN, name) if resumed else ""
    try:
        run, tracker = OPENERS[name](out, title, known, settings)
    except InputError:
        raise
    except Exception as error:
        fact = f"{name} does not start ({' '.join(str(error).split())})"
        remedy = (
            "log in to it, set WANDB_MODE=offline or MLFLOW_TRACKING_URI, or leave the key empty"
        )
        raise InputError(problem(KEY, fact, remedy)) from error
    outputs.enter(out / RUN)
    write_text(out / RUN, f"{name} {run}\n")
    return tracker


def _known_run(path: Path, name: str) -> str:
    words = path.read_text(encoding="utf-8").split() if path.is_file() else []
    return words[1] if len(words) == 2 and words[0] == name else ""


def _wandb(out: Path, title: str, known: str, settings) -> tuple[str, Tracker]:
    try:
        import wandb
    except ImportError as error:
        raise InputError(
            problem(KEY, "wandb is not installed", f"pip install wandb {HERE}")
        ) from error
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=title,
        id=known or uuid.uuid4().hex,
        resume="allow",
        dir=str(out),
        config=dict(settings),
    )
    return run.id, Tracker("wandb", lambda figures, step: run.log(figures, step=step), run.finish)


def _mlflow(out: Path, title: str, known: str, settings) -> tuple[str, Tracker]:
    try:
        import mlflow
    except ImportError as error:
        raise InputError(
            problem(KEY, "mlflow is not installed", f"pip install mlflow {HERE}")
        ) from error
    if not os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        mlflow.set_experiment(PROJECT)
    run = mlflow.start_run(run_id=known or None, run_name=title)
    if not known:
        mlflow.log_params(dict(settings))
    send = lambda figures, step: mlflow.log_metrics(figures, step=step)  # noqa: E731
    return run.info.run_id, Tracker("mlflow", send, mlflow.end_run)


OPENERS = {"wandb": _wandb, "mlflow": _mlflow}
