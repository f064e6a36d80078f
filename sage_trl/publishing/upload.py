"""Brings files to a repository of the hub in one commit, and only what is not there already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetInfo,
    HfApi,
    ModelInfo,
    get_token,
    is_offline_mode,
    set_client_factory,
)
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from sage_trl.errors import CredentialsError, HubError, RecipeError
from sage_trl.publishing.files import ADAPTER_CONFIG, WEIGHTS, UploadFile, matches
from sage_trl.publishing.hub_errors import explained

MAIN = "main"
RepositoryInfo = ModelInfo | DatasetInfo


@dataclass(frozen=True)
class UploadOptions:
    """How to upload.

    Attributes:
        repo_id: `name` or `owner/name`; without an owner it is the token's.
        public: create the repository public, or accept that it is.
        message: of the commit.
        timeout: seconds that the hub may stay silent.
        retry: the command that tries again, for messages.
        repo_type: kind of the repository.
        replaced: patterns of files that are deleted where the new upload does not have them.
    """

    repo_id: str
    public: bool
    message: str
    timeout: float
    retry: str
    repo_type: Literal["model", "dataset"] = "model"
    replaced: tuple[str, ...] = (*WEIGHTS, ADAPTER_CONFIG)


@dataclass(frozen=True)
class Upload:
    """What an upload did. `commit` is None where everything was there already."""

    repo_id: str
    url: str
    is_private: bool
    sent: tuple[str, ...]
    deleted: tuple[str, ...]
    unchanged: tuple[str, ...]
    commit: str | None


class Hub:
    """The hub for one upload.

    Raises:
        RecipeError: offline mode is on.
        CredentialsError: there is no token.
    """

    def __init__(self, options: UploadOptions) -> None:
        if is_offline_mode():
            raise RecipeError("HF_HUB_OFFLINE is set\n  remedy: unset it to publish")
        if get_token() is None:
            raise CredentialsError("no token for the hub\n  remedy: set HF_TOKEN, or run `hf auth login`")
        # The client of huggingface_hub waits for ever.
        set_client_factory(partial(httpx2.Client, follow_redirects=True, timeout=options.timeout))
        self._options = options
        self._api = HfApi()

    def full_name(self) -> str:
        """`owner/name`; a bare name would be looked up among the hub's own models.

        Raises:
            CredentialsError, HubError: see `explained`.
        """
        repo_id = self._options.repo_id
        if "/" in repo_id:
            return repo_id
        with explained(repo_id, self._options.retry):
            return f"{self._api.whoami()['name']}/{repo_id}"

    def upload(self, repo_id: str, files: Sequence[UploadFile]) -> Upload:
        """Create the repository if need be, send what differs in one commit, and check that it arrived.

        What `UploadOptions.replaced` names of an earlier upload and this one does not have is deleted in the same
        commit: a loader might take old weights for the model.

        Args:
            repo_id: `owner/name`.
            files: the whole of what shall be there.

        Raises:
            RecipeError: the repository is public and `public` was not asked for.
            CredentialsError, HubError: see `explained`.
        """
        with explained(repo_id, self._options.retry):
            info = self._open(repo_id)
            remote = _by_name(info)
            sent = [file for file in files if not _is_there(file, remote)]
            deleted = _stale(remote, files, self._options.replaced)
            commit = None
            if sent or deleted:
                commit = self._commit(repo_id, sent, deleted, parent=None if info is None else info.sha)
                self._check(repo_id, sent, commit)
        going = {file.name for file in sent}
        return Upload(
            repo_id=repo_id,
            url=f"{self._api.endpoint}/{'datasets/' if self._options.repo_type == 'dataset' else ''}{repo_id}",
            is_private=not self._options.public if info is None else bool(info.private),
            sent=tuple(file.name for file in sent),
            deleted=tuple(deleted),
            unchanged=tuple(file.name for file in files if file.name not in going),
            commit=commit,
        )

    def _open(self, repo_id: str) -> RepositoryInfo | None:
        """The existing repository, or None for one made just now."""
        try:
            info = self._info(repo_id)
        except RepositoryNotFoundError as error:
            if error.response.status_code != 404:
                raise  # the client says "not found" for 401 as well
            self._api.create_repo(repo_id, repo_type=self._options.repo_type, private=not self._options.public)
            return None
        if not info.private and not self._options.public:
            raise RecipeError(
                f"{repo_id} exists and is public: everybody would see this upload\n"
                "  remedy: pass --public if that is meant, or choose another --repo-id"
            )
        return info

    def _info(self, repo_id: str, revision: str | None = None) -> RepositoryInfo:
        """With the files and their digests; this call goes without a time-out unless it is named."""
        read = self._api.model_info if self._options.repo_type == "model" else self._api.dataset_info
        return read(repo_id, revision=revision, files_metadata=True, timeout=self._options.timeout)

    def _commit(self, repo_id: str, files: Iterable[UploadFile], deleted: Iterable[str], parent: str | None) -> str:
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationDelete(name, is_folder=False) for name in deleted),
            *(CommitOperationAdd(file.name, file.content) for file in files),
        ]
        # Against the commit that was compared with, so that a change in between is a conflict and not overwritten.
        done = self._api.create_commit(
            repo_id,
            operations,
            commit_message=self._options.message,
            parent_commit=parent,
            repo_type=self._options.repo_type,
        )
        return str(done.oid)

    def _check(self, repo_id: str, sent: Iterable[UploadFile], commit: str) -> None:
        remote = _by_name(self._info(repo_id, commit))
        lacking = [file.name for file in sent if not _is_there(file, remote)]
        if lacking:
            raise HubError(
                f"{repo_id}: {', '.join(lacking)} did not arrive as sent\n"
                "  remedy: look whether a .gitignore in the repository leaves them out, then run the command again"
            )


def check_repo_id(repo_id: str) -> None:
    """Refuse a name that the hub would not take.

    Raises:
        RecipeError: names it and the reason.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RecipeError(f"repository {repo_id!r}: {error}\n  remedy: write NAME or OWNER/NAME") from None


def _by_name(info: RepositoryInfo | None) -> dict[str, RepoSibling]:
    return {} if info is None else {sibling.rfilename: sibling for sibling in info.siblings or []}


def _is_there(file: UploadFile, remote: Mapping[str, RepoSibling]) -> bool:
    found = remote.get(file.name)
    if found is None or found.size != file.size:
        return False
    return found.blob_id == file.git_blob_id() if found.lfs is None else found.lfs.sha256 == file.sha256()


def _stale(remote: Iterable[str], files: Sequence[UploadFile], patterns: Iterable[str]) -> list[str]:
    names = {file.name for file in files}
    return sorted(name for name in remote if matches(name, patterns) and name not in names)
