"""What one evaluation is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sage_trl.evaluation.predictions import MMAD_PROTOCOLS, Control, MmadProtocol, Setting


@dataclass(frozen=True)
class EvaluationOptions:
    """What `tools/evaluate.py` takes.

    `models` are specifications, see `plan_models`. `controls` are run one after the other, None standing for the
    unchanged input. `use_facts=False` hides the facts from models that were trained with them, `facts_as_text` puts
    them into the prompt of every model of ours, however it was trained; neither goes with a control. `sbert` is a
    sentence-transformers model.
    """

    models: tuple[str, ...]
    dataset: Path
    settings: tuple[Setting, ...]
    output: Path
    splits: tuple[str, ...] = ("test",)
    controls: tuple[Control | None, ...] = (None,)
    limit: int | None = None
    batch_size: int = 64
    max_new_tokens: int = 48
    judge: str | None = None
    sbert: str | None = None
    facts: Path | None = None
    use_facts: bool = True
    facts_as_text: bool = False
    seed: int = 0
    quiet: bool = False
    mmad_protocols: tuple[MmadProtocol, ...] = MMAD_PROTOCOLS
