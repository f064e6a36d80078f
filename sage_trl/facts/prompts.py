"""What a model is asked about the kind of part that a picture shows."""

from __future__ import annotations

import math

# The second question is the paper's; of the others it gives the subject only.
PROMPTS = (
    "What object does this picture show, and what should a good one look like?",
    "What kind of anomalies does this type of object tend to exhibit?",
    "What causes anomalies of this type of object, and what are their consequences when it is used?",
)
INSTRUCTION = "Write {count} short, complete sentences, each of which says one thing. Write nothing else."


def fact_prompts(count: int) -> list[str]:
    """The prompts that together ask for `count` sentences on a picture."""
    share = math.ceil(count / len(PROMPTS)) + 1  # one to spare, for those that repeat
    return [f"{prompt}\n{INSTRUCTION.format(count=share)}" for prompt in PROMPTS]
