"""A model under test behind any OpenAI-compatible server: GPT-4o, DeepSeek-VL2 or another on vLLM."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from sage_trl.data.image_files import read_image_file
from sage_trl.evaluation.controls import Row
from sage_trl.llm_client.asking import ask, check_service, show_unanswered
from sage_trl.llm_client.plan import Estimate, estimate
from sage_trl.llm_client.request import ChatRequest, ImageFile, Message, without_credentials
from sage_trl.llm_client.service import ServiceOptions
from sage_trl.models.prompt import REFERENCE_SENTENCE, TEST_SENTENCE, with_images_and_facts
from sage_trl.models.replies import Reply

PARSER = "reply-1"


class ServedModel:
    """A `ReplyGenerator` that takes rows with image files as they are, all of a split at once.

    It gets the prompt of the other models without facts, with the reference first where the row has one. What it says
    is its reply: also a refusal, nothing, or what was cut at `max_new_tokens`. A row to which no answer came, or none
    that is a chat completion, has no reply.

    Args:
        service: server, model and money; the user has agreed to the cost.
        max_new_tokens: longest reply.

    Raises:
        SageError: nothing can be asked there: no URL, no key, a cap without prices.
    """

    def __init__(self, service: ServiceOptions, max_new_tokens: int) -> None:
        check_service(service)
        self._service, self._max_new_tokens = service, max_new_tokens
        self._console = Console(stderr=True, quiet=service.quiet)
        self._files: dict[Path, ImageFile] = {}

    def identity(self) -> dict[str, Any]:
        """What decides the replies beside the rows."""
        return {
            "server": without_credentials(self._service.base_url),
            "model_name": self._service.model,
            "max_new_tokens": self._max_new_tokens,
            "sentences": [REFERENCE_SENTENCE, TEST_SENTENCE],
        }

    def __call__(self, rows: list[Row], /) -> list[Reply | None]:
        """Reply to rows whose images are files, or pictures where a control made them.

        Raises:
            SageError: what ended the run early; everything received is in the cache file.
        """
        with tempfile.TemporaryDirectory() as folder:
            requests = list(self._requests(rows, Path(folder)))
            result = ask(requests, str.strip, PARSER, self._service, f"ask {self._service.model}", self._console)
        assert result is not None, "a dry run asks nothing"
        show_unanswered(result, lambda row: f"{rows[row]['group_id']}/{rows[row]['question_id']}", self._console)
        if result.stopped is not None:
            raise result.stopped
        return [None if text is None else Reply(text) for text in result.values]

    def estimate(self, rows: Sequence[Row]) -> Estimate:
        """What asking these may cost if nothing is known yet."""
        with tempfile.TemporaryDirectory() as folder:
            return estimate(self._requests(rows, Path(folder)), self._service.prices())

    def _requests(self, rows: Sequence[Row], folder: Path) -> Iterator[ChatRequest]:
        made = _PictureFiles(folder)
        for row in rows:
            pictures = [row["reference_image"], *row["images"]]
            images = [self._file(made.path(picture)) for picture in pictures if picture is not None]
            yield ChatRequest(
                model=self._service.model,
                messages=_messages(row, tuple(images)),
                max_tokens=self._max_new_tokens,
                sampling={"temperature": 0},
                takes_any_reply=True,
            )

    def _file(self, path: Path) -> ImageFile:
        if path not in self._files:
            self._files[path] = read_image_file(path)
        return self._files[path]


class _PictureFiles:
    """Files of pictures that a control made; rows that share one share its file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[int, Path] = {}

    def path(self, picture: Path | Image.Image) -> Path:
        if isinstance(picture, Path):
            return picture
        if id(picture) not in self._known:
            path = self._folder / f"{len(self._known)}.png"
            picture.save(path)
            self._known[id(picture)] = path
        return self._known[id(picture)]


def _messages(row: Row, images: tuple[ImageFile, ...]) -> tuple[Message, ...]:
    """The row's chat; the images, which the text names by number, come first."""
    first, *rest = with_images_and_facts(row["prompt"], [], "none", row["reference_image"] is not None)
    return (Message("user", _text(first), images), *(Message(turn["role"], _text(turn)) for turn in rest))


def _text(turn: dict[str, Any]) -> str:
    return "".join(part["text"] for part in turn["content"] if part["type"] == "text")
