"""The longest rows are those that encode to the most tokens."""

from __future__ import annotations

import pytest
from datasets import Dataset, Features

from sage_trl.data.rows import ROW_FEATURES
from sage_trl.errors import DataError
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.planning.longest_rows import longest_rows
from sage_trl.trainer.collators import EntropyDPOCollator, SFECollator
from sage_trl.trainer.fact_trainer import keep_images_encoded
from tests.conftest import assistant, picture, row

SIZES = [(32, 32), (96, 32), (70, 64), (32, 96), (40, 40), (64, 60)]


def rows_on_disk(directory, kind, answers) -> Dataset:
    rows = []
    for index, (width, height) in enumerate(SIZES):
        path = directory / f"{index}.png"
        picture(index, width, height).save(path)
        # Longer questions go with smaller pictures here and there, so that neither decides alone.
        columns = {"images": [str(path)], "reference_image": str(path) if index % 2 else None}
        rows.append(row((index * 5) % 7, **columns, **answers(index)))
    features = Features(ROW_FEATURES[kind])
    return keep_images_encoded(Dataset.from_list(rows, features=features))


def lengths(rows, collator) -> list[int]:
    """Tokens of each row alone, with those that its reference would take in a prompt."""
    found = []
    for index in range(len(rows)):
        batch = collator([rows[index]])
        tokens = int(batch["attention_mask"].sum(dim=1).max())
        if rows[index]["reference_image"] is not None and not collator.reference_in_prompt:
            image_id = collator.processor.tokenizer.convert_tokens_to_ids(collator.processor.image_token)
            tokens += int((batch["input_ids"][0] == image_id).sum())
        found.append(tokens)
    return found


BACKBONES = ["internvl", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl"]


@pytest.mark.parametrize(
    ("name", "reference_in_prompt"),
    [(name, False) for name in BACKBONES] + [(name, True) for name in BACKBONES if name != "llava_onevision"],
)
def test_by_the_tokens_of_the_encoded_rows(name, reference_in_prompt, checkpoints, tmp_path):
    _, processor = load_pretrained(checkpoints(name) / "base", weights=False)
    collator = SFECollator(processor, reference_in_prompt=reference_in_prompt)
    rows = rows_on_disk(tmp_path, "completion", lambda index: {"completion": assistant("Yes. " * (1 + index % 3))})
    expected = lengths(rows, collator)
    longest = longest_rows(rows, collator, 3)
    assert sorted(lengths(longest, collator), reverse=True) == sorted(expected, reverse=True)[:3]
    assert len(longest_rows(rows, collator, 100)) == len(SIZES)


def test_trees_span_as_many_groups_as_a_batch_can(checkpoints, tmp_path):
    _, processor = load_pretrained(checkpoints("internvl") / "base", weights=False)
    rows = rows_on_disk(tmp_path, "completion", lambda _: {"completion": assistant("Yes.")})
    groups = rows.map(lambda _, index: {"group_id": f"g{index // 3}"}, with_indices=True)
    collator = SFECollator(processor, shared_prefix=True)
    expected = lengths(rows, SFECollator(processor))
    longest = max(range(6), key=lambda index: expected[index]) // 3
    assert longest_rows(groups, collator, 2)["group_id"] == [f"g{longest}", f"g{1 - longest}"]
    assert longest_rows(groups, collator, 5)["group_id"].count(f"g{longest}") == 2
    assert len(longest_rows(groups, collator, 6)) == 6


def test_the_longer_answer_of_a_pair_counts(checkpoints, tmp_path):
    _, processor = load_pretrained(checkpoints("internvl") / "base", weights=False)
    collator = EntropyDPOCollator(processor)
    rows = rows_on_disk(
        tmp_path,
        "preference",
        lambda index: {
            "chosen": assistant("No."),
            "rejected": assistant("A long answer. " * (60 if index == 0 else 1)),
            "delta_entropy": 0.1,
            "pair_kind": "min",
        },
    )
    assert longest_rows(rows, collator, 1)[0]["images"][0]["path"].endswith("0.png")


def test_a_broken_image_is_named(checkpoints, tmp_path):
    _, processor = load_pretrained(checkpoints("internvl") / "base", weights=False)
    rows = rows_on_disk(tmp_path, "completion", lambda _: {"completion": assistant("Yes.")})
    (tmp_path / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2\.png: unreadable image"):
        longest_rows(rows, SFECollator(processor), 1)
