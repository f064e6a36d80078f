"""How many tokens the trees of a dataset have, known before any image is decoded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from sage_trl.data.images import decode_image_bytes, read_size
from sage_trl.models.encoding import count_image_tokens, encode_prompt_texts
from sage_trl.trainer.collators import FactCollator
from sage_trl.trainer.group_sampler import rows_by_group
from sage_trl.trees.prefix_tree import MIN_SHARED_TOKENS, PrefixTree, build_prefix_tree


@dataclass(frozen=True, eq=False)
class TreeSize:
    """A group's rows, and the segments of the tree that they make.

    Attributes:
        group_id: the group.
        rows: indices of its rows.
        segments: tokens of each segment of the tree, those of the images in the first.
        paths: the segments that each row needs.
    """

    group_id: str
    rows: tuple[int, ...]
    segments: tuple[int, ...]
    paths: tuple[frozenset[int], ...]

    @property
    def tokens(self) -> int:
        """Tokens of the whole tree."""
        return sum(self.segments)

    def tokens_of(self, rows: Collection[int]) -> int:
        """Tokens of the tree that some of the rows make."""
        needed = frozenset[int]().union(*(self._path_of[row] for row in rows))
        return sum(self.segments[segment] for segment in needed)

    @functools.cached_property
    def _path_of(self) -> dict[int, frozenset[int]]:
        return dict(zip(self.rows, self.paths, strict=True))


def tree_sizes(dataset: Dataset, collator: FactCollator, process: int = 0, processes: int = 1) -> list[TreeSize]:
    """The tree of every group, without decoding its images.

    Args:
        dataset: rows with undecoded images.
        collator: the stage's collator; a reference that it hides in training counts as shown.
        process, processes: read every `processes`-th group alone, from this one on.
    """
    tokens_of = functools.cache(functools.partial(count_image_tokens, collator.processor))
    groups = list(rows_by_group(dataset["group_id"]).items())[process::processes]
    return [
        _tree_size(group, tuple(indices), [dataset[index] for index in indices], collator, tokens_of)
        for group, indices in groups
    ]


def _tree_size(
    group: str,
    indices: tuple[int, ...],
    rows: Sequence[dict[str, Any]],
    collator: FactCollator,
    tokens_of: Callable[[tuple[int, int]], int],
) -> TreeSize:
    shown = [*rows[0]["images"]]
    if collator.reference_in_prompt and rows[0]["reference_image"] is not None:
        shown.insert(0, rows[0]["reference_image"])
    image_tokens = [tokens_of(_image_size(image)) for image in shown]
    # As many as decide whether prompts that share little more than the images are merged.
    placeholders = [min(tokens, MIN_SHARED_TOKENS) for tokens in image_tokens]
    rows = [{**row, "facts": row.get("facts") or []} for row in rows]
    prompts = encode_prompt_texts(
        collator.processor, rows, facts=collator.facts, reference_in_prompt=collator.reference_in_prompt
    )
    distinct: dict[tuple[int, ...], int] = {}
    answers: dict[tuple[int, str, int | None], int] = {}
    leaves: list[list[int]] = []
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        repeated = _repeat_placeholders(prompt, collator.processor.image_token_id, placeholders)
        place = distinct.setdefault(tuple(repeated), len(distinct))
        # Stage 1 keeps answers apart; see `SFECollator`.
        apart = None if collator.share_answers else index
        texts = [collator.render_completion(row, column) for column in collator.answer_columns]
        leaves.append([answers.setdefault((place, text, apart), len(answers)) for text in texts])
    tokens = collator.processor.tokenizer([text for _, text, _ in answers], add_special_tokens=False)["input_ids"]
    tree = build_prefix_tree(list(distinct), [(place, ids) for (place, *_), ids in zip(answers, tokens, strict=True)])
    segments = [len(segment.tokens) for segment in tree.segments]
    segments[0] += sum(image_tokens) - sum(placeholders)
    return TreeSize(group, indices, tuple(segments), tuple(_path(tree, row_leaves) for row_leaves in leaves))


def _repeat_placeholders(prompt: Sequence[int], image_token: int, counts: Sequence[int]) -> list[int]:
    """The prompt with the placeholder of each image as often as `counts` says."""
    remaining = iter(counts)
    return [token for token in prompt for _ in range(next(remaining) if token == image_token else 1)]


def _path(tree: PrefixTree, leaves: Collection[int]) -> frozenset[int]:
    """The segments from the root to these leaves."""
    found: set[int] = set()
    for index, segment in enumerate(tree.segments):
        if segment.leaf in leaves:
            at = index
            while at >= 0:
                found.add(at)
                at = tree.segments[at].parent
    return frozenset(found)


def _image_size(image: dict[str, Any]) -> tuple[int, int]:
    if image["bytes"] is not None:
        return decode_image_bytes(image["bytes"], image["path"] or "image column").size
    return read_size(Path(image["path"]))
