"""Publishing a dataset: Parquet files with the images that may go, `dataset.json`, facts, scores, and a card."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_token

from sage_trl.data.dataset import INFO_FILE, ROWS_FILE, AdPlDirectory, read_ad_pl
from sage_trl.data.fact_sets import FACTS_FILE
from sage_trl.data.licences import may_redistribute
from sage_trl.data.parquet import ParquetWriter, published_lines
from sage_trl.errors import DataError, RecipeError
from sage_trl.publishing.dataset_card import render_dataset_card
from sage_trl.publishing.files import CARD_FILE, UploadFile
from sage_trl.publishing.scanning import refuse_findings, secrets_of_this_process
from sage_trl.publishing.upload import Hub, Upload, UploadOptions, check_repo_id

SCORES_FILE = "scores.jsonl"
DATA_FOLDER = "data"
OURS = (f"{DATA_FOLDER}/*.parquet", FACTS_FILE, SCORES_FILE)
"""Files of an earlier upload that are deleted where this one does not have them."""
_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")


@dataclass(frozen=True)
class DatasetPublishOptions:
    """What `--push-to-hub` takes.

    Attributes:
        dataset: its directory.
        repo_id: NAME or OWNER/NAME.
        public: create the repository public, or accept that it is.
        with_images: sources whose images go although their licence is not known to allow it.
        timeout: seconds that the hub may stay silent.
    """

    dataset: Path
    repo_id: str
    public: bool = False
    with_images: tuple[str, ...] = ()
    timeout: float = 120.0

    @property
    def command(self) -> str:
        """The command line that does the same."""
        words = ["python", "tools/build_dataset.py", "--output", str(self.dataset), "--push-to-hub", self.repo_id]
        words += ["--public"] if self.public else []
        words += ["--with-images", *self.with_images] if self.with_images else []
        return shlex.join(words)


@dataclass(frozen=True)
class DatasetPublication:
    """All that goes out, scanned. `without_images` names the sources whose images stay at home."""

    files: tuple[UploadFile, ...]
    card: str
    without_images: tuple[str, ...]


@contextmanager
def prepared_dataset(options: DatasetPublishOptions, repo_id: str) -> Iterator[DatasetPublication]:
    """Write the files into a temporary folder, which exists as long as the body runs.

    Raises:
        DataError: a faulty dataset, or a secret or local path in a text.
        RecipeError: a name that the hub does not take, or a source in `with_images` that the dataset does not have.
    """
    check_repo_id(repo_id)
    dataset = read_ad_pl(options.dataset)
    without = _sources_without_images(dataset, options.with_images)
    card = render_dataset_card(dataset, repo_id, without)
    lines = "".join(published_lines(dataset.inspections)).encode()
    # Whoever loads it gets the images inside, wherever they lie here.
    info = dataset.info.model_copy(update={"sha256": hashlib.sha256(lines).hexdigest(), "image_root": "."})
    texts = [
        UploadFile(CARD_FILE, card.encode()),
        UploadFile(INFO_FILE, (json.dumps(info.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()),
        *(UploadFile(name, path) for name in (FACTS_FILE, SCORES_FILE) if (path := dataset.root / name).is_file()),
    ]
    # The lines go out inside the Parquet files, whose compressed bytes no scan could read.
    refuse_findings([*texts, UploadFile(ROWS_FILE, lines)], secrets_of_this_process(get_token()))
    with tempfile.TemporaryDirectory(prefix="sage-dataset-") as folder:
        writer = ParquetWriter(dataset, without)
        tables = [path for split in _splits(dataset) for path in writer.write_split(split, Path(folder))]
        uploads = [UploadFile(f"{DATA_FOLDER}/{path.name}", path) for path in tables]
        yield DatasetPublication((*texts, *uploads), card, without)


def publish_dataset(options: DatasetPublishOptions, announce: Callable[[DatasetPublication], None]) -> Upload:
    """Upload a dataset to a `datasets` repository, private unless `public`.

    Args:
        options: what to publish, and where.
        announce: called when everything is ready to go, before the first byte of it is sent.

    Raises:
        SageError: see `prepared_dataset` and `Hub`.
    """
    check_repo_id(options.repo_id)
    message = f"Publish {options.dataset.resolve().name}"
    hub = Hub(
        UploadOptions(options.repo_id, options.public, message, options.timeout, options.command, "dataset", OURS)
    )
    repo_id = hub.full_name()
    with prepared_dataset(options, repo_id) as publication:
        announce(publication)
        return hub.upload(repo_id, publication.files)


def _sources_without_images(dataset: AdPlDirectory, with_images: tuple[str, ...]) -> tuple[str, ...]:
    info = dataset.info
    sources = sorted({row.dataset for row in dataset.inspections})
    unknown = sorted(set(with_images) - set(sources))
    if unknown:
        remedy = f"use some of {', '.join(sources)}"
        raise RecipeError(f"--with-images: the dataset has no source {unknown[0]!r}\n  remedy: {remedy}")
    return tuple(
        name
        for name in sources
        if name not in with_images and not may_redistribute(info.sources.get(name, info.licence))
    )


def _splits(dataset: AdPlDirectory) -> list[str]:
    splits = list(dict.fromkeys(row.split for row in dataset.inspections))
    odd = [split for split in splits if not _SPLIT_NAME.fullmatch(split)]
    if odd:
        problem = f"field 'split': {odd[0]!r} cannot be the name of a split on the hub"
        raise DataError.at(dataset.root / ROWS_FILE, None, problem, "use letters, digits and underscores")
    return splits
