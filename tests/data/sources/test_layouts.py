"""What each source makes of a tree in its exact layout."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from PIL import Image

from sage_trl.data.building import build_dataset
from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.images import open_image
from sage_trl.data.sources import Part, SourceOptions, open_source
from sage_trl.data.validation import check_dataset, examine_dataset
from sage_trl.errors import DataError
from sage_trl.lexicon import read_sentence
from tests.data.sources.trees import BOX, BUILDERS, SIDE, Tree, grow, image_bytes, mask, picture, save, save_rows

HIT = tuple(value / SIDE for value in BOX)
FOLDERS = ("mvtec", "mpdd", "visa", "folder")


def parts_of(source: str, root: Path, **options) -> list[Part]:
    return list(open_source(source).parts(SourceOptions(root=root, **options)))


def by_name(parts: list[Part]) -> dict[str, Part]:
    assert len({part.name for part in parts}) == len(parts)
    return {part.name: part for part in parts}


@pytest.fixture
def tree(request, tmp_path: Path) -> Tree:
    return grow(request.param, tmp_path / "root")


def check_pairs(parts: list[Part]) -> None:
    """Images of different splits differ, no test image is a reference, and no part is its own reference."""
    tests = {part.test for part in parts}
    references = {part.reference for part in parts}
    assert not tests & references and None not in references
    for own, other in ((a, b) for a in parts for b in parts if a.split != b.split):
        assert own.test != other.test and own.reference != other.reference


@pytest.mark.parametrize("pairing", ["first", "random", "nearest"])
@pytest.mark.parametrize("source", FOLDERS)
def test_references_are_normal_images_of_the_same_category_and_split(source: str, pairing: str, tmp_path: Path) -> None:
    tree = grow(source, tmp_path / "root")
    parts = parts_of(source, tree.root, pairing=pairing)
    check_pairs(parts)
    for part in parts:
        assert part.reference in tree.normal
        assert (part.test in tree.normal) is (part.defects == ())
        if source != "folder":
            assert part.reference.relative_to(tree.root).parts[0] == part.category
    assert parts_of(source, tree.root, pairing=pairing) == parts
    if pairing == "random":
        again = parts_of(source, tree.root, pairing=pairing, seed=1)
        assert {p.name: p.reference for p in again} != {p.name: p.reference for p in parts}


@pytest.mark.parametrize("tree", ["mvtec"], indirect=True)
def test_mvtec_by_hand(tree: Tree) -> None:
    parts = by_name(parts_of("mvtec", tree.root))
    # 2 categories of 3 good ones and 3 x 4 with a defect; train/good is asked nothing.
    assert Counter(part.category for part in parts.values()) == {"screw": 15, "metal_nut": 15}
    assert {part.split for part in parts.values()} == {"train", "validation", "test"}
    types = {name.split("/")[2]: part.defects[0].type for name, part in parts.items() if part.defects}
    assert types == {"scratch_head": "head scratch", "bent": "bend", "color": "discolouration"}
    (defect,) = parts["screw/test/scratch_head/002"].defects
    assert defect.box == pytest.approx(HIT)
    # 72 of 2304 pixels; the part is a disc 40 pixels wide, 1257 pixels.
    assert defect.share == pytest.approx(72 / 1257, rel=0.05)
    assert parts["screw/test/good/001"].defects == ()


@pytest.mark.parametrize("tree", ["mpdd"], indirect=True)
def test_mpdd_is_a_test_set(tree: Tree) -> None:
    assert {part.split for part in parts_of("mpdd", tree.root)} == {"test"}
    shares = {"train": 0.5, "test": 0.5}
    assert {part.split for part in parts_of("mpdd", tree.root, split_shares=shares)} == set(shares)


@pytest.mark.parametrize("tree", ["mvtec"], indirect=True)
def test_a_category_alone_and_a_cap(tree: Tree) -> None:
    parts = parts_of("mvtec", tree.root / "screw", groups={"train": 5, "test": 0})
    assert Counter(part.split for part in parts)["train"] == 5
    assert "test" not in {part.split for part in parts}
    # 12 of 15 have a defect.
    assert sum(bool(part.defects) for part in parts if part.split == "train") == 4
    with pytest.raises(DataError, match="split 'trian' is unknown"):
        parts_of("mvtec", tree.root, groups={"trian": 1})


@pytest.mark.parametrize("tree", ["visa"], indirect=True)
def test_visa_by_hand(tree: Tree) -> None:
    parts = by_name(parts_of("visa", tree.root))
    both = parts["candle/Data/Images/Anomaly/000"].defects
    assert [defect.type for defect in both] == ["bend", "scratch"]
    assert all(defect.box == pytest.approx(HIT) for defect in both)
    # Number 2 of three goes to the test side; the table says so.
    splits = {name: part.split for name, part in parts.items() if "Anomaly" in name}
    assert {name[-1] for name, split in splits.items() if split == "test"} == {"2", "5"}


@pytest.mark.parametrize("tree", ["visa"], indirect=True)
def test_visa_one_class(tree: Tree) -> None:
    parts = parts_of("visa", tree.root, split_file="1cls")
    trained = {f"{number:04d}" for number in range(8) if number % 4 != 3}
    assert {part.reference.stem for part in parts} <= trained
    assert not {part.test.stem for part in parts} & trained


@pytest.mark.parametrize("tree", ["folder"], indirect=True)
def test_folder_by_hand(tree: Tree) -> None:
    parts = by_name(parts_of("folder", tree.root, category="door panel"))
    assert {part.category for part in parts.values()} == {"door panel"}
    assert parts["Paint-Run/d1"].defects[0].type == "paint run"
    assert parts["scratch/d0"].defects[0].box == pytest.approx(HIT)
    defective = sum(bool(part.defects) for part in parts.values())
    assert defective == 8 and 0 < len(parts) - defective <= 5


def test_folder_without_masks_and_with_categories(tmp_path: Path) -> None:
    tree = grow("folder", tmp_path / "root/left")
    for path in tree.mask_of.values():
        path.unlink()
    for path in (tree.root / "masks").iterdir():
        path.rmdir()
    (tree.root / "good").rename(tree.root / "OK")
    parts = parts_of("folder", tmp_path / "root", split_shares={"train": 1.0}, pairing="none")
    assert {part.category for part in parts} == {"left"}
    assert {part.reference for part in parts} == {None}
    assert {defect.box for part in parts for defect in part.defects} == {(0.0, 0.0, 1.0, 1.0)}
    assert {defect.share for part in parts for defect in part.defects} == {None}
    build_dataset(open_source("folder"), SourceOptions(root=tmp_path / "root"), tmp_path / "out")
    assert check_dataset(tmp_path / "out") == []
    questions = [question for row in read_ad_pl(tmp_path / "out").inspections for question in row.questions]
    assert not any(read_sentence(text).places for asked in questions for text in (asked.question, *asked.answers))


@pytest.mark.parametrize("tree", ["labelme"], indirect=True)
def test_labelme_by_hand(tree: Tree) -> None:
    parts = parts_of("labelme", tree.root, category="ball screw")
    # Five places of four photos: the first normal one is the reference of the other three.
    assert len(parts) == 15
    for part in parts:
        place, time = part.test.stem.split("_")[2], part.test.stem.split("_")[1]
        assert part.reference.stem == f"01_200901120000_{place}_090_crop_2" and time > "200901120000"
    splits: dict[str, set[str]] = {}
    for part in parts:
        splits.setdefault(part.unit, set()).add(part.split)
    assert len(splits) == 5 and all(len(each) == 1 for each in splits.values())
    assert {defect.type for part in parts for defect in part.defects} == {"pitting"}
    assert all(defect.box == pytest.approx(HIT) for part in parts for defect in part.defects)


def test_labelme_shapes(tmp_path: Path) -> None:
    save(picture(Tree(tmp_path, random.Random(0)).rng), tmp_path / "a.png")
    shapes = [
        {"label": "hole", "shape_type": "circle", "points": [[24, 24], [24, 36]]},
        {"label": "cut", "shape_type": "rectangle", "points": [[40, 8], [10, 2]]},
        {"label": "edge", "shape_type": "polygon", "points": [[-9, 40], [6, 40], [6, 99], [-9, 99]]},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"shapes": shapes}), encoding="utf-8")
    (part,) = parts_of("labelme", tmp_path, pairing="none")
    boxes = {defect.type: tuple(value * SIDE for value in defect.box) for defect in part.defects}
    assert boxes["hole"] == pytest.approx((12, 12, 36, 36))
    assert boxes["cut"] == pytest.approx((10, 2, 40, 8))
    assert boxes["edge"] == pytest.approx((0, 40, 6, 48))


@pytest.mark.parametrize("tree", ["ad_pl"], indirect=True)
def test_ad_pl_by_hand(tree: Tree) -> None:
    parts = by_name(parts_of("ad_pl", tree.root))
    assert {(part.dataset, part.split) for part in parts.values()} >= {("mpdd", "test"), ("mvtec", "train")}
    part = parts["MPDD/tubes/test/scratches/001/defect_identification"]
    assert part.level == "defect_identification" and len(part.questions) == 5
    assert part.reference == tree.root / "MPDD/tubes/train/good/001.png"
    assert part.defects[0].type == "scratch" and part.defects[0].box == pytest.approx(HIT)
    assert [question.verdict for question in part.questions] == [True, False, True, False, True]
    assert part.questions[1].answers == ("No, it is 1 one.", "No, it may be 1 two.", "No, three.", "Yes, four.")
    chinese = by_name(parts_of("ad_pl", tree.root, language="zh"))[part.name].questions[1]
    assert chinese.answers == ("不是，第0句。", "不是，第1句。", "不是，第2句。", "是的，第3句。")
    assert (chinese.question, chinese.verdict) == ("问1", False)


@pytest.mark.parametrize("tree", ["manta"], indirect=True)
def test_manta_by_hand(tree: Tree) -> None:
    parts = by_name(parts_of("manta", tree.root))
    assert len(parts) == 12 and {part.split for part in parts.values()} == {"test"}
    good = parts["mechanics/gear/good/0002/defect_diagnosis"]
    assert good.defects == () and good.category == "gear"
    assert good.questions[0].answers == ("Yes. Tooth 0 was seen.", "No. Tooth 0 was seen.")
    assert good.questions[1].answers == ("No. Tooth 1 was seen.", "Yes. Tooth 1 was seen.")
    bad = parts["mechanics/gear/anomaly/0000/standard_comparison"]
    assert bad.defects[0].type == "anomaly" and bad.questions[0].answers[0] == "Yes. The gear was seen."
    assert good.questions[1].verdict is False
    chinese = by_name(parts_of("manta", tree.root, language="zh"))[good.name]
    assert chinese.questions[0].answers[0] == "Yes. 看到齿0。"


@pytest.mark.parametrize("tree", ["manta"], indirect=True)
def test_manta_views(tree: Tree) -> None:
    parts = parts_of("manta", tree.root, views="each", groups={"test": 2})
    assert len(parts) == 10 and {part.test.size for part in parts} == {(SIDE, SIDE)}
    whole = open_image(tree.root / "ImageData" / f"{parts[0].name.rsplit('/', 2)[0]}.png")
    joined = Image.new("RGB", whole.size)
    for number, part in enumerate(parts[:5]):
        joined.paste(part.test, (number * SIDE, 0))
    assert joined.tobytes() == whole.tobytes()


@pytest.mark.parametrize("tree", ["mmad"], indirect=True)
def test_mmad_by_hand(tree: Tree) -> None:
    parts = by_name(parts_of("mmad", tree.root))
    assert len(parts) == 16 and {part.category for part in parts.values()} == {"bottle"}
    name = "DS-MVTec/bottle/image/broken_large/001"
    (asked,) = parts[f"{name}/standard_comparison"].questions
    assert asked.verdict is True and asked.answers == ("Yes.", "No.")
    assert (asked.choice, asked.options) == ("A", {"A": "Yes.", "B": "No."})
    part = parts[f"{name}/defect_identification"]
    (asked,) = part.questions
    assert asked.question == "Where is it?\nA. At the top.\nB. Nowhere.\nC. On the left.\nD. On the right."
    assert asked.verdict is None
    assert (asked.choice, asked.type, asked.options["C"]) == ("C", "Defect Localization", "On the left.")
    assert asked.answers == ("C. On the left.", "A. At the top.", "B. Nowhere.", "D. On the right.")
    assert part.defects[0].type == "large break" and part.defects[0].box == pytest.approx(HIT)
    assert {part.reference.stem for part in parts.values()} == {"000"}
    assert {part.reference.stem for part in parts_of("mmad", tree.root, pairing="random")} == {"002", "003"}


def test_units_where_the_layout_tells_them(tmp_path: Path) -> None:
    units = {source: parts_of(source, grow(source, tmp_path / source).root) for source in ("mvtec", "manta", "mmad")}
    assert {part.unit for part in [*units["mvtec"], *units["mmad"]]} == {None}
    # Three questions' levels on each of four montages.
    assert {part.unit for part in units["manta"]} == {part.name.rpartition("/")[0] for part in units["manta"]}
    labelme = parts_of("labelme", grow("labelme", tmp_path / "labelme").root)
    assert len({part.unit for part in labelme}) == 5


def test_rows_by_hand(tmp_path: Path) -> None:
    tree = grow("datasets", tmp_path / "root")
    save_rows(tree, tree.rows)
    parts = by_name(parts_of("datasets", tree.root))
    assert {part.category for part in parts.values()} == {"plate"}
    assert parts["all_000001"].defects[0].box == pytest.approx(HIT)
    assert parts["all_000003"].defects[0].type == "discolouration"
    assert all(isinstance(part.test, Image.Image) and part.reference is not None for part in parts.values())
    # Of twelve good rows, half become references; each part has one that is none of the tests.
    shown = {part.test.tobytes() for part in parts.values()}
    assert all(part.reference.tobytes() not in shown for part in parts.values())


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        (datasets.ClassLabel(names=["ok", "bad"]), [0, 1]),
        (datasets.Value("bool"), [False, True]),
        (datasets.Value("int64"), [0, 2]),
    ],
)
def test_rows_with_splits_and_other_columns(tmp_path: Path, feature, values) -> None:
    rng = Tree(tmp_path, random.Random(1)).rng
    features = datasets.Features(photo=datasets.Image(), fault=feature)
    made = {
        split: datasets.Dataset.from_dict(
            {
                "photo": [{"bytes": image_bytes(picture(rng)), "path": None} for _ in range(6)],
                "fault": [values[number % 2] for number in range(6)],
            },
            features=features,
        )
        for split in ("train", "test")
    }
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "rows"))
    with pytest.raises(DataError, match="--columns image=NAME"):
        parts_of("datasets", tmp_path / "rows")
    columns = {"image": "photo", "label": "fault"}
    parts = parts_of("datasets", tmp_path / "rows", columns=columns, category="cap")
    assert {(part.split, part.category) for part in parts} == {("train", "cap"), ("test", "cap")}
    # Three of six are defective; of the three normal ones one is asked about and two are references.
    assert Counter(len(part.defects) for part in parts) == {1: 6, 0: 2}
    assert {defect.type for part in parts for defect in part.defects} == {"anomaly"}


@pytest.mark.parametrize("source", [*sorted(BUILDERS), "datasets"])
def test_built_and_clean(source: str, tmp_path: Path) -> None:
    tree = grow(source, tmp_path / "root")
    if source == "datasets":
        save_rows(tree, tree.rows)
    options = SourceOptions(root=tree.root, image_size=64 if source == "deep_pcb" else None, licence="CC0")
    build_dataset(open_source(source), options, tmp_path / "out/ad_pl")
    assert check_dataset(tmp_path / "out/ad_pl") == []
    data = read_ad_pl(tmp_path / "out/ad_pl")
    in_place = source not in ("deep_pcb", "datasets")
    assert data.info.image_root == ("../../root" if in_place else ".")
    assert (tmp_path / "out/ad_pl/images").exists() is not in_place
    assert set(data.info.sources.values()) == {data.info.licence} == {"CC0"}
    build_dataset(open_source(source), replace(options, seed=1), tmp_path / "copy", copy_images=True)
    assert check_dataset(tmp_path / "copy") == []
    assert read_ad_pl(tmp_path / "copy").info.image_root == "."


@pytest.mark.parametrize("source", ["ad_pl", "manta"])
def test_chinese_built_and_clean(source: str, tmp_path: Path) -> None:
    tree = grow(source, tmp_path / "root")
    rows = {}
    for language in ("en", "zh"):
        options = SourceOptions(root=tree.root, language=language)
        build_dataset(open_source(source), options, tmp_path / language)
        assert {finding.kind for finding in examine_dataset(tmp_path / language).findings} <= {"shape", "duplicate"}
        rows[language] = read_ad_pl(tmp_path / language).inspections
    for english, chinese in zip(rows["en"], rows["zh"], strict=True):
        assert english.model_copy(update={"questions": ()}) == chinese.model_copy(update={"questions": ()})
        for one, other in zip(english.questions, chinese.questions, strict=True):
            assert one.verdict is other.verdict and len(one.answers) == len(other.answers)
            texts = (other.question, *other.answers)
            assert all(any("\u4e00" <= letter <= "\u9fff" for letter in text) for text in texts)
            assert not any("\u4e00" <= letter <= "\u9fff" for text in (one.question, *one.answers) for letter in text)


@pytest.mark.parametrize("source", ["mvtec", "visa", "folder", "ad_pl"])
def test_endings_in_capitals(source: str, tmp_path: Path) -> None:
    tree = grow(source, tmp_path / "root")
    before = len(parts_of(source, tree.root))
    if source != "ad_pl":
        for path in [*tree.normal, *tree.defective]:
            if source != "visa":
                path.rename(path.with_suffix(path.suffix.upper()))
        for path in tree.mask_of.values():
            path.rename(path.with_suffix(".PNG"))
    assert len(parts_of(source, tree.root)) == before


@pytest.mark.parametrize("painted", ["before", "after"])
@pytest.mark.parametrize("source", FOLDERS)
def test_pictures_turned_by_exif(source: str, painted: str, tmp_path: Path) -> None:
    """A camera that lay on its side: the mask may be painted on the pixels as stored, or on the picture as shown."""
    tree = grow(source, tmp_path / "root")
    path = tree.defective[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    save(picture(tree.rng, 60, 40), path, exif=exif)
    # A box at the left of the stored picture is at the top of the shown one: (x, y) goes to (39 - y, x).
    stored = mask((60, 40), (0, 10, 6, 14))
    shown = stored.transpose(Image.Transpose.ROTATE_270)
    save(stored if painted == "before" else shown, tree.mask_of[path])
    part = next(part for part in parts_of(source, tree.root) if part.test == path)
    assert open_image(path).size == (40, 60)
    assert part.defects[0].box == pytest.approx((26 / 40, 0 / 60, 30 / 40, 6 / 60))


def test_pictures_of_16_bits(tmp_path: Path) -> None:
    tree = grow("mvtec", tmp_path / "root")
    path = tree.defective[0]
    pixels = Image.new("I;16", (SIDE, SIDE), 40000)
    pixels.putpixel((3, 3), 65535)
    save(pixels, path)
    build_dataset(open_source("mvtec"), SourceOptions(root=tree.root), tmp_path / "out")
    assert check_dataset(tmp_path / "out") == []
    assert open_image(path).getpixel((0, 0)) == (156, 156, 156)  # 40000 / 256


def test_parts_without_any_defect_are_refused(tmp_path: Path) -> None:
    tree = grow("folder", tmp_path / "root")
    for path in (*tree.defective, *tree.mask_of.values()):
        path.unlink()
    with pytest.raises(DataError, match=r"none of \d+ parts has a defect"):
        build_dataset(open_source("folder"), SourceOptions(root=tree.root, pairing="none"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
