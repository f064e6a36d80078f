"""Looks for secrets and for paths of this machine in what is to be published."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sage_trl.errors import DataError
from sage_trl.publishing.files import ADAPTER_CONFIG, UploadFile

TOKENS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "an OpenAI-style key": r"(?<![A-Za-z0-9])sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{30,})",
    "an AWS access key": r"\bAKIA[0-9A-Z]{16}\b",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}",
    "a Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
# A folder alone is no finding: vocabularies hold words such as `/home`.
LOCAL_PATHS = (
    r"(?<![\w.])/(?:home|Users)/[\w.-]+/[\w.-]+",
    r"(?<![\w.])/(?:root|tmp|var/folders)/[\w.-]+",
    r"\b[A-Za-z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/)[\w.-]+",
    r"\bfile:///",
)
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/\\-])/([\w.-]+/[\w.-]+)(?:/[\w.-]+)*")
SYSTEM_FOLDERS = frozenset({"bin", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr"})
"""The same everywhere, so a path below them says nothing of this machine."""
SECRET_VARIABLES = re.compile(r"(?:TOKEN|API_?KEY|SECRET|SECRET_?KEY|ACCESS_?KEY|PASSWORD)$")
SHORTEST_SECRET = 8
"""Shorter values of secret variables occur in ordinary text by chance."""
_SHOWN_OF_A_SECRET = 4


@dataclass(frozen=True)
class Finding:
    """Something that must not be published: where it is, what it is, how to mend it."""

    place: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}\n  remedy: {self.remedy}"


def refuse_findings(files: Iterable[UploadFile], secrets: Mapping[str, str]) -> None:
    """Stop before anything is sent if a file holds a secret or a path of this machine.

    Args:
        files: all that is to go out. Of weights the header is read: what follows it are numbers without gaps.
        secrets: name -> value of the secrets of this process, see `secrets_of_this_process`.

    Raises:
        DataError: every finding with file, line or key, and remedy; a secret is never shown whole.
    """
    found = [finding for file in files for finding in scan(file, secrets)]
    if found:
        shown = "\n".join(str(finding) for finding in found[:10])
        more = f"\nand {len(found) - 10} more" if len(found) > 10 else ""
        raise DataError(f"{len(found)} finding(s), nothing was published\n{shown}{more}")


def scan(file: UploadFile, secrets: Mapping[str, str]) -> Iterator[Finding]:
    """All findings in one file."""
    for place, text in _lines(file):
        for what in _secrets_in(text, secrets):
            yield Finding(place, what, "remove it from the run, and revoke it if it was ever shared")
        for path in _paths_in(text):
            yield Finding(place, f"holds the local path {path!r}", _path_remedy(file.name))
    if file.name == ADAPTER_CONFIG:
        yield from _base_model_findings(file)


def secrets_of_this_process(hub_token: str | None) -> dict[str, str]:
    """Values of environment variables that are named like secrets, and the token of the hub login."""
    found = {
        f"${name}": value
        for name, value in os.environ.items()
        if SECRET_VARIABLES.search(name) and len(value) >= SHORTEST_SECRET
    }
    if hub_token is not None and len(hub_token) >= SHORTEST_SECRET:
        found.setdefault("the hub login", hub_token)
    return found


def _lines(file: UploadFile) -> Iterator[tuple[str, str]]:
    if file.is_weights:
        yield from ((f"{file.name}, {key}", value) for key, value in _weights_header(file))
        return
    text = file.read().decode("utf-8", errors="replace")
    yield from ((f"{file.name}:{number}", line) for number, line in enumerate(text.splitlines(), start=1))


def _weights_header(file: UploadFile) -> Iterator[tuple[str, str]]:
    """The metadata and the tensor names of a safetensors file: 8 bytes of length, then that many of JSON."""
    assert isinstance(file.content, Path)
    try:
        with file.content.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.size:
                raise ValueError(f"the header claims {length} bytes, the file has {file.size}")
            header = json.loads(stream.read(length))
    except (ValueError, struct.error) as error:
        raise DataError.at(file.content, None, f"is no safetensors file: {error}", "save the model anew") from None
    for key, value in (header.pop("__metadata__", None) or {}).items():
        yield f"metadata {key!r}", f"{key} {value}"
    for name in header:
        yield f"tensor {name!r}", name


def _secrets_in(text: str, secrets: Mapping[str, str]) -> Iterator[str]:
    own = {name: value for name, value in secrets.items() if value in text}
    for name, value in own.items():
        yield f"holds the value of {name} ({_masked(value)})"
    for what, pattern in TOKENS.items():
        for match in re.finditer(pattern, text):
            if not any(match.group() in value or value in match.group() for value in own.values()):
                yield f"holds {what} ({_masked(match.group())})"


def _masked(secret: str) -> str:
    return f"{secret[:_SHOWN_OF_A_SECRET]}..., {len(secret)} characters"


def _paths_in(text: str) -> list[str]:
    """Paths that look like a person's, and any absolute path whose first two folders exist here."""
    found = [match.group() for pattern in LOCAL_PATHS for match in re.finditer(pattern, text)]
    for match in ABSOLUTE_PATH.finditer(text):
        top = match.group(1).partition("/")[0]
        is_known = any(path.startswith(match.group()) or match.group().startswith(path) for path in found)
        if not is_known and top not in SYSTEM_FOLDERS and Path("/", match.group(1)).exists():
            found.append(match.group())
    return found


def _path_remedy(name: str) -> str:
    if name == ADAPTER_CONFIG:
        return _BASE_MODEL
    return "write the path out of the file, or train again from a relative path"


_BASE_MODEL = "pass --base-model HUB_ID, which names the base model in the published copy; or publish with --merged"


def _base_model_findings(file: UploadFile) -> Iterator[Finding]:
    """A relative path is no secret, but nobody else could load the adapter."""
    base = json.loads(file.read()).get("base_model_name_or_path")
    if base is not None and not list(_paths_in(base)) and (Path(base).is_dir() or Path(base).is_absolute()):
        place = f"{file.name}, key 'base_model_name_or_path'"
        yield Finding(place, f"{base!r} is a directory of this machine", _BASE_MODEL)
