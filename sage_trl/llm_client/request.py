"""One request to a chat model, the key of its content, and the most tokens it can cost."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from sage_trl.errors import DataError
from sage_trl.storage import content_key, to_line

MESSAGE_OVERHEAD = 16  # tokens that a chat template adds to a message, generously
OPENAI_IMAGE_TOKENS = 1445  # GPT-4o: 85 + 170 for each of at most 8 tiles of 512 px
MINI_IMAGE_TOKENS = 2833 + 5667 * 8  # gpt-4o-mini charges more tokens for the same tiles
PATCH_AREA = 14 * 14  # open models: at most one token for a patch of 14 px

SchemaMode = Literal["strict", "prompt"]


@dataclass(frozen=True)
class ImageFile:
    """An image that goes with a message; its bytes are read when the request is sent.

    Attributes:
        path: where it lies.
        sha256: of its bytes, for the key.
        media_type: such as `image/png`.
        size: width and height in pixels, for the bound of its tokens.
    """

    path: Path
    sha256: str
    media_type: str
    size: tuple[int, int]

    def data_url(self) -> str:
        """The image as a URL with its bytes inside.

        Raises:
            DataError: the file cannot be read any more.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise DataError.at(self.path, None, f"cannot be read: {error.strerror}", "restore the image") from None
        return f"data:{self.media_type};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class Message:
    """One message of a chat; images come before its text."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[ImageFile, ...] = ()

    def content(self) -> Any:
        """As the API takes it."""
        if not self.images:
            return self.text
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": image.data_url()}} for image in self.images
        ]
        return [*parts, {"type": "text", "text": self.text}]


@dataclass(frozen=True)
class ChatRequest:
    """Everything that decides an answer, apart from the server.

    Attributes:
        model: the server's name of the model.
        messages: the chat.
        max_tokens: the most tokens of a reply, which bounds what it can cost.
        schema: JSON schema of the reply, or None for free text.
        schema_name: its name for the API.
        schema_mode: `strict` hands the schema to the API, `prompt` writes it at the end of the last message, for
            servers without schemas.
        sampling: temperature, seed, top_p and the like, as the API names them.
        repeat: index of the repetition; equal requests with different indices are asked and paid separately.
        check: called with the value that was read; raises `UnreadableError` where it does not fit this very request.
            It is no part of the key, so it may look at nothing that the messages do not hold.
        takes_any_reply: a reply that was cut at its limit, an empty one and a refusal are replies as they are, as of a
            model under test; else they are unreadable. No part of the key.
        limit_name: what the model wants `max_tokens` to be called; with `max_completion_tokens` its hidden thoughts
            count too. No part of the key, for the limit is the same.
        sends_temperature: False for a model that takes none but its own. No part of the key, for it has no other.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    schema: Mapping[str, Any] | None = None
    schema_name: str = "reply"
    schema_mode: SchemaMode = "strict"
    sampling: Mapping[str, float | int | str] = field(default_factory=dict)
    repeat: int = 0
    check: Callable[[Any], None] | None = field(default=None, compare=False)
    takes_any_reply: bool = False
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    sends_temperature: bool = True

    def key(self, base_url: str) -> str:
        """SHA-256 of everything that decides the answer, and of nothing else."""
        return content_key(
            {
                "api": "chat.completions",
                "base_url": without_credentials(base_url),
                "model": self.model,
                "messages": [
                    {"role": message.role, "text": message.text, "images": [image.sha256 for image in message.images]}
                    for message in self.messages
                ],
                "schema": self.schema,
                "schema_name": self.schema_name,
                "schema_mode": self.schema_mode,
                "max_tokens": self.max_tokens,
                "sampling": dict(self.sampling),
                "repeat": self.repeat,
            }
        )

    def in_prompt_mode(self) -> ChatRequest:
        """The same request for a server without schemas; one for free text needs none."""
        return self if self.schema is None else replace(self, schema_mode="prompt")

    def with_completion_limit(self) -> ChatRequest:
        """The same request for a model that refuses `max_tokens`."""
        return replace(self, limit_name="max_completion_tokens")

    def without_temperature(self) -> ChatRequest:
        """The same request for a model that takes no temperature."""
        return replace(self, sends_temperature=False)

    def body(self) -> dict[str, Any]:
        """The JSON body of the API call."""
        messages = [{"role": message.role, "content": message.content()} for message in self._sent_messages()]
        body: dict[str, Any] = {"model": self.model, "messages": messages, self.limit_name: self.max_tokens}
        body.update(self.sampling)
        if not self.sends_temperature:
            body.pop("temperature", None)
        if self.schema is not None and self.schema_mode == "strict":
            described = {"name": self.schema_name, "strict": True, "schema": self.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": described}
        return body

    def body_size(self) -> int:
        """Bytes of the body, at least, without reading an image."""
        texts = sum(len(message.text.encode()) for message in self.messages) + len(to_line(self.schema).encode())
        images = sum(image.path.stat().st_size * 4 // 3 for message in self.messages for image in message.images)
        return texts + images + 1000

    def _sent_messages(self) -> tuple[Message, ...]:
        if self.schema is None or self.schema_mode == "strict":
            return self.messages
        last = self.messages[-1]
        text = f"{last.text}\n\nReply with one JSON object and nothing else. Its JSON schema:\n{to_line(self.schema)}"
        return (*self.messages[:-1], replace(last, text=text))

    @cached_property
    def prompt_token_bound(self) -> int:
        """More tokens than the prompt can have: no token of a byte-level vocabulary is shorter than one byte."""
        texts = sum(len(message.text.encode()) + MESSAGE_OVERHEAD for message in self.messages)
        schema = 0 if self.schema is None else len(to_line(self.schema).encode()) + 100
        images = sum(_image_token_bound(self.model, image) for message in self.messages for image in message.images)
        return texts + schema + images


def _image_token_bound(model: str, image: ImageFile) -> int:
    if "gpt-4o-mini" in model:
        return MINI_IMAGE_TOKENS
    width, height = image.size
    return max(OPENAI_IMAGE_TOKENS, math.ceil(width * height / PATCH_AREA))


def without_credentials(url: str) -> str:
    """The URL without user name, password, query and trailing slash."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
