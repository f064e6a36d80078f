"""Which candidate of a tuned arm counts: the one with the best accuracy on the validation split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_trl.ablation.arms import Arm, Training
from sage_trl.ablation.commands import VALIDATION_SETTING, VALIDATION_SPLIT, Commands
from sage_trl.errors import DataError
from sage_trl.evaluation.predictions import Control, results_key
from sage_trl.evaluation.results_files import METRICS_FILE, read_metrics


@dataclass(frozen=True)
class Choice:
    """What an arm is measured with.

    `accuracies` are those of the candidates on the validation split, in their order; None where there was one only.
    """

    training: Training
    accuracies: tuple[float, ...] | None = None


def needs_choice(arm: Arm) -> bool:
    """Whether an arm is tuned."""
    return len(arm.candidates) > 1


def choose(arm: Arm, commands: Commands, seed: int) -> Choice:
    """The choice of an arm; of candidates that are equally good the first.

    Args:
        arm: the arm.
        commands: say where results lie.
        seed: the seed that the candidates were trained with.

    Raises:
        DataError: a candidate was not evaluated.
    """
    if not needs_choice(arm):
        return Choice(arm.candidates[0])
    accuracies = tuple(_accuracy(training, commands, seed) for training in arm.candidates)
    return Choice(arm.candidates[accuracies.index(max(accuracies))], accuracies)


def can_choose(arm: Arm, commands: Commands, seed: int) -> bool:
    """Whether all candidates of an arm have been evaluated, or there is only one."""
    measured = ((commands.validation(one, seed) / METRICS_FILE).is_file() for one in arm.candidates)
    return not needs_choice(arm) or all(measured)


def read_figures(
    directory: Path, model: str, setting: str, split: str, control: Control | None = None
) -> Mapping[str, Any]:
    """The figures of one model in one setting from the `metrics.json` of a directory.

    Raises:
        DataError: they are not there.
    """
    path, key = directory / METRICS_FILE, results_key(setting, split, control)
    try:
        return read_metrics(path)[Path(model).resolve().name][key]
    except KeyError:
        raise DataError.at(path, None, f"no result {key!r} of {model}", "remove the directory and run again") from None


def _accuracy(training: Training, commands: Commands, seed: int) -> float:
    directory = commands.validation(training, seed)
    figures = read_figures(directory, commands.model(training, seed), VALIDATION_SETTING, VALIDATION_SPLIT)
    if figures["accuracy"] is None:
        problem = f"split {VALIDATION_SPLIT!r} has no yes/no question to tune by"
        raise DataError.at(directory / METRICS_FILE, None, problem, "take tune out of the plan, or use another dataset")
    return float(figures["accuracy"])
