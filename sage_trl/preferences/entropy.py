"""MLE score (eq. 3) and the entropy of ranked answers (eq. 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

EntropyKind = Literal["term", "surprisal"]

LOWEST_SCORE, HIGHEST_SCORE = 1.0, 5.0


def mle_score(type_score: float, location_score: float, logic_score: float) -> float:
    """Multiscale Logical Evaluation score S_i (eq. 3): the mean of the three judge scores, each 1-5.

    Raises:
        ValueError: a score is not a number from 1 to 5. An unreadable score must never become a number.
    """
    scores = {"type": type_score, "location": location_score, "logic": logic_score}
    for name, score in scores.items():
        if not (math.isfinite(score) and LOWEST_SCORE <= score <= HIGHEST_SCORE):
            raise ValueError(f"{name} score {score!r} is not a number from 1 to 5")
    return sum(scores.values()) / 3


def answer_entropies(mle_scores: Tensor | Sequence[float], entropy: EntropyKind = "term") -> Tensor:
    """Entropy of each answer among the L_N ranked answers of its question (eq. 4), in nats and float64.

    Eq. 4 sums over the answers, yet eq. 5 needs one value per answer, so `term` gives the summand of eq. 4,
    H(a_i) = -p_i log p_i with p = softmax(S). It is not monotone in p. `surprisal` gives -log p_i, whose difference
    is the difference of the scores.

    Args:
        mle_scores: `[..., L_N]` MLE scores.
        entropy: `term` or `surprisal`.

    Returns:
        `[..., L_N]` entropies.
    """
    import torch  # noqa: PLC0415  a judge scores without it, and it takes seconds to load

    scores = torch.as_tensor(mle_scores, dtype=torch.float64)
    entropies = torch.from_numpy(entropies_of(scores.detach().cpu().numpy(), entropy))
    return entropies.to(scores.device)


def entropies_of(mle_scores: ArrayLike, entropy: EntropyKind = "term") -> NDArray[Any]:
    """`answer_entropies` for arrays, without torch."""
    scores = np.asarray(mle_scores, dtype=np.float64)
    shifted = scores - scores.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    if entropy == "term":
        return np.asarray(-np.exp(log_p) * log_p)
    if entropy == "surprisal":
        return np.asarray(-log_p)
    raise ValueError(f"entropy {entropy!r} is unknown; use 'term' or 'surprisal'")
