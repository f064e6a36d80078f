"""What went wrong at the hub, in words a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from sage_trl.errors import CredentialsError, HubError, SageError

_LONGEST_ANSWER = 300
_CREDENTIALS = {
    401: "the token is missing, mistyped or expired: set HF_TOKEN, or run `hf auth login`",
    402: "the account's plan does not allow it: check its quota, or publish under another name",
    403: (
        "the token may not write there, or the storage quota is used up: use a token with write access to this "
        "repository, check --repo-id, check the quota"
    ),
}
_REMEDIES = {
    404: "check --repo-id; a repository that was deleted or renamed meanwhile is not found",
    409: "somebody else changed the repository at the same moment: run the command again",
    412: "somebody else changed the repository at the same moment: run the command again",
    413: "save the model in smaller shards (`save_pretrained(..., max_shard_size='2GB')`), then run the command again",
    429: "wait some minutes, then run the command again",
}
_AGAIN = "local files are untouched: run the command again, which sends nothing that has arrived already"


@contextmanager
def explained(repo_id: str, retry: str) -> Iterator[None]:
    """Turn every failure of the hub in the body into a `SageError`.

    Args:
        repo_id: the repository, for the message.
        retry: the command that tries again.

    Raises:
        CredentialsError: 401, 402, 403.
        HubError: all else: other refusals, server errors, dropped connections, time-outs, answers that make no sense.
    """
    try:
        yield
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise _explain(error, repo_id, retry) from None


def _explain(error: BaseException, repo_id: str, retry: str) -> SageError:
    # The client wraps what fails in an upload thread.
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
    kind, problem, remedy = _classify(cause)
    return kind(f"{repo_id}: {problem}\n  remedy: {remedy}\n  retry: {retry}")


def _classify(error: BaseException) -> tuple[type[SageError], str, str]:
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        problem = f"the hub answered {status} {error.response.reason_phrase} to {_request(error)}{_words(error)}"
        if status in _CREDENTIALS:
            return CredentialsError, problem, _CREDENTIALS[status]
        return HubError, problem, _REMEDIES.get(status, _AGAIN)
    if isinstance(error, httpx2.TimeoutException):
        return HubError, "the hub did not answer in time", f"{_AGAIN}, or raise --timeout"
    if isinstance(error, httpx2.ConnectError):
        return (
            HubError,
            f"the hub cannot be reached: {error}",
            "check the network, HF_ENDPOINT and proxies, then run it again",
        )
    if isinstance(error, httpx2.TransportError):
        return HubError, f"the connection to the hub was dropped: {error}", _AGAIN
    return HubError, f"the upload failed: {error}", _AGAIN


def _request(error: HfHubHTTPError) -> str:
    request = error.response.request
    return f"{request.method} {request.url.path}"  # without the query, which may hold a signature


def _words(error: HfHubHTTPError) -> str:
    said = " ".join((error.server_message or "").split())
    if not said:
        return ""
    return f": {said[:_LONGEST_ANSWER]}" + ("..." if len(said) > _LONGEST_ANSWER else "")
