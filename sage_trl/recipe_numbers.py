"""What the numbers of a recipe may be, where the libraries find out in the first step, or take any number."""

from __future__ import annotations

from collections.abc import Callable, Mapping

_Range = tuple[Callable[[float], bool], str]

_POSITIVE: _Range = (lambda value: value > 0, "a number above 0")
_NOT_NEGATIVE: _Range = (lambda value: value >= 0, "0 or more")
_COUNT: _Range = (lambda value: value >= 1, "1 or more")
_SHARE: _Range = (lambda value: 0 <= value < 1, "from 0 up to but not including 1")
_SEED: _Range = (lambda value: 0 <= value < 2**32, "from 0 to 4294967295")

RANGES: Mapping[str, _Range] = {
    # transformers takes every number below 1 for "by epochs": a slip of the keyboard would be a full training.
    "max_steps": (lambda value: value >= 1 or value == -1, "1 or more, or -1 to train by epochs"),
    "num_train_epochs": (lambda value: value > 0, "a number above 0, also where max_steps rules"),
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "learning_rate": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "max_grad_norm": (lambda value: value >= 0, "0 or more; 0 for no clipping"),
    "adam_beta1": _SHARE,
    "adam_beta2": _SHARE,
    "adam_epsilon": _NOT_NEGATIVE,
    "lora_r": (lambda value: value >= 1, "a rank of at least 1, or null for no LoRA"),
    "lora_alpha": _POSITIVE,
    "lora_dropout": _SHARE,
    "num_selected_patches": _COUNT,
    "fusion_num_heads": _COUNT,
    "learned_queries": _NOT_NEGATIVE,
    "seed": _SEED,
    "data_seed": _SEED,
}


def number_fault(key: str, value: object, source: str) -> str | None:
    """What is wrong with a key's value, with a remedy; None for a good one, for null and for keys without a range."""
    if key not in RANGES or not isinstance(value, int | float):
        return None
    is_good, wanted = RANGES[key]
    return None if is_good(value) else f"{source}: {key} is {value}\n  remedy: give {wanted}"
