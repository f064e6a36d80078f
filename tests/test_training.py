"""What a training says before it starts."""

from __future__ import annotations

import pytest

from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.training import warn_of_long_warmup


@pytest.mark.parametrize(("warmup", "warns"), [(7, True), (6, False)])
def test_a_warm_up_that_is_longer_than_the_run(warmup, warns, tmp_path, caplog):
    """Five batches are three steps of two, the last of one."""
    options = {"num_train_epochs": 2, "gradient_accumulation_steps": 2, "warmup_steps": warmup}
    args = SFEConfig(str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False, **options)
    warn_of_long_warmup(args, 5)
    assert ("warm-up of 7 steps is longer than the run of 6 steps" in caplog.text) == warns
