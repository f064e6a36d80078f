"""Collators: rows of AD-PL to batches for the trainers, with test/reference pairs and the facts to fuse."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from trl.trainer.utils import flush_left

from sage_trl.data.images import decode_image_bytes, open_image
from sage_trl.errors import DataError
from sage_trl.models.encoding import encode_images, encode_prompts
from sage_trl.models.fact_enhanced import REFERENCE_PREFIX
from sage_trl.models.prompt import FactUse, as_parts
from sage_trl.models.same_images import ImageKeys, same_images
from sage_trl.trainer.reference_cache import answer_keys, prompt_identity
from sage_trl.trainer.tree_batches import IGNORED, encode_trees

Row = Mapping[str, Any]
PAIR_KINDS = ("min", "max")
# A row with this key keeps a process busy that has none of its own in a step; its batch counts nowhere.
FILLER = "is_filler"
ROW_IDS = "row_ids"
"""Batch key of the rows' names, for the error of a batch; no tensor, and taken out before the model sees the batch."""


@dataclass
class FactCollator:
    """What both stages share: images, facts, reference dropout and the prompt.

    Args:
        processor: a Sage processor.
        facts: what becomes of the rows' facts.
        reference_in_prompt: show the reference as a first image.
        reference_dropout: share of questions whose reference is hidden, because otherwise fusion meets at zero-shot
            inference what it never saw; with `shared_prefix` whole groups are drawn, so that a group stays one tree.
            Which ones depends on `seed` and ids alone, so a resumed run hides the same references.
        seed: seed of the dropout.
        shared_prefix: pack the rows as prefix trees, which compute what they share once.
        vision_once: let the vision tower see an image that several rows show once; trees always do.
        always_reference: give the vision tower something in the place of a reference where no row has one. Where
            weights are sharded all processes must call it equally often.
        with_row_ids: add `row_ids`, one `group_id/question_id` per row.
    """

    # The columns with answers, and whether one that stands in several rows is one leaf.
    answer_columns: ClassVar[tuple[str, ...]]
    share_answers: ClassVar[bool]
    processor: Any
    facts: FactUse = "fusion"
    reference_in_prompt: bool = False
    reference_dropout: float = 0.0
    seed: int = 0
    shared_prefix: bool = False
    vision_once: bool = False
    always_reference: bool = False
    with_row_ids: bool = False

    def name_rows(self, rows: Sequence[Row], batch: dict[str, Any]) -> dict[str, Any]:
        """The batch, with `row_ids` where they are asked for."""
        if not self.with_row_ids:
            return batch
        return {**batch, ROW_IDS: [f"{row.get('group_id')}/{row.get('question_id')}" for row in rows]}

    def prepare(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Rows with decoded images; a file that several rows share is decoded once.

        Raises:
            DataError: a row without facts although they are to be used, or an unreadable image.
        """
        if self.facts != "none":
            for row in rows:
                _check_facts(row)
        decoded: dict[str | bytes, Image.Image] = {}
        return [
            {
                **row,
                "images": [decode_image(image, decoded) for image in row["images"]],
                "reference_image": None if self.hides_reference(row) else decode_image(row["reference_image"], decoded),
                "facts": row.get("facts") or [],
            }
            for row in rows
        ]

    def hides_reference(self, row: Row) -> bool:
        """Whether this row trains without a reference."""
        if row.get("reference_image") is None:
            return True
        if not self.reference_dropout:
            return False
        drawn = row["group_id"] if self.shared_prefix else f"{row['group_id']}\0{row['question_id']}"
        name = f"{self.seed}\0{drawn}"
        draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        return draw < self.reference_dropout

    def encode(self, rows: Sequence[Row], completions: Sequence[str], key_of: ImageKeys) -> dict[str, Tensor]:
        """Prompts and completions side by side, flushed left, with `completion_mask`."""
        batch = encode_prompts(self.processor, rows, facts=self.facts, reference_in_prompt=self.reference_in_prompt)
        if self.vision_once and not self.reference_in_prompt:
            batch |= same_images(self.processor, batch, rows, key_of)
        batch |= self._stand_in(batch, rows)
        tokens = self.processor.tokenizer(
            list(completions), padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt"
        )
        prompt_mask, completion_mask = batch["attention_mask"], tokens["attention_mask"]
        joined = {
            "input_ids": torch.cat([batch["input_ids"], tokens["input_ids"]], dim=1),
            "completion_mask": torch.cat([torch.zeros_like(prompt_mask), completion_mask], dim=1),
        }
        if "mm_token_type_ids" in batch:
            token_types = batch["mm_token_type_ids"]
            joined["mm_token_type_ids"] = torch.cat([token_types, torch.zeros_like(tokens["input_ids"])], dim=1)
        mask, *flushed = flush_left(torch.cat([prompt_mask, completion_mask], dim=1), *joined.values())
        batch |= {"attention_mask": mask, **dict(zip(joined, flushed, strict=True))}
        return batch

    def encode_trees(
        self, rows: Sequence[Row], answers: Sequence[Sequence[str]], key_of: ImageKeys
    ) -> tuple[dict[str, Tensor], list[list[int]]]:
        """Rows and their rendered answers as trees; see `tree_batches.encode_trees`."""
        batch, leaves = encode_trees(
            self.processor,
            rows,
            answers,
            facts=self.facts,
            reference_in_prompt=self.reference_in_prompt,
            share_answers=self.share_answers,
            key_of=key_of,
        )
        return batch | self._stand_in(batch, rows), leaves

    def _stand_in(self, batch: Mapping[str, Tensor], rows: Sequence[Row]) -> dict[str, Tensor]:
        mask = batch.get(f"{REFERENCE_PREFIX}mask")
        if not self.always_reference or mask is None or bool(mask.any()):
            return {}
        images = encode_images(self.processor, [rows[0]["images"][-1]])
        return {f"{REFERENCE_PREFIX}{name}": value for name, value in images.items()}

    def render_completion(self, row: Row, column: str) -> str:
        """The text that the chat template writes for an answer, ending with a token that ends generation."""
        prompt, answer = as_parts(row["prompt"]), as_parts(row[column])
        before = self.processor.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        whole: str = self.processor.apply_chat_template([*prompt, *answer], tokenize=False)
        # Some templates begin an answer with other white space than they ask for one with (LLaVA-OneVision).
        start = len(before) if whole.startswith(before) else whole.rindex(answer[0]["content"][0]["text"])
        text = whole[start:]
        tokenizer = self.processor.tokenizer
        # Some templates, such as LLaVA-1.6's, write nothing after an answer: the model would never learn to stop.
        ends = any(token in text for token in tokenizer.all_special_tokens)
        return text if ends else text + tokenizer.eos_token


@dataclass
class SFECollator(FactCollator):
    """Rows with `prompt` and `completion` to a batch with `labels` on the completion only (eq. 8)."""

    answer_columns = ("completion",)
    share_answers = False

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Collate `B` rows."""
        prepared = self.prepare(rows)
        completions = [self.render_completion(row, "completion") for row in prepared]
        if self.shared_prefix:
            batch, _ = self.encode_trees(prepared, [[text] for text in completions], ImageKeys())
            del batch["leaf_ids"]
            if FILLER in rows[0]:
                batch["shift_labels"].fill_(IGNORED)
            # The `Trainer` counts the tokens of `labels`.
            return self.name_rows(rows, {**batch, "labels": batch["shift_labels"]})
        batch = self.encode(prepared, completions, ImageKeys())
        batch["labels"] = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, IGNORED)
        return self.name_rows(rows, batch)


@dataclass
class EntropyDPOCollator(FactCollator):
    """Rows with `prompt`, `chosen`, `rejected`, `delta_entropy` and `pair_kind` to a batch of 2 x pairs sequences.

    As in TRL the first half of the batch holds the chosen answers. `delta_entropy` is `[pairs]`, `pair_kind` holds
    indices into `PAIR_KINDS`. With `shared_prefix` the batch is one of trees, and `pair_leaves` `[pairs, 2]` tells the
    leaves of chosen and rejected.

    Args:
        with_answer_keys: add `answer_keys` `[answers, 4]`, under which `ReferenceCache` finds each answer.
    """

    answer_columns = ("chosen", "rejected")
    share_answers = True
    with_answer_keys: bool = False

    @cached_property
    def _prompt_identity(self) -> str:
        return prompt_identity(self.processor, facts=self.facts, reference_in_prompt=self.reference_in_prompt)

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Collate `pairs` rows."""
        prepared = self.prepare(rows)
        chosen, rejected = ([self.render_completion(row, name) for row in prepared] for name in ("chosen", "rejected"))
        pairs = [list(pair) for pair in zip(chosen, rejected, strict=True)]
        key_of = ImageKeys()
        if self.shared_prefix:
            batch, leaves = self.encode_trees(prepared, pairs, key_of)
            batch["pair_leaves"] = torch.tensor(leaves)
        else:
            batch = self.encode([*prepared, *prepared], [*chosen, *rejected], key_of)
            leaves = [[index, len(rows) + index] for index in range(len(rows))]
        if self.with_answer_keys:
            owners: dict[int, tuple[Row, str]] = {}
            for row, pair, of_row in zip(prepared, pairs, leaves, strict=True):
                owners |= {leaf: (row, text) for leaf, text in zip(of_row, pair, strict=True)}
            rows_of_leaves, texts = zip(*(owners[leaf] for leaf in sorted(owners)), strict=True)
            batch["answer_keys"] = answer_keys(self._prompt_identity, rows_of_leaves, texts, key_of)
        batch["delta_entropy"] = torch.tensor([row["delta_entropy"] for row in rows], dtype=torch.float32)
        batch["pair_kind"] = torch.tensor([PAIR_KINDS.index(row["pair_kind"]) for row in rows])
        if FILLER in rows[0]:
            batch[FILLER] = torch.tensor(True)
        return self.name_rows(rows, batch)


def _check_facts(row: Row) -> None:
    if not row.get("facts"):
        problem = f"row {row['group_id']}/{row['question_id']} has no facts, and they are to be used"
        remedy = "run tools/generate_facts.py and give load_ad_pl its file, or set facts to none"
        raise DataError(f"{problem}\n  remedy: {remedy}")


def decode_image(image: Any, decoded: dict[str | bytes, Image.Image]) -> Image.Image:
    """Decode an image column's value: a PIL image, a path, or the `{"path", "bytes"}` of an undecoded `Image` feature.

    Args:
        image: the value.
        decoded: images by path or bytes that were decoded before; new ones are added.
    """
    if isinstance(image, Image.Image):
        return image
    path = image["path"] if isinstance(image, Mapping) else str(image)
    if isinstance(image, Mapping) and image["bytes"] is not None:
        if image["bytes"] not in decoded:
            decoded[image["bytes"]] = decode_image_bytes(image["bytes"], path or "image column")
        return decoded[image["bytes"]]
    if path not in decoded:
        decoded[path] = open_image(Path(path))
    return decoded[path]
