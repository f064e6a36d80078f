"""What a fact-enhanced model looks at: the patches its facts are compared with, and how much each fact attends to each.

Everything comes from the model's own code: `fusion_inputs` and `FusionAttention.attention` are what its forward runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sage_trl.errors import DataError
from sage_trl.evaluation.evidence_rows import (
    EVIDENCE_FILE,
    Evidence,
    EvidenceRow,
    FactEvidence,
    PatchEvidence,
    strongest,
)
from sage_trl.evaluation.questions import EvaluationQuestion, open_images
from sage_trl.models.adapters import unwrapped
from sage_trl.models.encoding import encode_prompts, move_to_model
from sage_trl.models.fusion_attention import FusionInputs
from sage_trl.records import iterate_records
from sage_trl.storage import JsonlAppender

# Of a fraction: a millionth of an image is far below a pixel.
DIGITS = 6
GROUPS_AT_ONCE = 8


class EvidenceFinder:
    """Finds the evidence of rows, without a pass of the language model.

    Args:
        model: a fact-enhanced model, on the device where it shall run.
        processor: its processor.
        reference_in_prompt: whether the model sees the reference as an image of the prompt as well.
    """

    def __init__(self, model: Any, processor: Any, reference_in_prompt: bool = False) -> None:
        self._model = model.eval()
        self._inner = unwrapped(model).model
        self._processor = processor
        self._reference_in_prompt = reference_in_prompt

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[Evidence]:
        """The evidence of rows with decoded images; see `encode_prompts` for their fields.

        Raises:
            DataError: a row without facts, of which nothing is compared with its patches.
        """
        for row in rows:
            if not row["facts"]:
                problem = f"group {row.get('group_id')}: no facts, so the model compares no patches"
                raise DataError(f"{problem}\n  remedy: give facts, or leave the row out")
        batch = encode_prompts(self._processor, rows, reference_in_prompt=self._reference_in_prompt)
        inputs = self._inner.fusion_inputs(**move_to_model(batch, self._model))
        attention = self._inner.fusion.attention(inputs.facts, inputs.patches, inputs.image_rms)
        attention = attention.float().mean(dim=1)
        return [self._of_row(row, number, inputs, attention[number]) for number, row in enumerate(rows)]

    def _of_row(self, row: Mapping[str, Any], number: int, inputs: FusionInputs, attention: Tensor) -> Evidence:
        patches = inputs.patches
        has_reference = row["reference_image"] is not None
        places = patches.mask[number].nonzero().flatten()
        if not has_reference:
            places = places[patches.indices[number, places].argsort()]
        indices, similarity = patches.indices[number, places].cpu(), patches.similarity[number, places].tolist()
        boxes = self._boxes(row, int(inputs.num_patches[number]))[indices].tolist()
        return Evidence(
            selected=has_reference,
            attended=len(boxes),
            patches=tuple(
                PatchEvidence(
                    box=tuple(round(side, DIGITS) for side in box),
                    similarity=round(value, DIGITS) if has_reference else None,
                )
                for box, value in zip(boxes, similarity, strict=True)
            ),
            facts=tuple(
                FactEvidence(text=text, attention=tuple(round(min(weight, 1.0), DIGITS) for weight in weights))
                for text, weights in zip(row["facts"], attention[: len(row["facts"]), places].tolist(), strict=True)
            ),
        )

    def _boxes(self, row: Mapping[str, Any], num_patches: int) -> Tensor:
        """Boxes of all comparable patches of a row's test image, `[num_patches, 4]`."""
        is_alone = not self._reference_in_prompt or row["reference_image"] is None
        boxes: Tensor = self._processor.patch_boxes(row["images"][-1].size, num_patches, is_alone)
        if len(boxes) != num_patches:
            raise ValueError(f"the model compares {num_patches} patches of an image that has {len(boxes)}")
        return boxes


def record_evidence(
    find: EvidenceFinder,
    asked: Sequence[EvaluationQuestion],
    condition: Mapping[str, Any],
    output: Path,
    on_progress: Callable[[int, int], None],
) -> None:
    """Add the evidence of each group that has facts to `evidence.jsonl`, if it is not there yet; see `strongest`.

    Evidence that is there, but not in the last line about its group, is written once more.

    Args:
        find: of the model that was asked.
        asked: the questions, whole groups of them; those of one group show the same images and facts.
        condition: `model`, `setting`, `split` and `control` of the rows.
        output: directory of the file.
        on_progress: called with the groups done and those to do.

    Raises:
        DataError: an earlier file is damaged other than by a cut-off last line.
        LockedError: another process writes to it.
    """
    path = output / EVIDENCE_FILE
    groups: dict[str, EvaluationQuestion] = {}
    for item in asked:
        if item.row["facts"]:
            groups.setdefault(item.inspection.id, item)
    with JsonlAppender(path) as appender:
        known: dict[str, EvidenceRow] = {}
        last: dict[str, EvidenceRow] = {}
        for _, row in iterate_records(EvidenceRow, path):
            known[row.key] = row
            if all(getattr(row, name) == value for name, value in condition.items()):
                last[row.group_id] = row
        current = [known[item.key] for item in groups.values() if item.key in known]
        moved = [row for row in current if last.get(row.group_id) != row]
        if moved:
            appender.append(row.model_dump(mode="json") for row in moved)
        missing = [item for item in groups.values() if item.key not in known]
        for start in range(0, len(missing), GROUPS_AT_ONCE):
            part = missing[start : start + GROUPS_AT_ONCE]
            found = find(open_images([item.row for item in part]))
            rows = [
                EvidenceRow(key=item.key, group_id=item.inspection.id, **condition, **dict(strongest(one)))
                for item, one in zip(part, found, strict=True)
            ]
            appender.append(row.model_dump(mode="json") for row in rows)
            on_progress(start + len(part), len(missing))
