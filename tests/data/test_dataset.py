"""Reading, writing and checking AD-PL directories; images opened with care."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sage_trl.data.building import build_dataset
from sage_trl.data.dataset import AdPlDirectory, read_ad_pl, write_ad_pl
from sage_trl.data.images import open_image, read_size
from sage_trl.data.sources import SourceOptions, open_source
from sage_trl.data.validation import check_dataset, examine_dataset
from sage_trl.errors import DataError
from sage_trl.storage import file_sha256, read_json, write_json

GROUPS = {"train": 4, "validation": 1, "test": 1, "unseen": 0}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built") / "ad_pl"
    build_dataset(open_source("synthetic"), SourceOptions(groups=GROUPS), root)
    return root


@pytest.fixture
def dataset(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "ad_pl"))


def change_lines(root: Path, change) -> None:
    """Rewrite ad_pl.jsonl with its rows changed in place, and correct the digest."""
    path = root / "ad_pl.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    info = read_json(root / "dataset.json")
    write_json(root / "dataset.json", {**info, "sha256": file_sha256(path)})


def test_info_and_select(built: Path) -> None:
    data = read_ad_pl(built)
    assert data.info.splits == {"train": 4, "validation": 1, "test": 1}
    assert data.info.sources == {"synthetic": data.info.licence}
    assert len(data.select(["train", "test"])) == 5
    assert len(data.select(datasets=["synthetic"])) == len(data.select()) == 6
    with pytest.raises(DataError, match=r"no split 'tset'[\s\S]*test, train, validation"):
        data.select(["tset"])
    with pytest.raises(DataError, match="no dataset 'mpdd'"):
        data.select(datasets=["mpdd"])


def test_written_rows_are_read_back(built: Path, tmp_path: Path) -> None:
    data = read_ad_pl(built)
    shutil.copytree(built / "images", tmp_path / "copy" / "images")
    written = write_ad_pl(tmp_path / "copy", data.inspections[:3], data.info)
    again = read_ad_pl(tmp_path / "copy")
    assert again.inspections == data.inspections[:3]
    assert again.info == written and sum(written.splits.values()) == 3


def test_units_are_written_where_they_are_known(built: Path, tmp_path: Path) -> None:
    data = read_ad_pl(built)
    assert {f"synthetic/{row.unit}" for row in data.inspections} == {row.id for row in data.inspections}
    shutil.copytree(built / "images", tmp_path / "copy" / "images")
    write_ad_pl(tmp_path / "copy", [row.model_copy(update={"unit": None}) for row in data.inspections], data.info)
    assert '"unit"' not in (tmp_path / "copy" / "ad_pl.jsonl").read_text(encoding="utf-8")
    assert {row.unit for row in read_ad_pl(tmp_path / "copy").inspections} == {None}


def test_missing_image(dataset: Path) -> None:
    data = read_ad_pl(dataset)
    data.image_path(data.inspections[2].test_image).unlink()
    with pytest.raises(DataError, match=r"ad_pl\.jsonl:3: field 'test_image': no image at"):
        read_ad_pl(dataset)


def test_duplicate_id_names_both_lines(dataset: Path) -> None:
    change_lines(dataset, lambda rows: rows[4].update(id=rows[1]["id"]))
    with pytest.raises(DataError, match=r"ad_pl\.jsonl:5: .*line 2 already"):
        read_ad_pl(dataset)


def test_changed_file(dataset: Path) -> None:
    with (dataset / "ad_pl.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    with pytest.raises(DataError, match="sha256"):
        read_ad_pl(dataset)


def test_the_same_group_twice_is_read_once(dataset: Path) -> None:
    change_lines(dataset, lambda rows: rows.append(rows[1]))
    assert len(read_ad_pl(dataset).inspections) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row.pop("level"), "level"),
        (lambda row: row.update(defects="none"), "defects"),
        (lambda row: row["questions"][0].update(answers=["Yes.", "No.", " "]), "answers"),
        (lambda row: row.update(test_image="../outside.png"), "leaves the dataset's directory"),
        (lambda row: row.update(test_image="/etc/outside.png"), "is absolute"),
        (lambda row: row.update(extra=1), "extra"),
        (lambda row: row["questions"][0].update(options={"A": "x", "B": "y"}, choice="C"), "none of the options A, B"),
        (lambda row: row["questions"][0].update(options={"A": "x", "B": "y"}), "choice None is none of"),
        (lambda row: row["questions"][0].update(choice="A"), "(there are none)"),
        (lambda row: row["questions"][0].update(options={"a": "x", "B": "y"}, choice="B"), "options"),
    ],
)
def test_faulty_rows_name_line_and_field(dataset: Path, change, said: str) -> None:
    change_lines(dataset, lambda rows: change(rows[1]))
    with pytest.raises(DataError, match=r"ad_pl\.jsonl:2: ") as caught:
        read_ad_pl(dataset)
    assert said in str(caught.value)


def test_no_directory_and_no_rows(tmp_path: Path, dataset: Path) -> None:
    with pytest.raises(DataError, match="no such dataset directory"):
        read_ad_pl(tmp_path / "nowhere")
    change_lines(dataset, list.clear)
    with pytest.raises(DataError, match="holds no group"):
        read_ad_pl(dataset)


def test_check_finds_every_fault(dataset: Path) -> None:
    assert check_dataset(dataset) == []
    data = read_ad_pl(dataset)
    data.image_path(data.inspections[3].test_image).write_bytes(b"not an image")

    def spoil(rows: list[dict]) -> None:
        rows[0]["level"] = "none"
        rows[1]["id"] = rows[2]["id"]
        rows[4]["reference_image"] = "images/gone.png"

    change_lines(dataset, spoil)
    said = [str(fault) for fault in check_dataset(dataset)]
    assert len(said) == 4
    for part in (
        "jsonl:1: field 'level'",
        "jsonl:3: field 'id'",
        "unreadable image",
        "jsonl:5: field 'reference",
    ):
        assert any(part in fault for fault in said), part


def test_check_without_info_and_with_broken_json(dataset: Path) -> None:
    (dataset / "dataset.json").unlink()
    with (dataset / "ad_pl.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("{broken\n")
    said = [str(fault) for fault in check_dataset(dataset)]
    assert len(said) == 2 and "jsonl:7: not JSON" in said[0] and "dataset.json" in said[1]
    assert "no such file" in str(check_dataset(dataset / "images")[0])


def test_other_shapes_are_counted(dataset: Path) -> None:
    assert examine_dataset(dataset).findings == ()
    change_lines(dataset, lambda rows: rows[0].update(questions=rows[0]["questions"][:3]))
    [finding] = examine_dataset(dataset).findings
    assert (finding.severity, finding.line) == ("warning", 1)
    assert "1 groups have not five questions" in finding.problem


def test_open_image(tmp_path: Path) -> None:
    Image.new("L", (5, 4), 7).save(tmp_path / "grey.png")
    assert open_image(tmp_path / "grey.png").getpixel((0, 0)) == (7, 7, 7)
    Image.new("RGB", (64, 64)).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (8, 8)).save(tmp_path / "other.gif")
    for name in ("cut.jpg", "other.gif", "absent.png"):
        with pytest.raises(DataError, match=name):
            open_image(tmp_path / name)


def test_too_many_pixels(tmp_path: Path) -> None:
    Image.new("1", (8000, 7000)).save(tmp_path / "huge.png")
    with pytest.raises(DataError, match="image of 8000x7000 pixels"):
        open_image(tmp_path / "huge.png")


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(*_: object) -> list:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        build_dataset(open_source("synthetic"), SourceOptions(groups=GROUPS), tmp_path / "ad_pl", author=fail)
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_builds_the_same_dataset(built: Path, tmp_path: Path) -> None:
    build_dataset(open_source("synthetic"), SourceOptions(groups=GROUPS), tmp_path / "again")
    first: AdPlDirectory = read_ad_pl(built)
    assert read_ad_pl(tmp_path / "again").info == first.info
    names = sorted(path.relative_to(built) for path in built.rglob("*.png"))
    assert all(file_sha256(built / name) == file_sha256(tmp_path / "again" / name) for name in names)


def test_deep_grey_images_keep_their_shades(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0x1234], [0x8000, 0xFFFF]], dtype=np.uint16)).save(tmp_path / "deep.png")
    shades = [open_image(tmp_path / "deep.png").getpixel(place) for place in ((0, 0), (1, 0), (0, 1), (1, 1))]
    assert shades == [(value,) * 3 for value in (0, 0x12, 0x80, 0xFF)]
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match=r"float\.tiff: image of mode 'F'"):
        open_image(tmp_path / "float.tiff")


def test_a_file_that_is_not_utf_8(dataset: Path) -> None:
    content = (dataset / "ad_pl.jsonl").read_bytes()
    (dataset / "ad_pl.jsonl").write_bytes(content.replace(b"question", b"quest\xe9on", 1))
    with pytest.raises(DataError, match="jsonl:1: not UTF-8"):
        read_ad_pl(dataset)
    assert any("jsonl:1: not UTF-8" in str(fault) for fault in check_dataset(dataset))


@pytest.mark.parametrize(("image_root", "allowed"), [("../pictures", True), ("/pictures", False), ("a/../../b", False)])
def test_image_root_may_lead_out_by_a_relative_path(dataset: Path, image_root: str, allowed: bool) -> None:
    shutil.copytree(dataset, dataset.parent / "pictures")
    write_json(dataset / "dataset.json", {**read_json(dataset / "dataset.json"), "image_root": image_root})
    faults = check_dataset(dataset)
    assert (faults == []) is allowed
    assert allowed or "field 'image_root'" in str(faults[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_shown_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (40, 20), 9).save(tmp_path / "turned.jpg", exif=exif)
    # By the EXIF standard, orientations 5 to 8 swap width and height.
    size = (20, 40) if orientation >= 5 else (40, 20)
    assert open_image(tmp_path / "turned.jpg").size == read_size(tmp_path / "turned.jpg") == size
