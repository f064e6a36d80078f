"""From the raw text of an answer to the reply in it."""

from __future__ import annotations

import json
from typing import Any


class UnreadableError(Exception):
    """An answer that is not what was asked for. It is asked again a few times, then put in quarantine."""


def read_reply(body: str, *, takes_any: bool = False) -> str:
    """The text of a chat completion's reply.

    Args:
        body: raw text of the answer.
        takes_any: take a refusal, an empty reply and one that met its token limit as what the model says.

    Raises:
        UnreadableError: HTML, cut-off JSON, an error object; without `takes_any`, a reply that is not a whole one.
    """
    try:
        completion: Any = json.loads(body)
        choice = completion["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise UnreadableError("no chat completion") from None
    if takes_any and all(text is None or isinstance(text, str) for text in (content, refusal)):
        return content or refusal or ""
    if refusal:
        raise UnreadableError("the model refused")
    if choice.get("finish_reason") == "length":
        raise UnreadableError("the reply met its token limit")
    if not isinstance(content, str) or not content.strip():
        raise UnreadableError("an empty reply")
    return content


def read_json(reply: str) -> Any:
    """The JSON that a reply consists of, perhaps in a Markdown fence.

    Raises:
        UnreadableError: it is no JSON, or a field occurs twice in it.
    """
    try:
        return json.loads(_unfenced(reply), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"not JSON: {error}") from None


def _unfenced(reply: str) -> str:
    """Servers without schemas like to put JSON into a Markdown fence."""
    text = reply.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.removesuffix("```").removeprefix("```").removeprefix("json")
    return text


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a field occurs twice")
    return value
