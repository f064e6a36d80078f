"""Rows through the library `datasets`: saved on disk, Parquet, JSON lines, imagefolder, configurations, and the hub."""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

import datasets
import pytest

from sage_trl.data.building import build_dataset
from sage_trl.data.sources import Part, SourceOptions, open_source
from sage_trl.data.validation import check_dataset
from sage_trl.errors import DataError
from tests.conftest import REPOSITORY
from tests.data.sources.trees import BOX, SIDE, grow, image_bytes, mask, picture, save, save_rows
from tests.warm import run_warm

HIT = tuple(value / SIDE for value in BOX)
LABELS = ("good", "scratch", "good", "color")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `datasets` makes of Parquet and JSON lines lies in its cache: not in the user's."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def parts_of(root: Path, **options) -> list[Part]:
    return list(open_source("datasets").parts(SourceOptions(root=root, **options)))


def check_parts(parts: list[Part]) -> None:
    """What the 24 rows of `tree.rows` become, whatever they are stored as."""
    types = Counter(defect.type for part in parts for defect in part.defects)
    assert types == {"scratch": 6, "discolouration": 6}
    assert all(defect.box == pytest.approx(HIT) for part in parts for defect in part.defects)
    assert all(part.reference is not None for part in parts)
    assert {part.category for part in parts} == {"plate"}


def test_rows_saved_on_disk_and_as_parquet(tmp_path: Path) -> None:
    tree = grow("datasets", tmp_path / "saved")
    save_rows(tree, tree.rows)
    saved = parts_of(tree.root)
    check_parts(saved)
    (tmp_path / "parquet").mkdir()
    datasets.load_from_disk(str(tree.root)).to_parquet(str(tmp_path / "parquet/rows.parquet"))
    parquet = parts_of(tmp_path / "parquet")
    check_parts(parquet)
    pixels = [[part.test.tobytes() for part in parts] for parts in (saved, parquet)]
    assert sorted(pixels[0]) == sorted(pixels[1])


def write_json_lines(root: Path, name: str = "rows.jsonl") -> Path:
    """Rows that name their images: `photos/00.png` below the root."""
    draw = random.Random(0)
    rows = []
    for number in range(24):
        label = LABELS[number % 4]
        row = {"photo": f"photos/{number:02d}.png", "label": label, "category": "plate", "mask": None}
        save(picture(draw), root / row["photo"])
        if label != "good":
            row["mask"] = f"masks/{number:02d}.png"
            save(mask(), root / row["mask"])
        rows.append(row)
    (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root / name


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_a_file_of_rows_that_name_their_images(ending: str, tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "rows")
    with pytest.raises(DataError, match=r"reads the images alone\n  remedy: .*--root .*rows\.jsonl"):
        parts_of(path.parent)
    rows = datasets.load_dataset("json", data_files=str(path), split="train")
    if ending == ".csv":
        rows.to_csv(str(path.with_suffix(ending)))
    elif ending == ".parquet":
        rows.to_parquet(str(path.with_suffix(ending)))
    options = SourceOptions(root=path.with_suffix(ending), columns={"image": "photo"}, licence="CC0")
    check_parts(list(open_source("datasets").parts(options)))
    build_dataset(open_source("datasets"), options, tmp_path / "built")
    assert check_dataset(tmp_path / "built") == []


def test_faulty_names_of_images(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "rows")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    save(picture(random.Random(1)), tmp_path / "outside.png")
    (tmp_path / "rows/photos/link.png").symlink_to(tmp_path / "outside.png")
    named = ("photos/nowhere.png", "../outside.png", "photos/link.png", "", "https://x.org/a.png")
    for row, photo in zip(rows, named, strict=False):
        row["photo"] = photo
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        parts_of(path, columns={"image": "photo"})
    said = str(caught.value)
    assert said.startswith("5 faults in")
    for problem in ("no image at", "leaves the dataset's directory", "leaves ", "field 'photo': no image", "is a URL"):
        assert problem in said
    for number in range(5):
        assert f"[{number}]" in said or "link.png" in said


def test_an_imagefolder(tmp_path: Path) -> None:
    draw = random.Random(0)
    for label in ("good", "scratch"):
        for number in range(6):
            save(picture(draw), tmp_path / f"rows/{label}/{number}.png")
    parts = parts_of(tmp_path / "rows", category="cap", split_shares={"train": 1.0})
    assert Counter(defect.type for part in parts for defect in part.defects) == {"scratch": 6}
    assert {part.category for part in parts} == {"cap"}


def test_classes_of_labels_and_of_categories(tmp_path: Path) -> None:
    kinds = datasets.ClassLabel(names=["cap", "nut"])
    labels = datasets.ClassLabel(names=["bent", "scratch"])
    features = datasets.Features(image=datasets.Image(), label=labels, category=kinds)
    draw = random.Random(0)
    given = {"label": [None, -1, 0, 1] * 3, "category": [0] * 4 + [1] * 4 + [None, -1, None, -1]}
    given["image"] = [{"bytes": image_bytes(picture(draw)), "path": None} for _ in range(12)]
    datasets.Dataset.from_dict(given, features=features).save_to_disk(str(tmp_path / "rows"))
    parts = parts_of(tmp_path / "rows", pairing="none", category="disc", split_shares={"train": 1.0})
    found = [(part.category, *(defect.type for defect in part.defects)) for part in sorted(parts, key=lambda p: p.name)]
    assert found == [(kind, *label) for kind in ("cap", "nut", "disc") for label in ((), (), ("bend",), ("scratch",))]


def test_a_number_is_a_category_and_one_that_is_no_class_is_a_fault(tmp_path: Path) -> None:
    draw = random.Random(0)
    images = [{"bytes": image_bytes(picture(draw)), "path": None} for _ in range(4)]
    given = {"image": images, "label": ["good", "scratch"] * 2, "category": [0, 0, 7, 7]}
    rows = datasets.Dataset.from_dict(given).cast_column("image", datasets.Image())
    rows.save_to_disk(str(tmp_path / "rows"))
    assert {part.category for part in parts_of(tmp_path / "rows", pairing="none")} == {"0", "7"}
    rows.cast_column("category", datasets.ClassLabel(names=["cap"])).save_to_disk(str(tmp_path / "classes"))
    with pytest.raises(DataError, match=r"all\[2\] field 'category': 7 is no class\n  remedy: "):
        parts_of(tmp_path / "classes", pairing="none")


def test_which_of_several_configurations(tmp_path: Path) -> None:
    tree = grow("datasets", tmp_path / "saved")
    save_rows(tree, tree.rows)
    for name in ("plates", "caps"):
        (tmp_path / "rows" / name).mkdir(parents=True)
        datasets.load_from_disk(str(tree.root)).to_parquet(str(tmp_path / f"rows/{name}/rows.parquet"))
    header = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("plates", "caps"))
    (tmp_path / "rows/README.md").write_text(f"---\nconfigs:\n{header}---\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"(?s)plates.*remedy: .*--config"):
        parts_of(tmp_path / "rows")
    with pytest.raises(DataError, match=r"(?s)screws.*remedy: .*--config"):
        parts_of(tmp_path / "rows", config="screws")
    check_parts(parts_of(tmp_path / "rows", config="plates"))


def test_a_configuration_of_what_has_none(tmp_path: Path) -> None:
    tree = grow("datasets", tmp_path / "saved")
    save_rows(tree, tree.rows)
    for root in (tree.root, write_json_lines(tmp_path / "rows")):
        with pytest.raises(DataError, match=r"has no configurations\n  remedy: leave --config out"):
            parts_of(root, config="plates")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.parquet", b"PAR1 and no more", "arquet"),
        ("rows.jsonl", b'{"image": "a.png", "label"', "JSON"),
        ("rows.txt", b"nothing", "no column 'image'"),
    ],
)
def test_files_that_cannot_be_loaded(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        parts_of(tmp_path / "rows")
    assert said in str(caught.value) and "remedy: " in str(caught.value)


def test_columns_that_hold_no_images(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/rows.jsonl").write_text('{"image": 7, "label": "good"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="holds neither images nor names of image files"):
        parts_of(tmp_path / "rows")


def test_a_name_on_the_hub_without_the_hub(tmp_path: Path) -> None:
    tool = [sys.executable, str(REPOSITORY / "tools/build_dataset.py"), "--source", "datasets"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    for name in ("nobody/nothing", "nothing"):
        result = run_warm([*tool, "--root", name, "--output", str(tmp_path / "out")], env=environment, cwd=tmp_path)
        assert result.returncode == 2 and "Traceback" not in result.stderr
        assert f"error: {name}: no dataset that can be loaded" in result.stderr
        assert "HF_HUB_OFFLINE" in result.stderr.split("remedy: ")[1]
    assert not (tmp_path / "out").exists()


def test_quiet_shows_no_bars_of_the_library(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "rows")
    tool = [sys.executable, str(REPOSITORY / "tools/build_dataset.py"), "--source", "datasets", "--quiet"]
    command = [*tool, "--root", path, "--columns", "image=photo", "--output", tmp_path / "out"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    result = run_warm(command, env=environment)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
