"""Writes `facts.jsonl`, one row per test image; stopped at any time, it goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.data.fact_sets import read_facts
from sage_trl.data.images import open_image
from sage_trl.errors import DataError
from sage_trl.facts.writer import FactWriter, Part
from sage_trl.records import FactSet, Inspection
from sage_trl.storage import JsonlAppender, file_sha256, write_jsonl

_START = b'{"test_image_sha256": "'


@dataclass(frozen=True)
class ShortImage:
    """A test image with fewer facts than were asked for; `reason` says why it has none, if it has none."""

    test_image: str
    sha256: str
    facts: int
    reason: str | None = None


@dataclass(frozen=True)
class FactReport:
    """What a run has written, and what there is now.

    Attributes:
        images: distinct test images of the dataset.
        written: of these, images that this run wrote facts for.
        short: images with fewer facts than asked for, those without any among them.
    """

    images: int
    written: int
    short: tuple[ShortImage, ...]

    @property
    def without(self) -> int:
        """Images that have no facts."""
        return sum(not one.facts for one in self.short)


def generate_facts(
    ad_pl: AdPlDirectory,
    writer: FactWriter,
    path: Path,
    progress: Callable[[int, int], None] | None = None,
) -> FactReport:
    """Write the facts that `path` lacks, of every split, and list beside it the images that have too few.

    A killed run leaves whole rows. The batches are cut before the known images are left out, and a batch of which
    some are lacking is written on as a whole: so a resumed run ends with the file of an unbroken one, to the byte.

    Args:
        ad_pl: the dataset.
        writer: who writes the sentences.
        path: the `facts.jsonl` to write or to complete. The list is `facts.short.jsonl`; there is none if all is well.
        progress: called with the number of images done and of all images.

    Raises:
        DataError: facts by another writer in `path`.
    """
    known = _facts_of_same_writer(path, writer)
    images = _distinct_images(ad_pl)
    written = done = 0
    reasons: dict[str, str] = {}
    with JsonlAppender(path) as appender:
        for batch in _batches(images, writer.batch_size):
            if any(sha256 not in known for sha256, _ in batch):
                rows = [row for row in _write(ad_pl, batch, writer, reasons) if row.test_image_sha256 not in known]
                appender.append(row.model_dump(mode="json") for row in rows)
                written += len(rows)
            done += len(batch)
            if progress is not None:
                progress(done, len(images))
    short = _short_images(images, path, writer.count, reasons)
    _list_short(path.with_name(f"{path.stem}.short.jsonl"), short, writer.count)
    return FactReport(len(images), written, short)


def _batches(images: dict[str, Inspection], size: int) -> Iterator[list[tuple[str, Inspection]]]:
    items = list(images.items())
    return (items[start : start + size] for start in range(0, len(items), size))


def _distinct_images(ad_pl: AdPlDirectory) -> dict[str, Inspection]:
    """SHA-256 of each test image, with the first group that shows it."""
    images: dict[str, Inspection] = {}
    digests: dict[str, str] = {}
    for inspection in ad_pl.inspections:
        name = inspection.test_image
        if name not in digests:
            digests[name] = file_sha256(ad_pl.image_path(name))
        images.setdefault(digests[name], inspection)
    return images


def _write(
    ad_pl: AdPlDirectory, batch: Sequence[tuple[str, Inspection]], writer: FactWriter, reasons: dict[str, str]
) -> Iterator[FactSet]:
    """Facts of a batch's images; why an image gets none goes into `reasons`."""
    parts: dict[str, Part] = {}
    for sha256, inspection in batch:
        try:
            image = open_image(ad_pl.image_path(inspection.test_image))
        except DataError as error:
            reasons[sha256] = error.problem
            continue
        parts[sha256] = Part(inspection.category, image)
    for sha256, sentences in zip(parts, writer.write(list(parts.values())), strict=True):
        if sentences:
            yield FactSet(
                test_image_sha256=sha256,
                facts=tuple(sentences),
                model=writer.model,
                prompt_version=writer.prompt_version,
            )
        else:
            reasons[sha256] = f"{writer.model} wrote no usable sentence"


def _short_images(
    images: dict[str, Inspection], path: Path, count: int, reasons: dict[str, str]
) -> tuple[ShortImage, ...]:
    facts = read_facts(path)
    found = {sha256: len(facts[sha256].facts) if sha256 in facts else 0 for sha256 in images}
    return tuple(
        ShortImage(inspection.test_image, sha256, found[sha256], reasons.get(sha256))
        for sha256, inspection in images.items()
        if found[sha256] < count
    )


def _list_short(path: Path, short: Sequence[ShortImage], count: int) -> None:
    if short:
        write_jsonl(path, ({**vars(one), "asked": count} for one in short))
    else:
        path.unlink(missing_ok=True)


def _facts_of_same_writer(path: Path, writer: FactWriter) -> set[str]:
    if not path.exists():
        return set()
    _refuse_foreign(path)
    # Opening drops a line that a kill cut short, which reading would refuse.
    JsonlAppender(path).close()
    facts = read_facts(path)
    for row in facts.values():
        if (row.model, row.prompt_version) != (writer.model, writer.prompt_version):
            asked = f"{writer.model} ({writer.prompt_version})"
            problem = f"holds facts by {row.model} ({row.prompt_version}), not by {asked}"
            raise DataError.at(path, None, problem, "move the file away, or write to another with --output")
    return set(facts)


def _refuse_foreign(path: Path) -> None:
    """A last line without an end is dropped; in a file that holds no facts it would be somebody's data.

    Raises:
        DataError: that line is no start of a row of ours.
    """
    content = path.read_bytes()
    torn = content[content.rfind(b"\n") + 1 :]
    if not (torn.startswith(_START) or _START.startswith(torn)):
        problem = "the last line has no end, and is none that a run of this tool left"
        line = content.count(b"\n") + 1
        raise DataError.at(path, line, problem, "end the line, or write to another file with --output")
