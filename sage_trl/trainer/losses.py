"""The E-DPO objective (eq. 6-7) as pure functions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Objective = Literal["dpo", "paper"]
# TRL's losses that look at the reward margin of a pair alone, so that an offset has a meaning.
MARGIN_LOSSES = ("sigmoid", "hinge", "ipo", "robust", "sigmoid_norm")
# Of these, the ones whose log-ratios are means per token.
LENGTH_NORMALISED = frozenset({"ipo", "sigmoid_norm"})


def entropy_dpo_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    delta_entropy: Tensor,
    *,
    beta: float,
    eta: float,
    objective: Objective = "dpo",
    loss_type: str = "sigmoid",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log sigmoid(d) per pair (eq. 7), or another loss of TRL's on d.

    `dpo`: d = beta * (log-ratio difference to the reference) - eta * dH, DPO with an offset per pair.
    `paper`: d = log pi(a_w|x) - log pi(a_l|x) - eta * dH, eq. 6 literally; the reference enters through the KL term
    alone, see `token_kl`.

    Args:
        chosen_logps, rejected_logps: `[pairs]` summed log-probabilities under the policy.
        ref_chosen_logps, ref_rejected_logps: `[pairs]` the same under the frozen reference; unused by `paper`.
        delta_entropy: `[pairs]` dH in nats (eq. 6), not negative.
        beta: inverse temperature of DPO; unused by `paper`.
        eta: scale of the entropy bias.
        objective: `dpo` or `paper`.
        loss_type: one of `MARGIN_LOSSES`; for those in `LENGTH_NORMALISED` all log-probabilities are means per token.
        label_smoothing: share of pairs taken to be the wrong way round, for `robust`.

    Returns:
        `[pairs]` losses.
    """
    log_ratio = chosen_logps - rejected_logps
    if objective == "dpo":
        preference = beta * (log_ratio - (ref_chosen_logps - ref_rejected_logps))
    elif objective == "paper":
        preference = log_ratio
    else:
        raise ValueError(f"objective {objective!r} is unknown; use 'dpo' or 'paper'")
    margin = preference - eta * delta_entropy.to(preference.dtype)
    return margin_loss(margin, loss_type, beta=beta, label_smoothing=label_smoothing)


def margin_loss(margin: Tensor, loss_type: str, *, beta: float, label_smoothing: float) -> Tensor:
    """TRL's loss of that name, `[pairs]` reward margins -> `[pairs]`.

    Raises:
        ValueError: a loss that does not look at the margin alone.
    """
    if loss_type in ("sigmoid", "sigmoid_norm"):
        return -functional.logsigmoid(margin)
    if loss_type == "hinge":
        return torch.relu(1 - margin)
    if loss_type == "ipo":
        return ((margin - 0.5) / beta) ** 2
    if loss_type == "robust":
        right, flipped = functional.logsigmoid(margin), functional.logsigmoid(-margin)
        return (label_smoothing * flipped - (1 - label_smoothing) * right) / (1 - 2 * label_smoothing)
    raise ValueError(f"loss_type {loss_type!r} has no offset per pair; use one of {', '.join(MARGIN_LOSSES)}")


def token_kl(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """k3 estimate of KL(pi || pi_ref) per token: exp(r) - 1 - r with r = log pi_ref - log pi; never negative.

    Args:
        log_probs, ref_log_probs: log-probabilities of the same tokens, of any equal shape.
    """
    log_ratio = ref_log_probs - log_probs
    return torch.expm1(log_ratio) - log_ratio
