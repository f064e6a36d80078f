"""Tables of the report: what one is, all figures of every model, and model against model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_trl.evaluation.report import FIGURE_COLUMNS, comparison_cells, figure_cells
from sage_trl.evaluation.results_files import Results
from sage_trl.reporting.conditions import Condition

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """Rows of one origin: a name and the cells. `published` rows are the paper's own."""

    title: str
    rows: Sequence[tuple[str, Sequence[str]]]
    published: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the report."""

    name: str
    title: str
    columns: Sequence[str]
    sections: Sequence[Section]
    notes: Sequence[str] = field(default=())


@dataclass(frozen=True)
class MeasuredDataset:
    """The results on one dataset: model -> key of `metrics.json` -> figures."""

    name: str
    results: Results

    @property
    def splits(self) -> list[str]:
        """The splits that were measured, in the order they were."""
        return list(dict.fromkeys(Condition.of_key(key).split for found in self.results.values() for key in found))

    def figures(self, setting: str, split: str) -> dict[str, Figures]:
        """Model -> figures on the unchanged input, of the models that were measured on it."""
        wanted = Condition(setting, split, None)
        return {
            model: figures
            for model, by_key in self.results.items()
            for key, figures in by_key.items()
            if Condition.of_key(key) == wanted
        }

    def title(self, split: str) -> str:
        """What stands above the rows of a split."""
        return f"Measured here, {self.name}, split {split}"


def all_figures_table(measured: Sequence[MeasuredDataset]) -> Table:
    """Every model under every condition, controls too, as `tools/evaluate.py` prints it."""
    sections = []
    for one in measured:
        for split in one.splits:
            rows = [
                (f"{model}, {condition.input_name}", figure_cells(figures))
                for model, by_key in one.results.items()
                for key, figures in by_key.items()
                if (condition := Condition.of_key(key)).split == split
            ]
            sections.append(Section(one.title(split), rows))
    return Table(
        "All figures",
        "every model under every condition, with 95% intervals over physical units",
        ("Model and input", *FIGURE_COLUMNS),
        sections,
    )


def comparison_table(comparisons: Iterable[Mapping[str, Any]]) -> Table | None:
    """Paired tests of every two models of one call; None if there are none."""
    rows = []
    for entry in comparisons:
        condition = Condition.of_key(entry["setting"])
        cells = [f"{condition.input_name}, {condition.split}", *comparison_cells(entry)]
        rows.append((f"{entry['first']} against {entry['second']}", cells))
    if not rows:
        return None
    return Table(
        "Model against model",
        "difference in accuracy, in points, by a paired permutation test over physical units",
        ("Models", "Input", "Difference", "Only first right", "Only second right", "p", "Questions"),
        [Section("", rows)],
    )
