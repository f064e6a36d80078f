"""A logistic regression that tries to guess labels it should not be able to guess."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]
Labels = NDArray[np.int64]


def bags_of_words(texts: list[str], vocabulary: list[str]) -> Features:
    """`[texts, words]`, 1 where a text has a word."""
    place = {word: index for index, word in enumerate(vocabulary)}
    bags = np.zeros((len(texts), len(vocabulary)))
    for row, text in enumerate(texts):
        for word in words_of(text):
            if word in place:
                bags[row, place[word]] = 1.0
    return bags


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def guessed_share(
    known: Features, known_labels: Labels, asked: Features, asked_labels: Labels, classes: int = 2
) -> float:
    """Share of `asked_labels` guessed right after fitting on the known ones (softmax regression, gradient descent)."""
    mean, spread = known.mean(0), known.std(0) + 1e-6
    known, asked = (known - mean) / spread, (asked - mean) / spread
    weights, bias = np.zeros((known.shape[1], classes)), np.zeros(classes)
    targets = np.eye(classes)[known_labels]
    rate = 1.0 / max(1.0, np.sqrt(known.shape[1]))
    for _ in range(200):
        scores = known @ weights + bias
        likely = np.exp(scores - scores.max(1, keepdims=True))
        gradient = (likely / likely.sum(1, keepdims=True) - targets) / len(known)
        weights -= rate * (known.T @ gradient + 1e-3 * weights)
        bias -= rate * gradient.sum(0)
    return float(((asked @ weights + bias).argmax(1) == asked_labels).mean())
