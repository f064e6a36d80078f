"""Publishing a run: collect, write the card, scan, and upload or show what would go."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import get_token

from sage_trl.errors import RecipeError
from sage_trl.evaluation.results_files import METRICS_FILE, read_metrics
from sage_trl.publishing.card import CardFacts, render_card
from sage_trl.publishing.files import (
    ADAPTER_CONFIG,
    CARD_FILE,
    UploadFile,
    collect_files,
    is_adapter,
)
from sage_trl.publishing.scanning import refuse_findings, secrets_of_this_process
from sage_trl.publishing.upload import Hub, Upload, UploadOptions, check_repo_id
from sage_trl.run_record import INFERENCE_FILE, RUN_FILE, read_run_record
from sage_trl.storage import read_json

DEFAULT_PROMPTING = {"facts": "fusion", "reference_in_prompt": False}
"""What `read_inference_settings` takes for a fact-enhanced model without `sage_inference.json`."""


@dataclass(frozen=True)
class PublishOptions:
    """What `tools/publish.py` takes; its help describes each option."""

    run: Path
    repo_id: str
    public: bool = False
    merged: bool = False
    metrics: Path | None = None
    base_model: str | None = None
    base_revision: str | None = None
    licence: str | None = None
    message: str | None = None
    timeout: float = 120.0

    @property
    def command(self) -> str:
        """The command line that does the same."""
        words: list[object] = ["python", "tools/publish.py", self.run, "--repo-id", self.repo_id]
        words += [f"--{name}" for name in ("public", "merged") if getattr(self, name)]
        for option, value in {
            "--metrics": self.metrics,
            "--base-model": self.base_model,
            "--base-revision": self.base_revision,
            "--license": self.licence,
            "--message": self.message,
        }.items():
            words += [] if value is None else [option, value]
        return shlex.join(map(str, words))


@dataclass(frozen=True)
class Publication:
    """All that goes out, scanned. `card` is the content of its `README.md`."""

    files: tuple[UploadFile, ...]
    card: str


@contextmanager
def prepared(options: PublishOptions, repo_id: str) -> Iterator[Publication]:
    """Collect the files, write the card, and scan everything; nothing in the run is changed.

    With `merged` the adapter is merged into a temporary directory that exists as long as the body runs.

    Args:
        options: what to publish.
        repo_id: the name that the card's usage snippet loads.

    Raises:
        DataError: no finished model, a faulty record, or a secret or local path in a file.
        RecipeError: a name that the hub does not take, or `merged` for a whole model.
    """
    check_repo_id(repo_id)
    with _model_directory(options) as directory:
        collected = {file.name: file for file in collect_files(directory)}
        files = {**collected, **_rewritten(options, directory, set(collected))}
        card = render_card(_card_facts(options, directory, repo_id))
        everything = (*files.values(), UploadFile(CARD_FILE, card.encode()))
        refuse_findings(everything, secrets_of_this_process(get_token()))
        yield Publication(everything, card)


def publish(options: PublishOptions, announce: Callable[[Publication], None]) -> Upload:
    """Upload a run.

    Args:
        options: what to publish, and where.
        announce: called when everything is ready to go, before the first byte of it is sent.

    Raises:
        SageError: see `prepared` and `Hub`.
    """
    check_repo_id(options.repo_id)
    message = options.message or f"Publish {options.run.resolve().name}"
    hub = Hub(UploadOptions(options.repo_id, options.public, message, options.timeout, options.command))
    repo_id = hub.full_name()
    with prepared(options, repo_id) as publication:
        announce(publication)
        return hub.upload(repo_id, publication.files)


@contextmanager
def _model_directory(options: PublishOptions) -> Iterator[Path]:
    if not options.merged:
        yield options.run
        return
    if not is_adapter(options.run):
        raise RecipeError(f"--merged: {options.run} is a whole model already\n  remedy: leave --merged out")
    # Imported only now: merging needs torch, publishing does not.
    from sage_trl.models.export import merge_adapter  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="sage-merged-") as name:
        merge_adapter(options.run, Path(name))
        for record in (RUN_FILE, INFERENCE_FILE):
            if (options.run / record).is_file():
                shutil.copyfile(options.run / record, Path(name) / record)
        yield Path(name)


def _rewritten(options: PublishOptions, directory: Path, names: set[str]) -> dict[str, UploadFile]:
    """The published copies of files that name the base model, if `--base-model` names another."""
    if options.base_model is None:
        return {}
    changes: dict[str, dict[str, Any]] = {
        ADAPTER_CONFIG: {"base_model_name_or_path": options.base_model, "revision": options.base_revision},
        RUN_FILE: {"base_model": options.base_model, "base_revision": options.base_revision},
    }
    return {
        name: UploadFile(name, _as_json({**read_json(directory / name), **change}))
        for name, change in changes.items()
        if name in names
    }


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _card_facts(options: PublishOptions, directory: Path, repo_id: str) -> CardFacts:
    record = read_run_record(directory / RUN_FILE)
    if record is not None and options.base_model is not None:
        names_base = {"base_model": options.base_model, "base_revision": options.base_revision}
        record = record.model_copy(update=names_base)
    inference = directory / INFERENCE_FILE
    noted = read_json(inference) if inference.is_file() else {}
    metrics = options.metrics
    if metrics is None and (options.run / METRICS_FILE).is_file():
        metrics = options.run / METRICS_FILE
    return CardFacts(
        repo_id=repo_id,
        record=record,
        inference={key: noted.get(key, default) for key, default in DEFAULT_PROMPTING.items()},
        is_adapter=is_adapter(directory),
        results=None if metrics is None else read_metrics(metrics),
        model_name=options.run.resolve().name,
        licence=options.licence,
    )
