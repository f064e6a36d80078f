"""What the folders given to the report are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sage_trl.data.dataset import INFO_FILE, ROWS_FILE
from sage_trl.errors import DataError
from sage_trl.evaluation.predictions import PREDICTIONS_FILE
from sage_trl.evaluation.results_files import METRICS_FILE
from sage_trl.reporting.ablations import TABLE_FILE
from sage_trl.run_record import METRICS_LOG

STATE_FILE = "trainer_state.json"


@dataclass(frozen=True)
class EvaluationFolder:
    """An output directory of `tools/evaluate.py`; `dataset` lies beside it, if one does."""

    path: Path
    dataset: Path | None = None


@dataclass(frozen=True)
class RunFolders:
    """What was recognised, in the order it was given."""

    evaluations: tuple[EvaluationFolder, ...]
    trainings: tuple[Path, ...]
    ablations: tuple[Path, ...]


def find_runs(runs: Sequence[Path]) -> RunFolders:
    """Recognise evaluations, trainings and ablations, among the folders themselves or directly below them.

    Raises:
        DataError: a folder is missing, or neither it nor what lies in it is a run.
    """
    evaluations: dict[Path, EvaluationFolder] = {}
    trainings: dict[Path, Path] = {}
    ablations: dict[Path, Path] = {}
    for run in runs:
        if not run.is_dir():
            raise DataError.at(run, None, "no such directory", "check the path of RUN")
        inside = [run] if _is_run(run) else sorted(path for path in run.iterdir() if path.is_dir())
        found = [path for path in inside if _is_run(path)]
        if not found:
            remedy = (
                f"give an output directory of tools/evaluate.py ({METRICS_FILE}), of tools/train.py ({METRICS_LOG}) or "
                f"of tools/ablate.py ({TABLE_FILE}), or the folder that holds some"
            )
            raise DataError.at(run, None, "holds no evaluation, training or ablation", remedy)
        datasets = [path for path in inside if (path / ROWS_FILE).is_file() and (path / INFO_FILE).is_file()]
        beside = datasets[0] if len(datasets) == 1 else None
        for path in found:
            if _is_evaluation(path):
                evaluations.setdefault(path.resolve(), EvaluationFolder(path, beside))
            if _is_training(path):
                trainings.setdefault(path.resolve(), path)
            if _is_ablation(path):
                ablations.setdefault(path.resolve(), path)
    return RunFolders(tuple(evaluations.values()), tuple(trainings.values()), tuple(ablations.values()))


def shortest_names(paths: Sequence[Path]) -> list[str]:
    """Each path's name, with as many of the folders above it as no other of these paths ends with.

    Args:
        paths: whole ones, each once.
    """
    names = []
    for path in paths:
        parts = path.parts
        for length in range(1, len(parts) + 1):
            ending = parts[-length:]
            if sum(other.parts[-length:] == ending for other in paths) == 1:
                break
        names.append(str(Path(*ending)))
    return names


def _is_run(path: Path) -> bool:
    return _is_evaluation(path) or _is_training(path) or _is_ablation(path)


def _is_evaluation(path: Path) -> bool:
    return any((path / name).is_file() for name in (METRICS_FILE, PREDICTIONS_FILE))


def _is_training(path: Path) -> bool:
    return any((path / name).is_file() for name in (STATE_FILE, METRICS_LOG))


def _is_ablation(path: Path) -> bool:
    return (path / TABLE_FILE).is_file()
