"""What the attention of a language model must be for batches of trees."""

from __future__ import annotations

from typing import Any

from sage_trl.models.adapters import unwrapped
from sage_trl.trainer.collators import FactCollator
from sage_trl.trees.tree_attention import SPLIT_ATTENTION


def prepare_tree_attention(args: Any, collator: Any, *models: Any) -> None:
    """Set the text attention of models to what `tree_attention` asks for, where the batches are trees.

    Args:
        args: a stage's configuration.
        collator: makes the batches.
        models: before anything but PEFT wraps them.

    Raises:
        ValueError: a language model whose tokens do not see all that stands before them.
    """
    if not (isinstance(collator, FactCollator) and collator.shared_prefix):
        return
    for model in models:
        plain = unwrapped(model)
        text = plain.config.get_text_config()
        refuse_sliding_window(text)
        is_eager = text._attn_implementation == "eager"
        if args.tree_attention == "split" or (args.tree_attention == "auto" and not is_eager):
            plain.set_attn_implementation({"text_config": SPLIT_ATTENTION})
        elif not is_eager:
            plain.set_attn_implementation({"text_config": "sdpa"})


def refuse_sliding_window(text_config: Any) -> None:
    """Refuse a language model that attends within a window: on a tree it would see past it.

    Raises:
        ValueError: names the window.
    """
    window = getattr(text_config, "sliding_window", None)
    # Where a configuration tells its layers apart, those without a window may be all.
    layers = getattr(text_config, "layer_types", None)
    if window is not None and (layers is None or "sliding_attention" in layers):
        raise ValueError(
            f"shared_prefix: this language model attends within a window of {window} tokens (sliding_window), which "
            "trees do not keep to; set shared_prefix to false"
        )
