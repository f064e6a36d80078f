"""Reference log-probabilities on disk: pi_ref reads each answer once, in all epochs, pair choices and runs."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sage_trl.errors import DataError
from sage_trl.models.parts import POLICY_ADAPTER, adapter_of
from sage_trl.models.same_images import ImageKeys
from sage_trl.storage import JsonlAppender, content_key, read_json_lines, write_json

logger = logging.getLogger(__name__)
# Rows of a key tensor hold the SHA-256 of what decides an answer's log-probabilities.
KEY_WORDS = 4


class ReferenceCache:
    """Token log-probabilities of answers under one reference model.

    Every process appends to a file of its own, batch by batch, and reads those of all: a kill loses the batch in
    flight at most.

    Args:
        directory: holds one directory for each reference; what another reference left stays and is never read.
        identity: what decides the numbers beside the answer: weights, kernels, types.
        process: index of this process.
        processes: how many write now; earlier runs may have had more.

    Raises:
        LockedError: another run writes to the cache.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Any], process: int, processes: int = 1) -> None:
        self.directory = directory / content_key(dict(identity))[:16]
        others = [path for path in directory.glob("*/reference.json") if path.parent != self.directory]
        if others and process == 0 and not self.directory.is_dir():
            logger.warning(
                "reference_cache %s: of %d other references there is none like this one; it is computed anew",
                directory,
                len(others),
            )
        self._file = JsonlAppender(self.directory / f"process-{process}.jsonl")
        if process == 0:
            write_json(self.directory / "reference.json", dict(identity))
            for path in self.directory.glob("process-*.jsonl"):
                if int(path.stem.removeprefix("process-")) >= processes:
                    # Opening mends a line that a kill cut short; nobody else will, with fewer processes than then.
                    JsonlAppender(path).close()
        self._known: dict[bytes, Tensor] = {}

    def read(self) -> None:
        """Read what all processes have stored before; to be called once every process has made its cache.

        Raises:
            DataError: a line that is none of ours.
        """
        for path in sorted(self.directory.glob("process-*.jsonl")):
            for line, row in read_json_lines(path):
                key = bytes.fromhex(_field(row, "key", str, path, line))
                self._known[key] = torch.tensor(_field(row, "log_probs", list, path, line), dtype=torch.float32)

    def close(self) -> None:
        """Let another run write to the cache."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, keys: Tensor) -> list[Tensor] | None:
        """The token log-probabilities of all answers, or None if one is missing.

        Args:
            keys: `[answers, KEY_WORDS]`.
        """
        found = [self._known.get(_digest(key)) for key in keys]
        return None if any(one is None for one in found) else [one for one in found if one is not None]

    def store(self, keys: Tensor, log_probs: Sequence[Tensor]) -> None:
        """Add what is new of a batch, on disk before it returns."""
        new = {}
        for key, tokens in zip(keys, log_probs, strict=True):
            digest = _digest(key)
            if digest not in self._known:
                new[digest] = tokens.detach().float().cpu()
        self._known |= new
        self._file.append({"key": key.hex(), "log_probs": values.tolist()} for key, values in new.items())


def prompt_identity(processor: Any, **settings: Any) -> str:
    """What decides a prompt's tokens and pixels beside its row; read once, for a tokenizer has megabytes.

    Args:
        processor: a Sage processor.
        settings: how the prompt is built.
    """
    # How the last batch was padded is part of the tokenizer's state, and of no answer.
    tokenizer = json.loads(processor.tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
    return content_key(
        {
            "images": processor.image_processor.to_json_string(),
            "tokenizer": content_key(tokenizer),
            "template": processor.chat_template,
            **settings,
        }
    )


def answer_keys(identity: str, rows: Sequence[Mapping[str, Any]], answers: Sequence[str], key_of: ImageKeys) -> Tensor:
    """`[answers, KEY_WORDS]`: what decides the log-probabilities of each answer beside the model.

    Args:
        identity: what `prompt_identity` gives.
        rows: the row of each answer, with decoded images.
        answers: the rendered answers.
        key_of: the keys of these images, as far as they are known.
    """
    keys = []
    for row, answer in zip(rows, answers, strict=True):
        images = [key_of(image) for image in (*row["images"], row["reference_image"])]
        content = {
            "shared": identity,
            "images": [None if image is None else image.hex() for image in images],
            "facts": list(row["facts"]),
            "prompt": row["prompt"],
            "answer": answer,
        }
        key = bytes.fromhex(content_key(content))
        keys.append([int.from_bytes(key[8 * word : 8 * word + 8], "big", signed=True) for word in range(KEY_WORDS)])
    return torch.tensor(keys)


def reference_sha256(model: Any) -> str:
    """SHA-256 over the names and bytes of the parameters of pi_ref: a model's own, without a policy's adapter."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters(), key=lambda item: item[0]):
        if adapter_of(name) == POLICY_ADAPTER:
            continue
        digest.update(f"{name}\0{parameter.dtype}\0{tuple(parameter.shape)}\0".encode())
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _digest(key: Tensor) -> bytes:
    return b"".join(word.to_bytes(8, "big", signed=True) for word in key.tolist())


def _field(row: Any, name: str, kind: type, path: Path, line: int) -> Any:
    value: Any = row.get(name) if isinstance(row, dict) else None
    is_right = isinstance(value, kind)
    if is_right and kind is list:
        is_right = all(isinstance(one, float | int) and math.isfinite(one) for one in value)
    if not is_right:
        raise DataError.at(path, line, f"{name} is {value!r}", "delete the line; it is computed anew")
    return value
