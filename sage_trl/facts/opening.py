"""From a name to a writer of facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sage_trl.errors import DataError
from sage_trl.facts.template_bank import MAX_FACTS, TemplateBank
from sage_trl.facts.writer import FactWriter, FilledWriter

if TYPE_CHECKING:
    from sage_trl.llm_client.service import ServiceOptions

Fill = Literal["template"]
TEMPLATE = "template"
TEMPLATE_COUNT = 4
MODEL_COUNT = 10
BACKBONE_TOKENS, SERVED_TOKENS = 160, 500


@dataclass(frozen=True)
class WriterOptions:
    """What `tools/generate_facts.py` takes.

    Attributes:
        model: `template`, `openai:NAME`, or directory or hub id of a model.
        count: sentences per image; None for ten by a model and four by the template bank.
        fill: who adds the sentences that a model leaves lacking.
        batch_size: images at a time.
        max_new_tokens: longest reply to one prompt; None for 160, or 500 by a served model, whose reply is JSON.
        revision: commit of a model from the hub.
        seed: of the template bank.
        service: server and limits of `openai:NAME`.
    """

    model: str
    count: int | None = None
    fill: Fill | None = None
    batch_size: int = 8
    max_new_tokens: int | None = None
    revision: str | None = None
    seed: int = 0
    service: ServiceOptions | None = None


def open_fact_writer(options: WriterOptions) -> FactWriter:
    """The writer of that name.

    Raises:
        DataError: no such model, or more sentences than the template bank has.
    """
    if options.model == TEMPLATE:
        count = options.count or TEMPLATE_COUNT
        if count > MAX_FACTS:
            raise DataError(
                f"--num-facts {count} is more than the template bank has\n  remedy: use 1 to {MAX_FACTS}, or a model"
            )
        return TemplateBank(count, options.seed)
    writer = _open_model(options, options.count or MODEL_COUNT)
    if options.fill is None:
        return writer
    return FilledWriter(writer, TemplateBank(min(writer.count, MAX_FACTS), options.seed))


def _open_model(options: WriterOptions, count: int) -> FactWriter:
    # Imported only now: the template bank needs neither torch nor a client.
    if options.service is not None:
        from sage_trl.facts.language_model import LanguageModelWriter  # noqa: PLC0415

        tokens = options.max_new_tokens or SERVED_TOKENS
        return LanguageModelWriter(options.service, count=count, batch_size=options.batch_size, max_tokens=tokens)
    from sage_trl.facts.backbone import open_backbone  # noqa: PLC0415

    return open_backbone(
        options.model,
        count=count,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens or BACKBONE_TOKENS,
        revision=options.revision,
    )
