"""A checkpoint's files without a model, sealed as training does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sage_trl.trainer.checkpoint_files import seal


def sealed_checkpoint(
    output_dir: Path, step: int, *, weights_only: bool = False, run: dict[str, Any] | None = None
) -> Path:
    """`checkpoint-STEP` with weights that tell the step, and an optimizer's folder as FSDP has one."""
    directory = output_dir / f"checkpoint-{step}"
    (directory / "optimizer_0").mkdir(parents=True)
    (directory / "model.safetensors").write_text(f"weights of step {step}")
    (directory / "optimizer_0" / "__0_0.distcp").write_text(f"state of step {step}")
    (directory / "trainer_state.json").write_text("{}")
    seal(directory, step=step, weights_only=weights_only, run=run or {})
    return directory
