"""A SentencePiece BPE model (`tokenizer.model`) as a `tokenizers.Tokenizer`, without the sentencepiece package.

The file is one protobuf message, `ModelProto` of sentencepiece's `sentencepiece_model.proto`; the few fields needed are
read here by their numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from sage_trl.errors import DataError

BPE_MODEL = 2
SPACE = "▁"
# Where the prefix space goes: nowhere, before each stretch between added tokens, or before the first one only.
PrefixSpace = Literal["none", "each", "first"]


class PieceType(IntEnum):
    """`ModelProto.SentencePiece.Type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its place in the list is its id."""

    text: str
    score: float
    type: PieceType


@dataclass(frozen=True)
class SentencePieceModel:
    """What a `tokenizer.model` says of encoding."""

    pieces: list[Piece]
    byte_fallback: bool
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a `tokenizer.model`.

    Raises:
        DataError: not such a file, or one that encodes in a way `bpe_tokenizer` does not.
    """
    try:
        model = list(_fields(path.read_bytes()))
        pieces = [_piece(value) for number, value in model if number == 1 and isinstance(value, bytes)]
        trainer, normalizer = (_merged(model, number) for number in (2, 3))
    except (ValueError, struct.error) as error:
        problem = f"not a SentencePiece model: {error}"
        raise DataError.at(path, None, problem, "fetch the file anew") from None
    faults = {
        "no pieces": not pieces,
        "another algorithm than BPE": trainer.get(3, 1) != BPE_MODEL,
        "spaces as suffixes": bool(trainer.get(24, 0)),
        "a normalization table": bool(normalizer.get(2, b"")),
        "spaces that are not escaped": not normalizer.get(5, 1),
    }
    found = [fault for fault, present in faults.items() if present]
    if found:
        remedy = "save the tokenizer once as tokenizer.json, with its own code, and put that beside it"
        raise DataError.at(path, None, f"it has {', '.join(found)}, which is not converted", remedy)
    return SentencePieceModel(
        pieces=pieces,
        byte_fallback=bool(trainer.get(35, 0)),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
    )


def bpe_tokenizer(
    model: SentencePieceModel, renamed: Mapping[int, str], prefix_space: PrefixSpace, path: Path
) -> Tokenizer:
    """The tokenizer that encodes as SentencePiece does.

    Args:
        model: pieces and settings.
        renamed: id -> token that stands in the place of the piece of that id, as InternLM2 names its unused pieces.
        prefix_space: where a space is put before the text.
        path: the file, for messages.

    Raises:
        DataError: a token would have two ids.
    """
    vocabulary: dict[str, int] = {}
    for index, piece in enumerate(model.pieces):
        text = renamed.get(index, piece.text)
        if text in vocabulary:
            problem = f"{text!r} has the ids {vocabulary[text]} and {index}"
            raise DataError.at(path, None, problem, "take the tokenizer's files as they were released")
        vocabulary[text] = index
    kept = [(index, piece) for index, piece in enumerate(model.pieces) if index not in renamed]
    unknown = [index for index, piece in enumerate(model.pieces) if piece.type == PieceType.UNKNOWN]
    tokenizer = Tokenizer(
        BPE(
            vocab=vocabulary,
            merges=_merges(
                {piece.text: piece.score for _, piece in kept if piece.type == PieceType.NORMAL}, vocabulary
            ),
            unk_token=renamed.get(unknown[0], model.pieces[unknown[0]].text) if unknown else None,
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
        )
    )
    tokenizer.normalizer = _normalizer(model, prefix_space)
    if prefix_space == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps + ([] if prefix_space == "none" else [decoders.Strip(" ", 1, 0)]))
    # Found before anything is merged. One with spaces is written with the space's sign, as the text is by then.
    defined = [piece.text for _, piece in kept if piece.type == PieceType.USER_DEFINED]
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=SPACE in text) for text in defined])
    return tokenizer


def _normalizer(model: SentencePieceModel, prefix_space: PrefixSpace) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if model.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if prefix_space == "each":
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _merges(scores: Mapping[str, float], vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """Merges in the order of their result's score: SentencePiece merges the pair whose result scores highest."""
    merges: list[tuple[str, str]] = []
    for text in sorted(scores, key=lambda piece: (-scores[piece], vocabulary[piece])):
        cuts = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        known = [(left, right) for left, right in cuts if left in scores and right in scores]
        merges += sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return merges


def _piece(message: bytes) -> Piece:
    fields = dict(_fields(message))
    text, score, kind = fields.get(1, b""), fields.get(2, bytes(4)), fields.get(3, PieceType.NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or not isinstance(kind, int):
        raise ValueError("a piece has fields of another type")
    return Piece(text.decode("utf-8"), struct.unpack("<f", score)[0], PieceType(kind))


def _merged(model: list[tuple[int, int | bytes]], number: int) -> dict[int, int | bytes]:
    parts = [value for found, value in model if found == number and isinstance(value, bytes)]
    return {key: value for part in parts for key, value in _fields(part)}


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message: varints as int, all else as bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == 2:
            length, position = _varint(message, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        if position + length > len(message):
            raise ValueError(f"it ends within a field of {length} bytes at byte {position}")
        yield number, message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 64:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"it ends within a number at byte {position}")
