"""Faults as they come to datasets in the field; each function spoils a sound AD-PL directory in one place.

A fault takes the directory and a random generator, and returns the kind of the finding that it must give, and the line
of `ad_pl.jsonl` that the finding must name (None: another file).
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from sage_trl.data.licences import NOT_STATED
from sage_trl.storage import file_sha256, read_json, write_json

Expected = tuple[str, int | None]
Fault = Callable[[Path, random.Random], Expected]


class Rows:
    """The rows of a directory, written back with a correct digest and correct counts on leaving the context."""

    def __init__(self, root: Path) -> None:
        self._path = root / "ad_pl.jsonl"
        self._info = root / "dataset.json"

    def __enter__(self) -> list[dict[str, Any]]:
        self.rows = [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]
        return self.rows

    def __exit__(self, *_: object) -> None:
        self._path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        splits: dict[str, int] = {}
        for row in self.rows:
            splits[row["split"]] = splits.get(row["split"], 0) + 1
        info = read_json(self._info)
        write_json(self._info, {**info, "sha256": file_sha256(self._path), "splits": splits})


def image_of(root: Path, rng: random.Random, field: str = "test_image") -> tuple[Path, int]:
    """The image of a drawn row, and the first line that shows it."""
    with Rows(root) as rows:
        shown = [row[field] for row in rows if row[field]]
        relative = rng.choice(shown)
        line = next(
            number for number, row in enumerate(rows, 1) if relative in (row["test_image"], row["reference_image"])
        )
    return root / relative, line


def pick(rows: list[dict[str, Any]], rng: random.Random, keep: Callable[[dict[str, Any]], Any] = bool) -> int:
    return rng.choice([index for index, row in enumerate(rows) if keep(row)])


def missing_image(root: Path, rng: random.Random) -> Expected:
    path, line = image_of(root, rng)
    path.unlink()
    return "image-missing", line


def empty_image(root: Path, rng: random.Random) -> Expected:
    path, line = image_of(root, rng)
    path.write_bytes(b"")
    return "image-format", line


def truncated_image(root: Path, rng: random.Random) -> Expected:
    path, line = image_of(root, rng)
    Image.effect_noise((200, 160), 60).save(path, "JPEG")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * rng.uniform(0.5, 0.95))])
    return "image-truncated", line


def bomb(root: Path, rng: random.Random) -> Expected:
    path, line = image_of(root, rng)
    side = rng.randrange(7_100, 9_000)
    Image.new("1", (side, side)).save(path, "PNG")
    return "image-too-large", line


def other_format(root: Path, rng: random.Random) -> Expected:
    path, line = image_of(root, rng)
    Image.new("RGB", (8, 8)).save(path, "GIF")
    return "image-format", line


def unknown_range(root: Path, rng: random.Random) -> Expected:
    path, line = image_of(root, rng)
    Image.new("F", (8, 8), rng.random()).save(path, "TIFF")
    return "image-mode", line


def path_leaves_the_root(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        index = pick(rows, rng)
        rows[index]["test_image"] = rng.choice(
            ["../outside.png", "/etc/outside.png", "https://x.org/a.png", "C:\\a.png"]
        )
    return "path", index + 1


def link_leads_out(root: Path, rng: random.Random) -> Expected:
    path, line = image_of(root, rng)
    outside = root.parent / f"outside{path.suffix}"
    shutil.move(path, outside)
    path.symlink_to(outside)
    return "image-outside", line


def faulty_record(root: Path, rng: random.Random) -> Expected:
    changes: list[dict[str, Any]] = [
        {"level": "none"},
        {"defects": "none"},
        {"extra": 1},
        {"questions": []},
        {"id": ""},
    ]
    with Rows(root) as rows:
        index = pick(rows, rng)
        rows[index].update(rng.choice(changes))
    return "record", index + 1


def torn_line(root: Path, rng: random.Random) -> Expected:
    path = root / "ad_pl.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    index = rng.randrange(len(lines))
    lines[index] = lines[index][: rng.randrange(1, len(lines[index]) - 1)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "record", index + 1


def same_group_twice(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        rows.append(rows[pick(rows, rng)])
        return "duplicate", len(rows)


def same_id_other_content(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        first, second = sorted(rng.sample([i for i, row in enumerate(rows) if row["split"] == "train"], 2))
        rows[second]["id"] = rows[first]["id"]
    return "duplicate-conflict", second + 1


def opposite_verdicts(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        index = pick(rows, rng, lambda row: row["questions"][0]["verdict"] is not None)
        twin = json.loads(json.dumps(rows[index]))
        twin["id"] = "twin"
        question = twin["questions"][0]
        question["verdict"] = not question["verdict"]
        question["answers"].reverse()
        rows.append(twin)
        return "duplicate-conflict", len(rows)


def image_on_both_sides(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        source = pick(rows, rng, lambda row: row["split"] == "train")
        target = pick(rows, rng, lambda row: row["split"] != "train")
    shutil.copy(root / rows[source]["test_image"], root / rows[target]["test_image"])
    return "leakage", max(source, target) + 1


def group_on_both_sides(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        source = pick(rows, rng, lambda row: row["split"] == "train")
        target = pick(rows, rng, lambda row: row["split"] != "train")
        rows[target]["id"] = rows[source]["id"]
    return "leakage", max(source, target) + 1


def saved_again_on_the_other_side(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        source = pick(rows, rng, lambda row: row["split"] == "train")
        target = pick(rows, rng, lambda row: row["split"] != "train")
        rows[target]["category"] = rows[source]["category"]
        with Image.open(root / rows[source]["test_image"]) as image:
            image.convert("RGB").save(root / rows[target]["test_image"], "WEBP", quality=95)
    return "near-duplicate", max(source, target) + 1


def reference_of_another_category(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        index = pick(rows, rng, lambda row: row["reference_image"])
        others = [row for row in rows if row["category"] != rows[index]["category"]]
        if not others:  # a source of one category: call some of its parts another
            other = pick(rows, rng, lambda row: row["test_image"] != rows[index]["test_image"])
            rows[other]["category"] = "other"
            others = [rows[other]]
        rows[index]["reference_image"] = rng.choice(others)["test_image"]
    return "reference-category", index + 1


def its_own_reference(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        index = pick(rows, rng)
        rows[index]["reference_image"] = rows[index]["test_image"]
    return "reference", index + 1


def verdict_against_the_ranks(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        index = pick(rows, rng, lambda row: row["questions"][0]["verdict"] is not None)
        question = rows[index]["questions"][0]
        question["verdict"] = not question["verdict"]
    return "verdict", index + 1


def placeholder_in_a_text(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        index = pick(rows, rng)
        question = rng.choice(rows[index]["questions"])
        mark = rng.choice(["<fact>", "<image>", "<IMG_CONTEXT>", "<|image_pad|>", "<|vision_start|>"])
        if rng.random() < 0.5:
            question["question"] += mark
        else:
            question["answers"][rng.randrange(len(question["answers"]))] += mark
    return "placeholder", index + 1


def changed_file(root: Path, rng: random.Random) -> Expected:
    info = read_json(root / "dataset.json")
    write_json(root / "dataset.json", {**info, "sha256": f"{rng.getrandbits(256):064x}"})
    return "digest", None


def wrong_counts(root: Path, rng: random.Random) -> Expected:
    info = read_json(root / "dataset.json")
    info["splits"][rng.choice(list(info["splits"]))] += 1
    write_json(root / "dataset.json", info)
    return "splits", None


def no_licence(root: Path, rng: random.Random) -> Expected:
    info = read_json(root / "dataset.json")
    if rng.random() < 0.5:
        info["licence"] = rng.choice(["unknown", NOT_STATED])
    else:
        info["sources"].pop(rng.choice(list(info["sources"])))
    write_json(root / "dataset.json", info)
    return "licence", None


def one_verdict_only(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        for row in rows:
            for question in row["questions"] if row["split"] == "train" else []:
                if question["verdict"] is False:
                    question["verdict"] = None
        line = next(number for number, row in enumerate(rows, 1) if row["split"] == "train")
    return "balance", line


def facts_missing(root: Path, rng: random.Random) -> Expected:
    lines = (root / "facts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    gone = json.loads(lines.pop(rng.randrange(len(lines))))["test_image_sha256"]
    (root / "facts.jsonl").write_text("".join(lines), encoding="utf-8")
    with Rows(root) as rows:
        line = next(n for n, row in enumerate(rows, 1) if file_sha256(root / row["test_image"]) == gone)
    return "facts-missing", line


def score_missing(root: Path, rng: random.Random) -> Expected:
    lines = (root / "scores.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    gone = json.loads(lines.pop(rng.randrange(len(lines))))["group_id"]
    (root / "scores.jsonl").write_text("".join(lines), encoding="utf-8")
    with Rows(root) as rows:
        line = next(number for number, row in enumerate(rows, 1) if row["id"] == gone)
    return "scores-missing", line


def unit_on_both_sides(root: Path, rng: random.Random) -> Expected:
    with Rows(root) as rows:
        first = pick(rows, rng, lambda row: row["split"] == "train")
        second = pick(rows, rng, lambda row: row["split"] == "test")
        rows[second]["unit"] = rows[first]["unit"]
    return "leakage", max(first, second) + 1


def other_option_first(root: Path, rng: random.Random) -> Expected:
    options = {"A": "A scratch.", "B": "A stain.", "C": "A dent.", "D": "Nothing."}
    right, wrong = rng.sample(sorted(options), 2)
    answers = [f"{letter}. {options[letter]}" for letter in (wrong, *(one for one in options if one != wrong))]
    with Rows(root) as rows:
        index = pick(rows, rng)
        text = "\n".join(["What is it?", *(f"{letter}. {words}" for letter, words in options.items())])
        rows[index]["questions"][rng.randrange(5)] |= {
            "question": text,
            "verdict": None,
            "answers": answers,
            "options": options,
            "choice": right,
        }
    return "choice", index + 1


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        *(missing_image, empty_image, truncated_image, bomb, other_format, unknown_range, path_leaves_the_root),
        *(link_leads_out, faulty_record, torn_line, same_group_twice, same_id_other_content, opposite_verdicts),
        *(image_on_both_sides, group_on_both_sides, saved_again_on_the_other_side, reference_of_another_category),
        *(its_own_reference, verdict_against_the_ranks, placeholder_in_a_text, changed_file, wrong_counts, no_licence),
        *(one_verdict_only, facts_missing, score_missing, unit_on_both_sides, other_option_first),
    )
}
