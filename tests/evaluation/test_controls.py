"""Controls change exactly what they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sage_trl.errors import DataError
from sage_trl.evaluation.controls import apply_control, draw_donors


def rows(groups: int, tmp_path: Path | None = None) -> list[dict[str, Any]]:
    made = []
    for number in range(groups):
        for question in ("q1", "q2"):
            test = Image.new("RGB", (8 + number, 6), (number, 0, 0))
            made.append(
                {
                    "images": [test],
                    "reference_image": Image.new("RGB", (8, 6), (0, number + 1, 0)),
                    "facts": [f"fact of group {number}"],
                    "question": f"{question} of {number}?",
                    "group_id": f"g{number}",
                    "question_id": question,
                }
            )
    return made


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def test_blank_image_is_grey_and_keeps_the_size(tmp_path: Path) -> None:
    path = tmp_path / "test.png"
    Image.new("RGB", (12, 5), (255, 0, 0)).save(path)
    original = [{**rows(1)[0], "images": [path]}]

    [blank] = apply_control(original, "blank_image", seed=0)

    assert blank["images"][0].size == (12, 5)
    assert blank["reference_image"].size == (8, 6)
    assert blank["images"][0].getcolors() == [(60, (128, 128, 128))]
    assert blank["reference_image"].getcolors() == [(48, (128, 128, 128))]
    assert without(blank, "images", "reference_image") == without(original[0], "images", "reference_image")
    assert original[0]["images"] == [path]


def test_blank_image_leaves_a_missing_reference_missing() -> None:
    [blank] = apply_control([{**rows(1)[0], "reference_image": None}], "blank_image", seed=0)

    assert blank["reference_image"] is None


@pytest.mark.parametrize(("control", "field"), [("shuffled_reference", "reference_image"), ("shuffled_facts", "facts")])
def test_shuffling_is_a_derangement_of_groups(control: Any, field: str) -> None:
    original = rows(7)

    shuffled = apply_control(original, control, seed=1)

    def signature(row: dict[str, Any]) -> Any:
        value = row[field]
        return value.tobytes() if isinstance(value, Image.Image) else tuple(value)

    before = {row["group_id"]: signature(row) for row in original}
    after = {row["group_id"]: signature(row) for row in shuffled}
    assert all(after[group] != before[group] for group in before)
    assert sorted(after.values()) == sorted(before.values())
    assert [without(row, field) for row in shuffled] == [without(row, field) for row in original]
    assert all(signature(row) == after[row["group_id"]] for row in shuffled)
    assert [signature(row) for row in apply_control(original, control, seed=1)] == [signature(row) for row in shuffled]


def test_groups_without_a_reference_stay_without() -> None:
    original = rows(3)
    original[0]["reference_image"] = original[1]["reference_image"] = None

    shuffled = apply_control(original, "shuffled_reference", seed=0)

    assert [row["reference_image"] is None for row in shuffled] == [True, True, False, False, False, False]


def test_hidden_references_and_facts_need_no_shuffling() -> None:
    bare = [{**row, "reference_image": None, "facts": []} for row in rows(2)]

    assert apply_control(bare, "shuffled_reference", seed=0) == bare
    assert apply_control(bare, "shuffled_facts", seed=0) == bare


def test_no_facts_removes_facts_only() -> None:
    original = rows(2)

    assert apply_control(original, "no_facts", seed=0) == [{**row, "facts": []} for row in original]


def test_equal_facts_everywhere_cannot_be_shuffled() -> None:
    same = [{**row, "facts": ["the same"]} for row in rows(3)]

    with pytest.raises(DataError, match="all 3 groups have the same facts"):
        apply_control(same, "shuffled_facts", seed=0)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30).filter(lambda c: len(set(c)) > 1), st.integers(0, 9))
def test_every_donor_has_another_content(contents: list[int], seed: int) -> None:
    by_group = {f"g{place}": content for place, content in enumerate(contents)}

    donors = draw_donors(by_group, seed, "facts")

    assert donors.keys() == by_group.keys()
    assert all(by_group[donor] != by_group[group] for group, donor in donors.items())
    if 2 * max(contents.count(content) for content in contents) <= len(contents):
        assert sorted(donors.values()) == sorted(by_group)
