"""Reads the table of an ablation: arms over seeds, and the grids of sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from sage_trl.records import parse_record
from sage_trl.storage import read_json

TABLE_FILE = "table.json"
Bounds = Annotated[tuple[float, float], Field(strict=False)]


class _Part(BaseModel):
    """The report takes what it shows from the table and lets the rest be."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ArmFigure(_Part):
    """Mean over the seeds, and from the lowest to the highest bound of their intervals."""

    mean: float | None
    interval: Bounds | None


class ArmRow(_Part):
    """One arm in one setting on one split; `grid` holds the keys that a sweep varies."""

    title: str
    setting: str
    split: str
    grid: dict[str, Any]
    questions: int
    figures: dict[str, ArmFigure]

    def mean(self, *names: str) -> float | None:
        """The mean of the first of these figures that was measured."""
        found = (self.figures[name].mean for name in names if name in self.figures)
        return next((mean for mean in found if mean is not None), None)


class _Content(_Part):
    title: str
    seeds: list[int]
    rows: list[ArmRow]


@dataclass(frozen=True)
class Ablation:
    """The table of one output directory of `tools/ablate.py`."""

    path: Path
    title: str
    seeds: Sequence[int]
    rows: Sequence[ArmRow]


def read_ablation(folder: Path) -> Ablation:
    """Read `table.json`.

    Raises:
        DataError: it is damaged.
    """
    content = parse_record(_Content, read_json(folder / TABLE_FILE), folder / TABLE_FILE)
    return Ablation(folder, content.title, content.seeds, content.rows)
