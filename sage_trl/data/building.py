"""From a source to an AD-PL directory: writes the images, lets the author write the questions, moves all into place."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sage_trl.data.authoring import Scene, author_inspections
from sage_trl.data.dataset import INFO_FILE, ROWS_FILE, DatasetInfo, write_ad_pl
from sage_trl.data.sources import Part, Source, SourceOptions
from sage_trl.errors import DataError
from sage_trl.records import Inspection

IMAGES = "images"
_DIGEST_TO_COME = "0" * 64


@dataclass(frozen=True)
class LevelCount:
    """Groups, questions and questions answered yes of one split and level."""

    split: str
    level: str
    groups: int
    defective: int
    questions: int
    yes: int


def build_dataset(
    source: Source,
    options: SourceOptions,
    output: Path,
    *,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[DatasetInfo, list[LevelCount]]:
    """Build a dataset in a folder beside `output` and move it there when it is whole.

    Args:
        source: where the parts come from.
        options: handed to the source; `options.seed` also decides the wording.
        output: directory to make.
        force: replace a dataset that is there.
        progress: called with the number of parts so far.

    Raises:
        DataError: `output` is there already, or the source's files are faulty.
    """
    check_output(output, force)
    output.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".part", dir=output.parent))
    try:
        scenes: list[Scene] = []
        for part in source.parts(options):
            scenes.append(_save_part(part, workplace))
            if progress is not None:
                progress(len(scenes))
        if not scenes:
            raise DataError(f"source {source.name!r} gave no part\n  remedy: ask for more groups")
        inspections = author_inspections(scenes, options.seed)
        present = {row.dataset for row in inspections}
        info = DatasetInfo(
            name=source.name,
            licence=source.licence,
            sources={name: source.licence for name in source.datasets if name in present},
            seed=options.seed,
            splits={},
            sha256=_DIGEST_TO_COME,
        )
        info = write_ad_pl(workplace, inspections, info)
        workplace.chmod(0o755)
        if output.exists():
            shutil.rmtree(output)
        workplace.rename(output)
    except BaseException:
        shutil.rmtree(workplace, ignore_errors=True)
        raise
    return info, count_levels(inspections)


def check_output(output: Path, force: bool) -> None:
    """Refuse to overwrite; even with `force`, only a dataset or an empty folder is replaced.

    Raises:
        DataError: something is at `output`.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not output.is_dir() or not ((output / INFO_FILE).is_file() or (output / ROWS_FILE).is_file()):
        raise DataError.at(output, None, "exists and is no dataset", "choose another --output")
    if not force:
        raise DataError.at(output, None, "holds a dataset already", "choose another --output, or add --force")


def _save_part(part: Part, directory: Path) -> Scene:
    return Scene(
        id=f"{part.dataset}/{part.name}",
        dataset=part.dataset,
        category=part.category,
        split=part.split,
        test_image=_save_image(part.test, directory, f"{part.split}/{part.name}_test.png"),
        reference_image=None
        if part.reference is None
        else _save_image(part.reference, directory, f"{part.split}/{part.name}_reference.png"),
        defects=part.defects,
    )


def _save_image(image: Image.Image, directory: Path, name: str) -> str:
    path = directory / IMAGES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return f"{IMAGES}/{name}"


def count_levels(inspections: list[Inspection]) -> list[LevelCount]:
    """Counts per split and level, in the order of the rows."""
    groups: Counter[tuple[str, str]] = Counter()
    defective: Counter[tuple[str, str]] = Counter()
    questions: Counter[tuple[str, str]] = Counter()
    yes: Counter[tuple[str, str]] = Counter()
    for row in inspections:
        key = (row.split, row.level)
        groups[key] += 1
        defective[key] += bool(row.defects)
        questions[key] += len(row.questions)
        yes[key] += sum(question.verdict is True for question in row.questions)
    return [LevelCount(*key, groups[key], defective[key], questions[key], yes[key]) for key in sorted(groups)]
