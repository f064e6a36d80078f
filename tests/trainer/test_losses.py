"""Equations 6 and 7 against numbers derived by hand."""

import math

import pytest
import torch

from sage_trl.trainer.losses import entropy_dpo_loss, token_kl

# One pair: log pi(a_w) = -3, log pi(a_l) = -5; reference -4 and -4.5; dH = 0.25.
PAIR = [torch.tensor([value], dtype=torch.float64) for value in (-3.0, -5.0, -4.0, -4.5, 0.25)]


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def test_dpo_with_an_offset_by_hand():
    # Log-ratio gap: (-3 + 5) - (-4 + 4.5) = 1.5; d = 0.4 * 1.5 - 2 * 0.25 = 0.1.
    loss = entropy_dpo_loss(*PAIR, beta=0.4, eta=2.0)
    assert loss.tolist() == pytest.approx([-math.log(sigmoid(0.1))], rel=1e-12)


def test_the_paper_s_objective_by_hand():
    # d = (-3 + 5) - 2 * 0.25 = 1.5, whatever beta and the reference say.
    loss = entropy_dpo_loss(*PAIR, beta=0.4, eta=2.0, objective="paper")
    assert loss.tolist() == pytest.approx([-math.log(sigmoid(1.5))], rel=1e-12)


@pytest.mark.parametrize(("objective", "scale", "logit"), [("dpo", 0.4, 0.1), ("paper", 1.0, 1.5)])
def test_gradients_by_hand(objective, scale, logit):
    # d loss / d log pi(a_w) = -scale * (1 - sigmoid(d)), and the opposite for the loser.
    chosen, rejected = (value.clone().requires_grad_() for value in PAIR[:2])
    entropy_dpo_loss(chosen, rejected, *PAIR[2:], beta=0.4, eta=2.0, objective=objective).sum().backward()
    expected = -scale * (1 - sigmoid(logit))
    assert chosen.grad.item() == pytest.approx(expected, rel=1e-12)
    assert rejected.grad.item() == pytest.approx(-expected, rel=1e-12)


def test_a_larger_gap_asks_for_a_larger_margin():
    losses = [entropy_dpo_loss(*PAIR[:4], torch.tensor([gap]), beta=0.1, eta=1.0).item() for gap in (0.0, 0.1, 0.3)]
    assert losses == sorted(losses)
    assert losses[0] < losses[2]


def test_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="objective 'ipo'"):
        entropy_dpo_loss(*PAIR, beta=0.1, eta=0.0, objective="ipo")


def test_token_kl_by_hand_and_never_negative():
    policy, reference = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-1.0, -1.0, -2.0])
    # r = 0, 1, -1.5: e^r - 1 - r.
    expected = [0.0, math.e - 2, math.exp(-1.5) + 0.5]
    assert token_kl(policy, reference).tolist() == pytest.approx(expected, abs=1e-6)
