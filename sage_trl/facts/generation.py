"""Writes `facts.jsonl`, one row per test image; stopped at any time, it goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.data.fact_sets import read_facts
from sage_trl.data.images import open_image
from sage_trl.errors import DataError
from sage_trl.facts.template_bank import FactWriter
from sage_trl.records import FactSet
from sage_trl.storage import JsonlAppender, file_sha256

_BATCH = 200


def generate_facts(
    ad_pl: AdPlDirectory,
    writer: FactWriter,
    path: Path,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the facts that `path` lacks, of every split.

    Args:
        ad_pl: the dataset.
        writer: who writes the sentences.
        path: the `facts.jsonl` to write or to complete.
        progress: called with the number of groups done and of all groups.

    Returns:
        The number of images that facts were written for.

    Raises:
        DataError: an unreadable image, or facts by another writer in `path`.
    """
    known = _facts_of_same_writer(path, writer)
    waiting: list[FactSet] = []
    written = 0
    with JsonlAppender(path) as appender:
        for done, inspection in enumerate(ad_pl.inspections, start=1):
            image_path = ad_pl.image_path(inspection.test_image)
            digest = file_sha256(image_path)
            if digest not in known:
                known.add(digest)
                waiting.append(
                    FactSet(
                        test_image_sha256=digest,
                        facts=tuple(writer.write(inspection, open_image(image_path))),
                        model=writer.model,
                        prompt_version=writer.prompt_version,
                    )
                )
            if len(waiting) == _BATCH or done == len(ad_pl.inspections):
                appender.append(row.model_dump(mode="json") for row in waiting)
                written += len(waiting)
                waiting = []
                if progress is not None:
                    progress(done, len(ad_pl.inspections))
    return written


def _facts_of_same_writer(path: Path, writer: FactWriter) -> set[str]:
    if not path.exists():
        return set()
    # Opening drops a line that a kill cut short, which reading would refuse.
    JsonlAppender(path).close()
    facts = read_facts(path)
    for row in facts.values():
        if (row.model, row.prompt_version) != (writer.model, writer.prompt_version):
            asked = f"{writer.model} ({writer.prompt_version})"
            problem = f"holds facts by {row.model} ({row.prompt_version}), not by {asked}"
            raise DataError.at(path, None, problem, "move the file away, or write to another with --output")
    return set(facts)
