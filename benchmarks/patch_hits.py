"""Whether the patches that eq. 1 selects lie on the defects: python benchmarks/patch_hits.py --model DIR --dataset DIR.

Over the defective pairs of a split: the share of the selected patches that touch a box of a defect, the same for the
most distinct patch alone, the share of pairs where at least one does, and what patches drawn at random from the same
images would get. 95% intervals are over physical units, boards or parts; --by-unit shows the units one by one, for
intervals say little where there are few. Below, the share of each selected patch by its rank.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Column, Table

from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.fact_sets import FACTS_FILE, read_facts
from sage_trl.evaluation.bootstrap import Array, bootstrap_intervals
from sage_trl.evaluation.counts import unit_of
from sage_trl.evaluation.evidence import GROUPS_AT_ONCE, EvidenceFinder
from sage_trl.evaluation.inference_settings import read_inference_settings
from sage_trl.evaluation.questions import build_questions, open_images
from sage_trl.models.checkpoints import load_pretrained

COLUMNS = ("selected patches", "most distinct patch", "pairs with a hit")


def touches(box: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two boxes share an area."""
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def count_hits(selected: list[bool], everywhere: list[bool]) -> list[float]:
    """What one pair has, what as many patches drawn at random would have, in the order of `COLUMNS`, and each patch.

    Args:
        selected: whether each selected patch touches a defect, the most distinct first.
        everywhere: the same of all patches of the image.
    """
    share = sum(everywhere) / len(everywhere)
    missing = len(everywhere) - sum(everywhere)
    no_hit = math.comb(missing, len(selected)) / math.comb(len(everywhere), len(selected))
    return [sum(selected) / len(selected), selected[0], any(selected), share, share, 1 - no_hit, *selected]


def measure(find: EvidenceFinder, dataset: Path, split: str) -> tuple[Array, list[str]]:
    """`[pairs, 6 + K]`, a row of `count_hits` for each defective pair with a reference, and the unit of each pair."""
    directory = read_ad_pl(dataset)
    asked = build_questions(
        directory, read_facts(dataset / FACTS_FILE), split=split, setting="one_shot", identity={"model": "any"}
    )
    groups = {item.inspection.id: item for item in asked if item.inspection.defects and item.row["reference_image"]}
    items, hits = list(groups.values()), []
    for start in range(0, len(items), GROUPS_AT_ONCE):
        part = items[start : start + GROUPS_AT_ONCE]
        rows = open_images([item.row for item in part])
        # Without a reference every patch takes part.
        whole = find([{**row, "reference_image": None} for row in rows])
        for item, evidence, all_patches in zip(part, find(rows), whole, strict=True):
            boxes = [defect.box for defect in item.inspection.defects]

            def on_defect(patch: tuple[float, ...], boxes: list[Any] = boxes) -> bool:
                return any(touches(patch, box) for box in boxes)

            everywhere = [on_defect(patch.box) for patch in all_patches.patches]
            hits.append(count_hits([on_defect(patch.box) for patch in evidence.patches], everywhere))
    return np.array(hits, dtype=np.float64), [unit_of(item.inspection) for item in items]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", required=True, metavar="DIR", help="models that fuse facts")
    parser.add_argument("--dataset", type=Path, required=True, metavar="DIR", help="AD-PL directory with facts")
    parser.add_argument("--split", default="test", metavar="NAME")
    parser.add_argument("--by-unit", action="store_true", help="a row for each unit, without intervals")
    arguments = parser.parse_args()
    table, console = Table(Column("", overflow="fold"), *COLUMNS), Console()
    for name in arguments.model:
        settings = read_inference_settings(name)
        find = EvidenceFinder(*load_pretrained(name), settings.reference_in_prompt)
        hits, units = measure(find, arguments.dataset, arguments.split)
        for label, chosen in _parts(units, by_unit=arguments.by_unit):
            cells = _means if arguments.by_unit else partial(_intervals, units=units)
            table.add_row(f"{Path(name).name}, {chosen.sum()} pairs of {label}", *cells(hits[chosen, :3]))
            table.add_row("drawn at random", *cells(hits[chosen, 3:6]))
        by_rank = ", ".join(f"{share:.1%}" for share in hits[:, 6:].mean(axis=0))
        console.print(f"{Path(name).name}, by rank: {by_rank}", soft_wrap=True, highlight=False)
    console.print(table)


def _parts(units: list[str], *, by_unit: bool) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """What makes up a row of the table: its label, and which pairs belong to it."""
    names = sorted(set(units))
    if not by_unit:
        yield f"{len(names)} units", np.ones(len(units), dtype=bool)
        return
    for name in names:
        yield name, np.array(units) == name


def _means(shares: Array) -> list[str]:
    return [f"{mean:.1%}" for mean in shares.mean(axis=0)]


def _intervals(shares: Array, units: list[str]) -> list[str]:
    """Means over the pairs with their intervals."""
    names, row_of_pair = np.unique(units, return_inverse=True)
    sums = np.zeros((len(names), shares.shape[1] + 1))
    np.add.at(sums, row_of_pair, np.column_stack([shares, np.ones(len(shares))]))

    def figures(drawn: Array) -> Mapping[str, Array]:
        return dict(zip(COLUMNS, (drawn[..., :-1] / drawn[..., -1:]).T, strict=True))

    intervals = bootstrap_intervals(sums, figures)
    return [
        f"{mean} ({intervals[name][0]:.1%}-{intervals[name][1]:.1%})" if name in intervals else mean
        for name, mean in zip(COLUMNS, _means(shares), strict=True)
    ]


if __name__ == "__main__":
    main()
