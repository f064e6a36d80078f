"""SBERT similarity of replies to the best answers (paper section 5.1), through sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sage_trl.errors import DataError

Encoder = Callable[[Sequence[str]], Any]
"""Sentences in, embeddings [sentences, width] out."""


def open_sentence_encoder(model: str) -> Encoder:
    """Load a sentence-transformers model.

    Args:
        model: directory or hub id.

    Raises:
        DataError: sentence-transformers is not installed, or there is no such model.
    """
    try:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    except ImportError:
        raise DataError(
            "--sbert: the package sentence-transformers is not installed\n"
            "  remedy: pip install 'sage-trl[sbert]', or leave --sbert out"
        ) from None
    try:
        loaded = SentenceTransformer(model)
    except (OSError, ValueError) as error:
        raise DataError(
            f"--sbert: cannot load {model!r}: {error}\n  remedy: give a model's directory, or a hub id while online"
        ) from None

    def encode(sentences: Sequence[str]) -> Any:
        return loaded.encode(list(sentences), convert_to_numpy=True, show_progress_bar=False)

    return encode


def similarities(replies: Sequence[str], best_answers: Sequence[str], encoder: Encoder) -> list[float]:
    """Cosine, -1 to 1, of each reply to its best answer (a_1); an embedding of length zero counts as 0.

    Raises:
        ValueError: nothing given, or the numbers differ.
    """
    if not replies or len(replies) != len(best_answers):
        raise ValueError(f"{len(replies)} replies for {len(best_answers)} best answers; give one each, at least one")
    ours, best = (np.asarray(encoder(texts), dtype=float) for texts in (replies, best_answers))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(best, axis=1)
    products = (ours * best).sum(axis=1)
    cosines: list[float] = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0).tolist()
    return cosines
