"""The first facts of each image as a file of their own, for sweeps over the number of facts."""

from __future__ import annotations

from pathlib import Path

from sage_trl.data.fact_sets import read_facts
from sage_trl.errors import DataError
from sage_trl.storage import write_jsonl


def write_first_facts(facts: Path, count: int, output: Path) -> None:
    """Write the first `count` facts of every image.

    Raises:
        DataError: no image has so many.
    """
    fact_sets = read_facts(facts)
    most = max((len(row.facts) for row in fact_sets.values()), default=0)
    if most < count:
        problem = f"no image has {count} facts, the most are {most}"
        raise DataError.at(
            facts, None, problem, "write more with tools/generate_facts.py --num-facts, or ask for fewer"
        )
    rows = (row.model_copy(update={"facts": row.facts[:count]}) for row in fact_sets.values())
    write_jsonl(output, (row.model_dump(mode="json") for row in rows))
