"""The options that both stages share, each described once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sage_trl.models.parts import check_train_parts
from sage_trl.models.prompt import FactUse

TreeAttention = Literal["auto", "dense", "split"]


@dataclass
class FactArguments:
    """Mixed into `SFEConfig` and `EntropyDPOConfig` before TRL's configuration."""

    max_length: int | None = field(
        default=None,
        metadata={"help": "None only: truncation would cut image tokens or answers."},
    )
    train_parts: list[str] = field(
        default_factory=lambda: ["projector", "fusion", "language_model"],
        metadata={
            "help": "Parts that train, among vision_encoder, projector, fusion, input_embeddings, language_model."
        },
    )
    facts: FactUse = field(
        default="fusion",
        metadata={"help": "The rows' facts: `fusion` (eq. 2), `hard` (as text in the prompt, Fact[Hard]) or `none`."},
    )
    reference_in_prompt: bool = field(
        default=False, metadata={"help": "Show the reference as a first image in the prompt, as the baseline."}
    )
    reference_dropout: float = field(
        default=0.25,
        metadata={"help": "Share of questions, with `shared_prefix` of groups, that train without their reference."},
    )
    fusion_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the fusion layers. None: the same as `learning_rate`."}
    )

    shared_prefix: bool = field(
        default=True,
        metadata={"help": "Compute what rows share, images and prompts, once (prefix trees). False: row by row."},
    )
    tree_attention: TreeAttention = field(
        default="auto",
        metadata={"help": "`split`: branch by branch; `dense`: one mask; `auto`: dense for eager, else split."},
    )

    max_tokens_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "With `shared_prefix`: as many whole groups in a batch as have at most so many tokens, padding "
            "counted, in place of `per_device_train_batch_size` rows."
        },
    )

    def check_fact_arguments(self) -> None:
        """Check the options of this class.

        Raises:
            ValueError: names the option, its value and what is allowed.
        """
        check_train_parts(self.train_parts)
        if self.facts not in get_args(FactUse):
            raise ValueError(f"facts is {self.facts!r}; it is one of {', '.join(get_args(FactUse))}")
        if not 0 <= self.reference_dropout <= 1:
            raise ValueError(f"reference_dropout is {self.reference_dropout}; it is a share from 0 to 1")
        if self.max_tokens_per_batch is not None:
            problem = f"max_tokens_per_batch is {self.max_tokens_per_batch}"
            if self.max_tokens_per_batch <= 0:
                raise ValueError(f"{problem}; it is a positive number of tokens")
            if not self.shared_prefix:
                raise ValueError(f"{problem}, which needs shared_prefix: true")


# What our collators do not read: left at these values, or refused.
COLLATOR_OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "max_length": (None,),
    "padding_free": (False,),
    "pad_to_multiple_of": (None,),
}


def refuse_options(config: Any, allowed: Mapping[str, tuple[Any, ...]], reason: str) -> None:
    """Refuse options that would have no effect, rather than accept and ignore them.

    Args:
        config: a trainer's configuration.
        allowed: option -> the values that may stand.
        reason: why no other value can.

    Raises:
        ValueError: names every such option and its value.
    """
    named = [
        f"{name}: {getattr(config, name)!r}" for name, values in allowed.items() if getattr(config, name) not in values
    ]
    if named:
        raise ValueError(f"{', '.join(named)}: {reason}; leave out what is named")
