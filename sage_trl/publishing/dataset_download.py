"""From a published dataset back to an AD-PL directory, with left-out images found by their SHA-256."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath

import httpx2
from huggingface_hub import set_client_factory, snapshot_download

from sage_trl.data.dataset import INFO_FILE, ROWS_FILE, DatasetInfo, read_info, refuse_changed_rows
from sage_trl.data.fact_sets import FACTS_FILE
from sage_trl.data.images import decode_pixels
from sage_trl.data.parquet import read_parquet
from sage_trl.errors import DataError
from sage_trl.publishing.dataset_publication import DATA_FOLDER, SCORES_FILE
from sage_trl.publishing.hub_errors import explained
from sage_trl.publishing.upload import check_repo_id
from sage_trl.storage import atomic_directory, atomic_writer, file_sha256, path_below

IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Restored:
    """What came back: groups, images that the repository holds, and images found in local folders."""

    groups: int
    images: int
    found: int


def download_dataset(repo_id: str, timeout: float = 120.0) -> Path:
    """Bring a published dataset to the hub's local cache.

    Raises:
        RecipeError: no name that the hub knows.
        CredentialsError, HubError: see `explained`.
    """
    check_repo_id(repo_id)
    set_client_factory(partial(httpx2.Client, follow_redirects=True, timeout=timeout))
    patterns = [INFO_FILE, FACTS_FILE, SCORES_FILE, f"{DATA_FOLDER}/*.parquet"]
    with explained(repo_id, f"python tools/build_dataset.py --from-hub {repo_id} --output DIR"):
        return Path(snapshot_download(repo_id, repo_type="dataset", allow_patterns=patterns))


def restore_dataset(
    downloaded: Path,
    output: Path,
    image_roots: Sequence[Path] = (),
    progress: Callable[[int], None] | None = None,
) -> Restored:
    """Write the directory that was published; nothing is written where anything is missing.

    Args:
        downloaded: what `download_dataset` gave.
        output: directory to make.
        image_roots: folders in which left-out images are looked for, whatever they are called there.
        progress: called with the number of local files hashed.

    Raises:
        DataError: faulty files, a name that leads out of `output`, an image that does not decode or is not what its
            SHA-256 says, images that no folder has, or `output` is there already.
    """
    info = _read_info_of_stranger(downloaded)
    lines: dict[int, str] = {}
    wanted: dict[str, list[str]] = {}
    written: dict[str, str] = {}
    with atomic_directory(output) as part:
        root = part / info.image_root
        for file in _tables(downloaded):
            for row in read_parquet(file):
                lines[row.line] = row.text
                for image in row.images:
                    if image.content is None:
                        wanted.setdefault(image.sha256, []).append(image.path)
                        continue
                    is_whole = sha256(image.content).hexdigest() == image.sha256
                    if not is_whole or written.setdefault(image.path, image.sha256) != image.sha256:
                        problem = f"image {image.path!r} is not the one of its SHA-256 {image.sha256[:12]}..."
                        raise DataError.at(file, row.line, problem, "download it again")
                    decode_pixels(image.content, f"{file}: {image.path}")
                    _write(path_below(root, image.path), image.content)
        found = _find(wanted, root, image_roots, progress)
        with atomic_writer(part / ROWS_FILE) as stream:
            stream.writelines(lines[line] for line in sorted(lines))
        for name in (INFO_FILE, FACTS_FILE, SCORES_FILE):
            if (downloaded / name).is_file():
                shutil.copyfile(downloaded / name, part / name)
        refuse_changed_rows(part, info)
    return Restored(len(lines), len(written), found)


def _read_info_of_stranger(downloaded: Path) -> DatasetInfo:
    """`dataset.json` of whoever published it, which must not decide what is written outside the dataset."""
    info = read_info(downloaded)
    if ".." in PurePosixPath(info.image_root).parts:
        problem = f"field 'image_root': {info.image_root!r} leads out of the dataset"
        remedy = "ask its owner to publish it again: --push-to-hub now writes '.'"
        raise DataError.at(downloaded / INFO_FILE, None, problem, remedy)
    return info


def _tables(downloaded: Path) -> list[Path]:
    files = sorted((downloaded / DATA_FOLDER).glob("*.parquet"))
    if not files:
        raise DataError.at(downloaded / DATA_FOLDER, None, "holds no Parquet file", "check the repository's name")
    return files


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _find(
    wanted: dict[str, list[str]], root: Path, image_roots: Sequence[Path], progress: Callable[[int], None] | None
) -> int:
    """Copy what local folders have of the wanted images to their places below `root`."""
    missing = dict(wanted)
    found = 0
    for number, path in enumerate(_image_files(image_roots), start=1):
        if not missing:
            break
        for name in dict.fromkeys(missing.pop(file_sha256(path), ())):
            target = path_below(root, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            found += 1
        if progress is not None:
            progress(number)
    if missing:
        names = sorted(name for paths in missing.values() for name in set(paths))
        where = ", ".join(map(str, image_roots)) or "no folder was given"
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise DataError(
            f"{len(names)} images were left out of the repository and not found ({where}): {shown}\n"
            "  remedy: pass --image-root with a folder that holds the same files, under whatever names"
        )
    return found


def _image_files(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        if not root.is_dir():
            raise DataError.at(root, None, "no such folder", "check --image-root")
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in IMAGE_ENDINGS and path.is_file():
                yield path
