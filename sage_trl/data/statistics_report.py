"""What `tools/build_dataset.py --stats` prints and writes."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.statistics import Counts, DatasetStatistics, compute_statistics
from sage_trl.data.statistics_plot import plot_statistics
from sage_trl.storage import write_json

STATISTICS_FILE = "statistics.json"
PLOT_FILE = "statistics.png"


def report_statistics(dataset: Path, output: Path | None, console: Console) -> None:
    """Print the statistics of a dataset, and write `statistics.json` and `statistics.png`.

    Args:
        dataset: its directory.
        output: folder of the two files; the dataset's own where None.
        console: where the tables go.

    Raises:
        DataError: a faulty dataset.
        RecipeError: matplotlib is not installed.
    """
    ad_pl = read_ad_pl(dataset)
    statistics = compute_statistics(ad_pl.inspections)
    folder = output or dataset
    plot_statistics(statistics, ad_pl.info.name, folder / PLOT_FILE)
    write_json(folder / STATISTICS_FILE, statistics.as_json())
    for name, counts in statistics.by.items():
        console.print(_count_table(name, counts, statistics.total), "")
    console.print(_length_table(statistics), "")
    if statistics.defect_types:
        types = ", ".join(f"{kind} {count:,}" for kind, count in statistics.defect_types.items())
        console.print(f"defects: {types}", soft_wrap=True)
    console.print(f"written: {folder / STATISTICS_FILE}, {folder / PLOT_FILE}", soft_wrap=True)


def _count_table(name: str, by_value: dict[str, Counts], total: Counts) -> Table:
    # Narrow, so that a pipe's 80 columns cut no name.
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column(name, no_wrap=True)
    for heading in ("groups", "images", "normal", "faulty", "questions", "yes", "no", "choice", "open"):
        table.add_column(heading, justify="right")
    entries = list(by_value.items()) + ([("all", total)] if len(by_value) > 1 else [])
    for value, counts in entries:
        images = (counts.images, counts.normal_images, counts.anomalous_images)
        figures = (counts.groups, *images, counts.questions, counts.yes, counts.no, counts.choice, counts.open)
        table.add_row(value, *(f"{figure:,}" for figure in figures))
    return table


def _length_table(statistics: DatasetStatistics) -> Table:
    table = Table("words of", "texts", "shortest", "median", "mean", "longest", box=None)
    for name, lengths in statistics.lengths.items():
        middle = (f"{lengths.median:g}", f"{lengths.mean:.1f}")
        table.add_row(name, f"{lengths.texts:,}", str(lengths.shortest), *middle, str(lengths.longest))
    return table
