"""What a training leaves in its folder beside model and checkpoints: recipe, environment, log."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from pydantic_core import to_jsonable_python

from sage_trl.environment import describe_environment
from sage_trl.errors import MachineError
from sage_trl.recipe import Recipe
from sage_trl.run_record import METRICS_LOG
from sage_trl.storage import atomic_writer, write_json
from sage_trl.trainer.metrics_log import MetricsLog

RECIPE_FILE = "recipe.yaml"
ENVIRONMENT_FILE = "environment.json"
LOG_FILE = "train.log"
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# transformers keeps its records from the loggers above it.
_LOGGERS = ("", "transformers")

events = logging.getLogger("sage_trl.run")
"""Says in the run's log, and nowhere else, what happened: started, resumed, stopped, failed."""
events.setLevel(logging.INFO)
events.propagate = False


def refuse_unwritable(directory: Path) -> None:
    """See, before anything is loaded, whether a run can be written.

    Raises:
        MachineError: it cannot.
    """
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        kind = "may not be written" if existing.is_dir() else "is no directory"
        remedy = "make it writable, or choose another output_dir"
        raise MachineError(f"output_dir {directory}: {existing} {kind}\n  remedy: {remedy}")


@contextmanager
def run_files(recipe: Recipe) -> Iterator[MetricsLog]:
    """Open the run's folder: its lock and metrics, its log, its recipe and environment.

    Raises:
        MachineError: the folder cannot be written.
        LockedError: another training writes to it.
    """
    directory = Path(recipe.training.output_dir)
    metrics = MetricsLog(directory / METRICS_LOG)
    try:
        with _log(directory):
            _write_beginning(recipe)
            yield metrics
    finally:
        metrics.close()


def _write_beginning(recipe: Recipe) -> None:
    directory = Path(recipe.training.output_dir)
    without = {"resume", "resume_anyway"}
    values = {key: value for key, value in to_jsonable_python(recipe.values).items() if key not in without}
    with atomic_writer(directory / RECIPE_FILE) as stream:
        yaml.safe_dump(values, stream, sort_keys=False, allow_unicode=True)
    facts = {"processes": recipe.training.world_size, "device": str(recipe.training.device)}
    write_json(directory / ENVIRONMENT_FILE, describe_environment(**facts))


@contextmanager
def _log(directory: Path) -> Iterator[None]:
    """Append events and warnings to the run's `train.log`, and the error that ends the body."""
    handler = logging.FileHandler(directory / LOG_FILE, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORMAT))
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    events.addHandler(handler)
    try:
        yield
    except BaseException as error:
        events.error("ended by %s: %s", type(error).__name__, error)
        raise
    finally:
        events.removeHandler(handler)
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
