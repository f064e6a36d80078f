"""`auto` picks FlashAttention only where it would run."""

import pytest
import torch

from sage_trl.models.attention import choose_attention


@pytest.mark.parametrize(
    ("requested", "dtype", "installed", "expected"),
    [
        ("auto", torch.float32, True, "sdpa"),
        ("auto", torch.bfloat16, True, "flash_attention_2"),
        ("auto", torch.float16, True, "flash_attention_2"),
        ("auto", torch.bfloat16, False, "sdpa"),
        ("eager", torch.bfloat16, True, "eager"),
    ],
)
def test_choice(monkeypatch, requested, dtype, installed, expected):
    monkeypatch.setattr("sage_trl.models.attention.is_flash_attn_2_available", lambda: installed)
    assert choose_attention(requested, dtype) == expected


def test_the_choice_is_said(caplog):
    with caplog.at_level("INFO", logger="sage_trl"):
        choose_attention("auto", torch.float32)
    assert "attention: sdpa" in caplog.text
