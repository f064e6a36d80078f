"""Which files of a run go to the hub: an allow-list, so that nothing goes by accident."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from sage_trl.errors import DataError
from sage_trl.run_record import INFERENCE_FILE, RUN_FILE
from sage_trl.storage import file_sha256, read_json

CARD_FILE = "README.md"
ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS_INDEX = "model.safetensors.index.json"
SINGLE_WEIGHTS = ("model.safetensors", "adapter_model.safetensors")
WEIGHTS = (*SINGLE_WEIGHTS, WEIGHTS_INDEX, "model-*-of-*.safetensors")
"""Patterns of the files that a loader takes for the model itself."""
ALLOWED = (
    *WEIGHTS,
    *("config.json", "generation_config.json", ADAPTER_CONFIG),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model"),
    *("chat_template.jinja", "chat_template.json"),
    *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
    *(INFERENCE_FILE, RUN_FILE),
)
"""The card is not among them: it is written for each upload, and a draft in the run never goes out."""


@dataclass(frozen=True)
class UploadFile:
    """A file as it will be on the hub: a file of the run, or bytes made for the upload."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @property
    def is_weights(self) -> bool:
        """Whether it holds tensors rather than text."""
        return self.name.endswith(".safetensors")

    def read(self) -> bytes:
        """The whole content; not meant for weights."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    def sha256(self) -> str:
        """What the hub compares large files by."""
        return (
            hashlib.sha256(self.content).hexdigest() if isinstance(self.content, bytes) else file_sha256(self.content)
        )

    def git_blob_id(self) -> str:
        """What git, and so the hub, names small files by: SHA-1 over a header with the length, and the content."""
        content = self.read()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def is_adapter(directory: Path) -> bool:
    """Whether the directory holds a PEFT adapter rather than a whole model."""
    return (directory / ADAPTER_CONFIG).is_file()


def collect_files(directory: Path) -> list[UploadFile]:
    """The files on the top level of a run that the allow-list names, weights last.

    Raises:
        DataError: no such directory, no finished model in it, or shards of its weights are missing.
    """
    if not directory.is_dir():
        raise DataError.at(directory, None, "no such run directory", "give the output_dir of a finished run")
    weights = _weight_names(directory)
    lacking = [name for name in weights if not (directory / name).is_file()]
    if lacking:
        problem = f"{WEIGHTS_INDEX} names {lacking[0]}, which is not there ({len(lacking)} missing)"
        raise DataError.at(directory, None, problem, "restore the shard, or save the model anew")
    config = ADAPTER_CONFIG if is_adapter(directory) else "config.json"
    if not weights or not (directory / config).is_file():
        raise DataError.at(directory, None, f"holds no finished model{_checkpoint_hint(directory)}", _FINISH)
    rest = [path.name for path in sorted(directory.iterdir()) if path.is_file() and is_allowed(path.name)]
    names = [name for name in rest if not matches(name, WEIGHTS)] + weights
    return [UploadFile(name, directory / name) for name in names]


_FINISH = "let the training end, or give one of its checkpoints"


def left_out(directory: Path, files: Iterable[UploadFile]) -> list[str]:
    """Names on the top level that stay at home, folders with a trailing slash."""
    going = {file.name for file in files}
    return [
        f"{path.name}/" if path.is_dir() else path.name
        for path in sorted(directory.iterdir())
        if path.name not in going
    ]


def is_allowed(name: str) -> bool:
    """Whether the allow-list names the file."""
    return matches(name, ALLOWED)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns fits, with upper and lower case told apart."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def _weight_names(directory: Path) -> list[str]:
    index = directory / WEIGHTS_INDEX
    if index.is_file():
        return [WEIGHTS_INDEX, *_shards(index)]
    return [name for name in SINGLE_WEIGHTS if (directory / name).is_file()]


def _shards(index: Path) -> list[str]:
    content = read_json(index)
    mapping = content.get("weight_map") if isinstance(content, dict) else None
    names = set(mapping.values()) if isinstance(mapping, dict) else set()
    odd = sorted(str(name) for name in names if not matches(str(name), WEIGHTS))
    if not names or odd:
        problem = f"names {odd[0]!r} as a shard" if odd else "names no shard"
        raise DataError.at(index, None, problem, "save the model anew")
    return sorted(names)


def _checkpoint_hint(directory: Path) -> str:
    checkpoints: Iterator[Path] = directory.glob("checkpoint-*[0-9]")
    newest = max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return "" if newest is None else f" (its newest checkpoint is {newest.name})"
