"""One HTTP call to an OpenAI-compatible server, and what its outcome means for the request."""

from __future__ import annotations

import asyncio
import json
import math
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from time import time
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2
import openai

from sage_trl.errors import CredentialsError, SageError
from sage_trl.llm_client.cost import Usage
from sage_trl.llm_client.request import without_credentials
from sage_trl.llm_client.transport import KEEP_ALIVE, KeptAliveTransport

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
LONGEST_ERROR = 500  # characters of a server's error text that are kept
MOST_TOKENS = 1_000_000_000  # of one answer; a count above is no count


class Kind(Enum):
    """What became of one attempt."""

    ANSWERED = "answered"
    RATE_LIMITED = "rate limited"  # not paid
    NOT_SENT = "not sent"  # not paid
    UNKNOWN = "unknown"  # may have been paid: time-out, dropped connection, server error
    REFUSED = "refused"  # this request will never be accepted
    NO_SCHEMA = "no schema"  # the server knows no JSON schemas
    NO_MAX_TOKENS = "no max_tokens"  # the model wants the limit as `max_completion_tokens`
    NO_TEMPERATURE = "no temperature"  # the model takes no temperature but its own


@dataclass(frozen=True)
class Outcome:
    """One attempt: the raw text of the answer, or of the error, and the server's wish to wait, in seconds."""

    kind: Kind
    text: str
    retry_after: float | None = None


class ServiceError(SageError):
    """The server is not there or does not know the model; the same command may be given again."""

    exit_code = 8


def check_base_url(base_url: str) -> None:
    """See that requests can be sent there, before anything is planned or paid.

    Raises:
        SageError: no http or https URL with a host.
    """
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not match
        usable = False
    if not usable:
        raise SageError("--base-url is no URL of a server\n  remedy: give one such as http://localhost:8000/v1")


def read_api_key(base_url: str) -> str:
    """The key from the environment; servers of one's own need none.

    Raises:
        CredentialsError: OpenAI's server without a key, or a key that no HTTP header can hold.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key and without_credentials(base_url) == OPENAI_URL:
        raise CredentialsError(f"{KEY_VARIABLE} is not set\n  remedy: export {KEY_VARIABLE}=... and try again")
    if not (key.isascii() and key.isprintable()):
        raise CredentialsError(f"{KEY_VARIABLE} holds characters that no key has\n  remedy: copy the key again")
    return key or "none"


class ChatClient:
    """Sends chat completions, one HTTP request per call, never retrying.

    Args:
        base_url: of the API, such as `http://localhost:8000/v1`.
        seconds: the longest a whole call may take, slow drips included.
    """

    def __init__(self, base_url: str, seconds: float) -> None:
        self.base_url = base_url
        self._seconds = seconds
        self._api_key = read_api_key(base_url)
        # Certificates are loaded once, not once per connection; a plain server needs none.
        check_base_url(base_url)
        context = None if urlsplit(base_url).scheme == "http" else ssl.create_default_context()
        self._http = _WholeRequests(
            transport=_transport(context, _proxy(base_url)), timeout=seconds, follow_redirects=False
        )
        self._client = openai.AsyncOpenAI(
            api_key=self._api_key, base_url=base_url, max_retries=0, timeout=seconds, http_client=self._http
        )
        url = self._client.base_url  # joined once: the SDK would parse three URLs for every request
        self._url = str(url.copy_with(raw_path=url.raw_path + b"chat/completions"))

    async def close(self) -> None:
        await self._client.close()

    def redact(self, text: str) -> str:
        """The text without our API key, should a server repeat it."""
        return text if self._api_key == "none" else text.replace(self._api_key, "[API key]")

    async def send(self, body: Mapping[str, Any]) -> Outcome:
        """Send a request's body once.

        Raises:
            CredentialsError: the key is refused, or the quota is used up.
            ServiceError: the server does not know the model or the path.
        """
        try:
            async with asyncio.timeout(self._seconds):
                # The SDK's own `create` walks through messages and schema to convert them, which costs as much as the
                # call; this is what it does after that, and gives the response as it came.
                reply = await self._client.post(self._url, body=body, cast_to=httpx2.Response)
                return Outcome(Kind.ANSWERED, self.redact(reply.text))
        except TimeoutError:
            return Outcome(Kind.UNKNOWN, f"no whole answer within {self._seconds:g} s")
        except openai.APIStatusError as error:
            return self._of_status(error)
        except openai.APIConnectionError as error:
            cause = error.__cause__
            sent = not isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError)
            text = self.redact(f"{type(cause).__name__}: {cause}")
            return Outcome(Kind.UNKNOWN if sent else Kind.NOT_SENT, text)

    def _of_status(self, error: openai.APIStatusError) -> Outcome:
        status, text = error.status_code, self.redact(error.response.text)[:LONGEST_ERROR]
        said = f"{self.redact(without_credentials(self.base_url))} says {status}: {in_one_line(text)}"
        if status in (401, 403):
            raise CredentialsError(f"{said}\n  remedy: check {KEY_VARIABLE} and the account's rights")
        if status == 402 or (status == 429 and "insufficient_quota" in text):
            raise CredentialsError(f"{said}\n  remedy: add credit to the account, then give the same command again")
        if status == 429:
            return Outcome(Kind.RATE_LIMITED, text, retry_after(error.response.headers.get("retry-after")))
        if status in (404, 405):
            raise ServiceError(f"{said}\n  remedy: check --base-url and --model")
        if status in (400, 422):
            return Outcome(refusal_kind(text), f"{status}: {text}")
        if 300 <= status < 500 and status not in (408, 409):
            return Outcome(Kind.REFUSED, f"{status}: {text}")
        return Outcome(Kind.UNKNOWN, f"{status}: {text}", retry_after(error.response.headers.get("retry-after")))


def refusal_kind(text: str) -> Kind:
    """What a server's refusal (400 or 422) is about: something that can be asked otherwise, or the request itself."""
    if any(word in text for word in ("response_format", "json_schema", "guided")):
        return Kind.NO_SCHEMA
    if "support" in text:  # "unsupported parameter", "is not supported with this model", "does not support 0"
        # Only a server that names the other limit knows it: one that did not would answer without any.
        if "max_completion_tokens" in text:
            return Kind.NO_MAX_TOKENS
        if "temperature" in text:
            return Kind.NO_TEMPERATURE
    return Kind.REFUSED


def retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header: a number, or a date."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def read_usage(body: str) -> Usage | None:
    """Tokens that an answer says were charged; None where it does not say."""
    try:
        usage: Any = json.loads(body).get("usage")
        tokens = Usage(usage["prompt_tokens"], usage["completion_tokens"])
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return None
    return tokens if all(type(count) is int and 0 <= count <= MOST_TOKENS for count in tokens) else None


def _proxy(base_url: str) -> str | None:
    """The proxy that the environment names; httpx looks for none where it is given a transport."""
    parts = urlsplit(base_url)
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


class _WholeRequests(httpx2.AsyncClient):
    """Takes requests as the SDK makes them; httpx would merge its own headers and cookies into each."""

    def build_request(self, method: str, url: httpx2.URL | str, *, headers: Any = None, **given: Any) -> httpx2.Request:
        """A request with what is given, but for what the SDK tells of this machine; its time-outs are the client's."""
        given.pop("timeout", None)
        told = [(name, value) for name, value in headers or () if not name.startswith("x-stainless-")]
        return httpx2.Request(method, url, headers=told, **given)


def _transport(context: ssl.SSLContext | None, proxy: str | None) -> httpx2.AsyncBaseTransport:
    if not proxy:
        return KeptAliveTransport(context)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE)
    return httpx2.AsyncHTTPTransport(verify=context or False, limits=limits, proxy=proxy)


def in_one_line(text: str) -> str:
    """A server's text for a message: without line breaks, and with control characters escaped."""
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in " ".join(text.split()))
