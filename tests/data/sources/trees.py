"""Small generated trees in the exact layouts of the sources, and the lists of what a fault can be put into."""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image, ImageDraw

SIDE = 48
PAIR_TYPES = ("standard comparison", "defect identification", "defect diagnosis")
BOX = (10, 14, 22, 20)  # pixels of the defect in every mask: left, top, right and bottom, both exclusive


@dataclass
class Tree:
    """A root, and what faults may hit.

    `entries` are (JSON file, key) of entries that have an image of their own; taking one takes its image too.
    """

    root: Path
    rng: random.Random
    defective: list[Path] = field(default_factory=list)
    normal: list[Path] = field(default_factory=list)
    mask_of: dict[Path, Path] = field(default_factory=dict)
    entries: list[tuple[Path, Any, Path]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def take(self, kind: str) -> Any:
        """One of a list, which no later fault gets."""
        left: list[Any] = getattr(self, kind)
        return left.pop(self.rng.randrange(len(left)))


def picture(rng: random.Random, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """A part on a plain ground, different each time."""
    image = Image.new("RGB", (width, height), (20, 20, 24))
    colour = tuple(rng.randrange(90, 220) for _ in range(3))
    ImageDraw.Draw(image).ellipse((4, 4, width - 5, height - 5), fill=colour)
    noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 6, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(np.asarray(image) + noise)


def mask(size: tuple[int, int] = (SIDE, SIDE), box: tuple[int, int, int, int] = BOX) -> Image.Image:
    image = Image.new("L", size, 0)
    left, top, right, bottom = box
    ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=255)
    return image


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def mvtec(tree: Tree) -> None:
    """Two categories; one names its masks `000.png`, the other `000_mask.png`."""
    for category, suffix in (("screw", "_mask"), ("metal_nut", "")):
        base = tree.root / category
        for number in range(6):
            tree.normal.append(save(picture(tree.rng), base / f"train/good/{number:03d}.png"))
        for number in range(3):
            tree.normal.append(save(picture(tree.rng), base / f"test/good/{number:03d}.png"))
        for defect in ("scratch_head", "bent", "color"):
            for number in range(4):
                path = save(picture(tree.rng), base / f"test/{defect}/{number:03d}.png")
                tree.defective.append(path)
                tree.mask_of[path] = save(mask(), base / f"ground_truth/{defect}/{number:03d}{suffix}.png")


def visa(tree: Tree) -> None:
    lines = ["object,split,label,image,mask"]
    for category in ("candle", "pcb1"):
        base = tree.root / category
        labels = ["image,label,mask"]
        for number in range(8):
            path = save(picture(tree.rng), base / f"Data/Images/Normal/{number:04d}.JPG")
            tree.normal.append(path)
            relative = path.relative_to(tree.root).as_posix()
            labels.append(f"{relative},normal,")
            lines.append(f"{category},{'test' if number % 4 == 3 else 'train'},normal,{relative},")
        for number in range(6):
            path = save(picture(tree.rng), base / f"Data/Images/Anomaly/{number:03d}.JPG")
            tree.defective.append(path)
            tree.mask_of[path] = save(mask(), base / f"Data/Masks/Anomaly/{number:03d}.png")
            relative, own = (each.relative_to(tree.root).as_posix() for each in (path, tree.mask_of[path]))
            label = '"bent,scratch"' if number == 0 else "bent" if number % 2 else "melt"
            labels.append(f"{relative},{label},{own}")
            lines.append(f"{category},{'test' if number % 3 == 2 else 'train'},anomaly,{relative},{own}")
        (base / "image_anno.csv").write_text("\n".join(labels) + "\n", encoding="utf-8")
    for name in ("1cls", "2cls_highshot"):
        (tree.root / "split_csv").mkdir(exist_ok=True)
        own = [line.replace(",train,anomaly,", ",test,anomaly,") if name == "1cls" else line for line in lines]
        (tree.root / f"split_csv/{name}.csv").write_text("\n".join(own) + "\n", encoding="utf-8")


def folder(tree: Tree) -> None:
    for number in range(10):
        tree.normal.append(save(picture(tree.rng), tree.root / f"good/g{number}.jpg"))
    for defect in ("scratch", "Paint-Run"):
        for number in range(4):
            path = save(picture(tree.rng), tree.root / f"{defect}/d{number}.JPG")
            tree.defective.append(path)
            tree.mask_of[path] = save(mask(), tree.root / f"masks/{defect}/d{number}.png")


def labelme(tree: Tree) -> None:
    for place in range(5):
        for number in range(4):
            stem = f"01_20090{number + 1}120000_{place}00000_090_crop_2"
            path = save(picture(tree.rng), tree.root / f"data/{stem}.jpg")
            if number < 2:
                tree.normal.append(path)
                continue
            left, top, right, bottom = BOX
            points = [[left, top], [right, top], [right, bottom], [left, bottom]]
            annotation = {
                "shapes": [{"label": "Pitting", "shape_type": "polygon", "points": points}],
                "imagePath": path.name,
                "imageWidth": SIDE,
                "imageHeight": SIDE,
            }
            tree.entries.append((write_json(tree.root / f"label/{stem}.json", annotation), None, path))


def _answers(verdict: bool, number: int) -> list[dict[str, str]]:
    right, wrong = ("Yes", "No") if verdict else ("No", "Yes")
    words = [
        f"{right}, it is {number} one.",
        f"{right}, it may be {number} two.",
        f"{right}, three.",
        f"{wrong}, four.",
    ]
    chinese = {"Yes": "是的", "No": "不是"}
    return [
        {"answer_en": text, "answer_cn": f"{chinese[text.partition(',')[0]]}，第{index}句。"}
        for index, text in enumerate(words)
    ]


def ad_pl(tree: Tree) -> None:
    for dataset, category in (("MPDD", "tubes"), ("MVTec", "screw")):
        base = tree.root / dataset / category
        good = [save(picture(tree.rng), base / f"train/good/{number:03d}.png") for number in range(4)]
        entries = []
        path = base / f"{category}_fixed.json"
        for number in range(6):
            is_good = number % 3 == 2
            name = f"test/{'good' if is_good else 'scratches'}/{number:03d}.png"
            image = save(picture(tree.rng), base / name)
            if not is_good:
                save(mask(), base / f"ground_truth/scratches/{number:03d}_mask.png")
            asked = [
                {"question_en": f"Is it {n}?", "question_cn": f"问{n}", "answer_options": _answers(n % 2 == 0, n)}
                for n in range(5)
            ]
            reference = good[number % 4].relative_to(tree.root).as_posix()
            entries.append(
                {
                    "test_image": image.relative_to(tree.root).as_posix(),
                    "reference_image": reference,
                    "pair_type": PAIR_TYPES[number % 3],
                    "question_answer": asked,
                }
            )
            tree.entries.append((path, number, image))
        write_json(path, entries)


def manta(tree: Tree) -> None:
    for domain in ("mechanics", "medicine"):
        path = tree.root / f"JsonData/{domain}_QA.json"
        entries = []
        for number in range(6):
            name = f"gear/{'good' if number % 3 == 2 else 'anomaly'}/{number:04d}.png"
            image = save(picture(tree.rng, 5 * SIDE, SIDE), tree.root / "ImageData" / domain / name)
            asked = [
                {
                    "question_en": f"Is tooth {n} worn?",
                    "question_cn": f"齿{n}?",
                    "answer": n % 2 == 0,
                    "conclusion_en": f"Tooth {n} was seen." if number % 3 == 2 else "",
                    "conclusion_cn": f"看到齿{n}。",
                }
                for n in range(5)
            ]
            entries.append(
                {
                    "domain": domain,
                    "test_image": name,
                    "pair_type": PAIR_TYPES[number % 3],
                    "conclusion_en": "The gear was seen.",
                    "question_answer": asked,
                }
            )
            tree.entries.append((path, number, image))
        write_json(path, entries)


def mmad(tree: Tree) -> None:
    content: dict[str, Any] = {}
    path = tree.root / "mmad.json"
    good = [save(picture(tree.rng), tree.root / f"MVTec-AD/bottle/train/good/{number:03d}.png") for number in range(4)]
    templates = [each.relative_to(tree.root).as_posix() for each in good]
    for number in range(8):
        is_good = number % 4 == 3
        kind = "good" if is_good else "broken_large"
        image = save(picture(tree.rng), tree.root / f"DS-MVTec/bottle/image/{kind}/{number:03d}.png")
        key = image.relative_to(tree.root).as_posix()
        content[key] = {
            "conversation": [
                {
                    "Question": "Is there any defect in the object?",
                    "Answer": "B" if is_good else "A",
                    "Options": {"A": "Yes.", "B": "No."},
                    "type": "Anomaly Detection",
                    "annotation": True,
                },
                {
                    "Question": "Where is it?",
                    "Answer": "C",
                    "Options": {"A": "At the top.", "B": "Nowhere.", "C": "On the left.", "D": "On the right."},
                    "type": "Defect Localization",
                    "annotation": True,
                },
            ],
            "mask_path": "",
            "similar_templates": templates[:2],
            "random_templates": templates[2:],
        }
        if not is_good:
            own = save(mask(), tree.root / f"DS-MVTec/bottle/mask/{kind}/{number:03d}.png")
            tree.mask_of[image] = own
            content[key]["mask_path"] = f"mask/{kind}/{number:03d}.png"
        tree.entries.append((path, key, image))
    write_json(path, content)


def deep_pcb(tree: Tree) -> None:
    for board in "ABC":
        for number in range(3):
            base = tree.root / f"PCBData/group{board}/{board}"
            pixels = np.where(np.random.default_rng(tree.rng.randrange(2**32)).random((24, 24)) < 0.3, 30, 220)
            good = Image.fromarray(pixels.astype(np.uint8)).resize((192, 192), Image.Resampling.NEAREST)
            save(good, base / f"{board}{number}_temp.jpg")
            test = good.copy()
            ImageDraw.Draw(test).rectangle((80, 90, 95, 105), fill=128)
            path = save(test, base / f"{board}{number}_test.jpg")
            annotation = tree.root / f"PCBData/group{board}/{board}_not/{board}{number}.txt"
            annotation.parent.mkdir(exist_ok=True)
            annotation.write_text(f"80 90 96 106 {1 + number}\n20 20 30 30 4\n", encoding="utf-8")
            tree.defective.append(path)


def image_bytes(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def rows(tree: Tree) -> None:
    """Rows in memory; `save_rows` writes them once a fault is in."""
    for number in range(24):
        label = ("good", "scratch", "good", "color")[number % 4]
        tree.rows.append(
            {
                "image": {"bytes": image_bytes(picture(tree.rng)), "path": None},
                "label": label,
                "mask": None if label == "good" else {"bytes": image_bytes(mask()), "path": None},
                "category": "plate",
            }
        )


def save_rows(tree: Tree, values: list[dict[str, Any]]) -> None:
    kind = datasets.Image(decode=False)
    features = datasets.Features(
        image=kind, label=datasets.Value("string"), mask=kind, category=datasets.Value("string")
    )
    made = datasets.Dataset.from_list(values, features=features)
    decoding = made.cast_column("image", datasets.Image()).cast_column("mask", datasets.Image())
    decoding.save_to_disk(str(tree.root))


BUILDERS = {
    "ad_pl": ad_pl,
    "deep_pcb": deep_pcb,
    "folder": folder,
    "labelme": labelme,
    "manta": manta,
    "mmad": mmad,
    "mpdd": mvtec,
    "mvtec": mvtec,
    "visa": visa,
}


def grow(source: str, root: Path, seed: int = 0) -> Tree:
    """A whole tree of a source below `root`."""
    root.mkdir(parents=True, exist_ok=True)
    tree = Tree(root, random.Random(f"{source} {seed}"))
    if source == "datasets":
        rows(tree)
    else:
        BUILDERS[source](tree)
    return tree
