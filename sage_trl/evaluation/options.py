"""What one evaluation is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sage_trl.evaluation.predictions import MMAD_PROTOCOLS, Control, MmadProtocol, Setting
from sage_trl.judge.model_judge import JudgementOptions
from sage_trl.llm_client.service import ServiceOptions


@dataclass(frozen=True)
class EvaluationOptions:
    """What `tools/evaluate.py` takes.

    `models` are specifications, see `plan_models`. `controls` are run one after the other, None standing for the
    unchanged input. `use_facts=False` hides the facts from models that were trained with them, and goes with no other
    control. `service` is the server of models `openai:NAME`, whatever model it names itself. `sbert` is a
    sentence-transformers model. `judge` is `rule` or `openai`; the latter is asked at `judge_service`, as `judgements`
    says. `evidence` writes what the models that fuse facts look at.
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
    service: ServiceOptions | None = None
    judge: str | None = None
    judge_service: ServiceOptions | None = None
    judgements: JudgementOptions = field(default_factory=JudgementOptions)
    dry_run: bool = False
    sbert: str | None = None
    facts: Path | None = None
    use_facts: bool = True
    seed: int = 0
    evidence: bool = False
    quiet: bool = False
    mmad_protocols: tuple[MmadProtocol, ...] = MMAD_PROTOCOLS
