"""The options that both stages share, each described once."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class FactArguments:
    """Mixed into `SFEConfig` and `EntropyDPOConfig` before TRL's configuration."""

    max_length: int | None = field(
        default=None,
        metadata={"help": "Maximum sequence length. None: truncation would cut image tokens or answers."},
    )
    train_parts: list[str] = field(
        default_factory=lambda: ["projector", "fusion", "language_model"],
        metadata={
            "help": "Parts that train, among vision_encoder, projector, fusion, input_embeddings, language_model."
        },
    )
    use_facts: bool = field(
        default=True, metadata={"help": "Fuse the rows' facts with the images (eq. 2). False gives the plain model."}
    )
    reference_in_prompt: bool = field(
        default=False, metadata={"help": "Show the reference as a first image in the prompt, as the baseline."}
    )
    reference_dropout: float = field(
        default=0.25, metadata={"help": "Share of questions that train without their reference image."}
    )
    fusion_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the fusion layers. None: the same as `learning_rate`."}
    )
