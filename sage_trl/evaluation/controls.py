"""Controls: evaluation rows whose image, reference or facts tell nothing, to see whether the model uses them at all.

Each control takes the rows of one split and returns changed copies. A row holds `images` [test image],
`reference_image` or None (paths or PIL images), `facts`, `question` and `group_id`; the rows of one group share the
first three.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sage_trl.data.images import open_image
from sage_trl.errors import DataError
from sage_trl.evaluation.predictions import Control

Row = dict[str, Any]
_GREY = (128, 128, 128)


def apply_control(rows: Sequence[Row], control: Control | None, seed: int) -> list[Row]:
    """Return the rows under a control; None, and `hard_facts`, which is about the prompt, return them as they are.

    Raises:
        DataError: the split is too small or too uniform for the control to change anything.
    """
    if control in (None, "hard_facts"):
        return list(rows)
    if control == "no_facts":
        return [{**row, "facts": []} for row in rows]
    if control == "blank_image":
        return blank_image(rows)
    return _SHUFFLES[control](rows, seed)


def blank_image(rows: Sequence[Row]) -> list[Row]:
    """Replace test and reference image by a uniform grey image of the same size."""
    grey_images: dict[tuple[int, int], Image.Image] = {}
    grey_of_path: dict[Path, Image.Image] = {}

    def grey(image: Path | Image.Image | None) -> Image.Image | None:
        if image is None:
            return None
        if isinstance(image, Path):
            if image not in grey_of_path:
                grey_of_path[image] = _grey_image(open_image(image).size, grey_images)
            return grey_of_path[image]
        return _grey_image(image.size, grey_images)

    return [
        {**row, "images": [grey(image) for image in row["images"]], "reference_image": grey(row["reference_image"])}
        for row in rows
    ]


def shuffled_reference(rows: Sequence[Row], seed: int) -> list[Row]:
    """Give each group the reference of another group; groups without one stay without."""
    references = {row["group_id"]: row["reference_image"] for row in rows if row["reference_image"] is not None}
    if not references:
        return list(rows)
    donors = draw_donors({group: _identity(image) for group, image in references.items()}, seed, "reference image")
    return [
        {**row, "reference_image": references[donors[row["group_id"]]]} if row["group_id"] in donors else row
        for row in rows
    ]


def shuffled_facts(rows: Sequence[Row], seed: int) -> list[Row]:
    """Give each group the facts of another group; groups without facts stay without."""
    facts = {row["group_id"]: row["facts"] for row in rows if row["facts"]}
    if not facts:
        return list(rows)
    donors = draw_donors({group: tuple(sentences) for group, sentences in facts.items()}, seed, "facts")
    return [{**row, "facts": facts[donors[row["group_id"]]]} if row["group_id"] in donors else row for row in rows]


def draw_donors(contents: Mapping[str, Hashable], seed: int, what: str) -> dict[str, str]:
    """Assign to each group another group whose content differs from its own.

    A derangement (every group gives once) wherever one exists; if more than half of the groups share one content, the
    donors are drawn with replacement.

    Raises:
        DataError: all groups have the same content, so that nothing can be shuffled.
    """
    counts = Counter(contents.values())
    if len(counts) < 2:
        raise DataError(
            f"control shuffled: all {len(contents)} groups have the same {what}, so shuffling changes nothing\n"
            "  remedy: evaluate more groups (--limit, --split), or leave this control out"
        )
    random_state = random.Random(seed)
    order = sorted(contents)
    random_state.shuffle(order)
    block = {content: place for place, content in enumerate(dict.fromkeys(contents[group] for group in order))}
    order.sort(key=lambda group: block[contents[group]])
    step = max(counts.values())
    if 2 * step <= len(order):
        # Equal contents stand side by side, so a rotation by the longest such block leaves no group with its own.
        return {group: order[(place + step) % len(order)] for place, group in enumerate(order)}
    others = {content: [group for group in order if contents[group] != content] for content in counts}
    return {group: random_state.choice(others[contents[group]]) for group in order}


def _grey_image(size: tuple[int, int], known: dict[tuple[int, int], Image.Image]) -> Image.Image:
    if size not in known:
        known[size] = Image.new("RGB", size, _GREY)
    return known[size]


def _identity(image: Path | Image.Image) -> Hashable:
    return image if isinstance(image, Path) else (image.size, image.tobytes())


_SHUFFLES: dict[str, Callable[[Sequence[Row], int], list[Row]]] = {
    "shuffled_reference": shuffled_reference,
    "shuffled_facts": shuffled_facts,
}
