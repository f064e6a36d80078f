"""From a model's replies to fact sentences: split, cleaned, each once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

_LIST_MARK = re.compile(r"^\s*(?:[-*•–—#>]+|\(?\d{1,2}[.):]|\(?[a-z][.)])\s+", re.IGNORECASE)
_MARKUP = re.compile(r"\*\*|__|`|^#+\s*")
# After a full stop that ends a word of several letters, or a number; "e.g. rust" and "3.5 mm" are not split.
_SENTENCE_END = re.compile(r"(?<=[^\W\d_]{2}[.!?])\s+(?=[\"'(A-Z0-9])|(?<=\d[.!?])\s+(?=[A-Z])|(?<=[。！？])\s*")
_PLACEHOLDER = re.compile(r"<[^<>\s]{1,30}>")
# Said to the person who asks, not about the part.
_CHATTER = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|here (?:are|is)|i (?:hope|cannot|can't|am)|as an ai)\b", re.I
)
_END = (".", "!", "?", "。", "！", "？")
MIN_LENGTH = 8
MAX_LENGTH = 400


def split_sentences(reply: str) -> list[str]:
    """The sentences of one reply.

    Marks of lists and markup go, headings and chatter too; the last sentence goes where it has no end, for then the
    longest reply that was allowed has cut it. An item of a list ends with its line.
    """
    lines = [line for line in reply.splitlines() if line.strip()]
    sentences: list[str] = []
    for number, line in enumerate(lines, start=1):
        is_item = _LIST_MARK.match(line) is not None
        text = _MARKUP.sub("", _LIST_MARK.sub("", line.strip())).strip()
        for piece in filter(None, map(str.strip, _SENTENCE_END.split(text))):
            is_cut = number == len(lines) and not piece.endswith(_END) and text.endswith(piece)
            if is_cut or not _is_fact(piece):
                continue
            if piece.endswith(_END):
                sentences.append(piece)
            elif is_item:
                sentences.append(f"{piece.rstrip(',;')}.")
    return sentences


def _is_fact(piece: str) -> bool:
    is_question = piece.endswith(("?", "？"))
    is_heading = piece.endswith((":", "："))
    is_sized = MIN_LENGTH <= len(piece) <= MAX_LENGTH
    return is_sized and not (is_question or is_heading or _CHATTER.match(piece) or _PLACEHOLDER.search(piece))


def choose_sentences(replies: Iterable[Sequence[str]], count: int) -> list[str]:
    """The first `count` different sentences, one of each reply in turn, so that every question is answered."""
    chosen: dict[str, str] = {}
    for sentences in zip_longest(*replies):
        for sentence in filter(None, sentences):
            chosen.setdefault(re.sub(r"\W+", " ", sentence.casefold()).strip(), sentence)
    return list(chosen.values())[:count]
