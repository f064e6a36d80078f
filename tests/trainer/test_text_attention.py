"""A language model that trees do not fit is refused."""

from contextlib import nullcontext

import pytest
from datasets import Dataset

from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.trainer.sfe_trainer import SFETrainer
from tests.trainer.test_shared_prefix import COMMON, group, load


@pytest.mark.parametrize(
    ("window", "layer_types", "is_refused"),
    [
        (64, ["full_attention", "sliding_attention"], True),
        (64, ["full_attention", "full_attention"], False),
        (64, None, True),
        (None, None, False),
    ],
)
@pytest.mark.parametrize("shared_prefix", [True, False])
def test_a_language_model_with_a_window_is_refused(window, layer_types, is_refused, shared_prefix, tmp_path):
    policy, _, processor = load("internvl", tmp_path)
    policy.config.text_config.sliding_window, policy.config.text_config.layer_types = window, layer_types
    rows = [{**one, "completion": one["chosen"]} for one in group(0, 2)]
    args = SFEConfig(str(tmp_path), shared_prefix=shared_prefix, **COMMON)
    with pytest.raises(ValueError, match="window of 64 tokens") if is_refused and shared_prefix else nullcontext():
        SFETrainer(policy, args, train_dataset=Dataset.from_list(rows), processing_class=processor)
