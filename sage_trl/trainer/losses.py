"""The E-DPO objective (eq. 6-7) as pure functions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Objective = Literal["dpo", "paper"]


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
) -> Tensor:
    """-log sigmoid(d) per pair (eq. 7).

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
    return -functional.logsigmoid(preference - eta * delta_entropy.to(preference.dtype))


def token_kl(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """k3 estimate of KL(pi || pi_ref) per token: exp(r) - 1 - r with r = log pi_ref - log pi; never negative.

    Args:
        log_probs, ref_log_probs: log-probabilities of the same tokens, of any equal shape.
    """
    log_ratio = ref_log_probs - log_probs
    return torch.expm1(log_ratio) - log_ratio
