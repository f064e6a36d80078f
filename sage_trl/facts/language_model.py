"""Facts by a language model behind any OpenAI-compatible server."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.data.image_files import read_image_file
from sage_trl.data.images import open_image
from sage_trl.errors import DataError
from sage_trl.facts.prompts import fact_prompts
from sage_trl.facts.sentences import choose_sentences, split_sentences
from sage_trl.facts.writer import Part
from sage_trl.llm_client.client import read_api_key
from sage_trl.llm_client.plan import estimate, make_plan
from sage_trl.llm_client.replies import UnreadableError, read_json
from sage_trl.llm_client.request import ChatRequest, ImageFile, Message
from sage_trl.llm_client.runner import run_plan
from sage_trl.llm_client.service import ServiceOptions, ask_to_send, open_ledger, show_cost

VERSION = "openai-1"
_ENDS = (".", "!", "?", ":", "。", "！", "？", "：")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"sentences": {"type": "array", "items": {"type": "string"}}},
    "required": ["sentences"],
    "additionalProperties": False,
}


def parse_facts(reply: str) -> list[str]:
    """The usable sentences of one reply, cleaned.

    Raises:
        UnreadableError: it is no list of sentences, or none of them is usable.
    """
    value = read_json(reply)
    sentences = value.get("sentences") if isinstance(value, dict) else None
    if not isinstance(sentences, list) or not all(isinstance(one, str) for one in sentences):
        raise UnreadableError("no list of sentences")
    lines = (" ".join(one.split()) for one in sentences)
    # The reply is whole, so a sentence without an end is not one that was cut off.
    usable = split_sentences("\n".join(line if line.endswith(_ENDS) else f"{line}." for line in lines))
    if not usable:
        raise UnreadableError("no usable sentence")
    return usable


class LanguageModelWriter:
    """A `FactWriter` that shows a served model the picture alone: neither the file's name nor the category.

    An image of which one prompt has no readable answer gets no facts; it is listed and asked again by the next run.

    Args:
        options: server, model, money.
        count: sentences per image.
        batch_size: images at a time, each with every prompt.
        max_tokens: longest reply to one prompt.
    """

    def __init__(self, options: ServiceOptions, *, count: int, batch_size: int, max_tokens: int) -> None:
        read_api_key(options.base_url)
        self._options, self._max_tokens = options, max_tokens
        # The tool shows its own progress.
        self._settings = replace(options.settings(f"facts-{VERSION}"), quiet=True)
        self.prompts = fact_prompts(count)
        self.model = f"openai:{options.model}"
        self.prompt_version = f"{VERSION} count-{count} tokens-{max_tokens}"
        self.count = count
        self.batch_size = batch_size

    def write(self, parts: Sequence[Part]) -> list[list[str]]:
        """See `FactWriter`.

        Raises:
            SageError: what ended the run early; everything received is in the cache file.
        """
        with tempfile.TemporaryDirectory() as folder, open_ledger(self._options) as ledger:
            requests = self._requests(parts, Path(folder))
            plan = make_plan(requests, parse_facts, self._settings, ledger)
            result = run_plan(plan, parse_facts, self._settings, ledger)
        if result.stopped is not None:
            raise result.stopped
        step = len(self.prompts)
        replies = [result.values[start : start + step] for start in range(0, len(requests), step)]
        return [[] if None in one else choose_sentences(one, self.count) for one in replies]

    def cost(self, part: Part) -> tuple[int, int]:
        """What one image costs, in nano-dollars: expected, and at most if each prompt is sent once."""
        with tempfile.TemporaryDirectory() as folder:
            found = estimate(self._requests([part], Path(folder)), self._settings.prices)
        return found.expected, found.worst

    def _requests(self, parts: Sequence[Part], folder: Path) -> list[ChatRequest]:
        images = [_image_file(part, folder / f"{number}.png") for number, part in enumerate(parts)]
        return [self._request(prompt, image) for image in images for prompt in self.prompts]

    def _request(self, prompt: str, image: ImageFile) -> ChatRequest:
        return ChatRequest(
            model=self._options.model,
            messages=(Message("user", prompt, (image,)),),
            max_tokens=self._max_tokens,
            schema=SCHEMA,
            schema_name="facts_1",
            sampling={"temperature": 0},
        )


def agree_on_cost(ad_pl: AdPlDirectory, options: ServiceOptions, count: int, max_tokens: int, console: Console) -> bool:
    """Show what all images may cost, by the size of the first, and let the user decide; False for a dry run.

    Raises:
        SageError: the user does not want it.
    """
    writer = LanguageModelWriter(options, count=count, batch_size=1, max_tokens=max_tokens)
    part = _first_part(ad_pl)
    expected, worst = (0, 0) if part is None else writer.cost(part)
    images = len({row.test_image for row in ad_pl.inspections})
    console.print(f"to ask: {len(writer.prompts)} prompts on each of at most {images:,} images", soft_wrap=True)
    with open_ledger(options) as ledger:
        show_cost(images * expected, images * worst, ledger.spent(), options.prices(), console)
    if not options.dry_run and not options.yes:
        ask_to_send()
    return not options.dry_run


def _first_part(ad_pl: AdPlDirectory) -> Part | None:
    """The first that can be opened; the others are listed when their turn comes."""
    for row in ad_pl.inspections:
        try:
            return Part(row.category, open_image(ad_pl.image_path(row.test_image)))
        except DataError:
            continue
    return None


def _image_file(part: Part, path: Path) -> ImageFile:
    part.image.save(path)
    return read_image_file(path)
