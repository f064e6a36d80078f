"""From a name to a writer of facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sage_trl.errors import DataError
from sage_trl.facts.template_bank import MAX_FACTS, TemplateBank
from sage_trl.facts.writer import FactWriter, FilledWriter

Fill = Literal["template"]
TEMPLATE = "template"
TEMPLATE_COUNT = 4
MODEL_COUNT = 10


@dataclass(frozen=True)
class WriterOptions:
    """What `tools/generate_facts.py` takes.

    Attributes:
        model: `template`, or directory or hub id of a model.
        count: sentences per image; None for ten by a model and four by the template bank.
        fill: who adds the sentences that a model leaves lacking.
        batch_size: images at a time.
        max_new_tokens: longest reply to one prompt.
        revision: commit of a model from the hub.
        seed: of the template bank.
    """

    model: str
    count: int | None = None
    fill: Fill | None = None
    batch_size: int = 8
    max_new_tokens: int = 160
    revision: str | None = None
    seed: int = 0


def open_fact_writer(options: WriterOptions) -> FactWriter:
    """The writer of that name.

    Raises:
        DataError: no such model, one that is not there yet, or more sentences than the template bank has.
    """
    if options.model == TEMPLATE:
        count = options.count or TEMPLATE_COUNT
        if count > MAX_FACTS:
            raise DataError(
                f"--num-facts {count} is more than the template bank has\n  remedy: use 1 to {MAX_FACTS}, or a model"
            )
        return TemplateBank(count, options.seed)
    if options.model.startswith("openai:"):
        raise DataError(f"--model {options.model}: comes in a later version\n  remedy: use a local model or a hub id")
    # Imported only now: the template bank needs no torch.
    from sage_trl.facts.backbone import open_backbone  # noqa: PLC0415

    writer = open_backbone(
        options.model,
        count=options.count or MODEL_COUNT,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        revision=options.revision,
    )
    if options.fill is None:
        return writer
    return FilledWriter(writer, TemplateBank(min(writer.count, MAX_FACTS), options.seed))
