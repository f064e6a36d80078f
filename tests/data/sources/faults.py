"""Kinds of fault that trees meet in the field: each damages one place and returns what a report must name."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data.sources.trees import SIDE, Tree, image_bytes, mask, picture, save

Fault = Callable[[Tree], str]


def _image(tree: Tree) -> Path:
    """An image that the source reads, and that no other fault gets."""
    lists = [name for name in ("defective", "normal") if getattr(tree, name)]
    if lists:
        return Path(tree.take(tree.rng.choice(lists)))
    return Path(tree.take("entries")[2])


def _huge_png() -> bytes:
    """A PNG whose header says 9000x9000 pixels."""
    content = bytearray(image_bytes(Image.new("L", (8, 8))))
    content[16:24] = struct.pack(">II", 9000, 9000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return bytes(content)


def truncated(tree: Tree) -> str:
    path = _image(tree)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * tree.rng.randrange(20, 80) // 100])
    return path.name


def text_as_image(tree: Tree) -> str:
    path = _image(tree)
    path.write_text("<html>404 not found</html>", encoding="utf-8")
    return path.name


def no_bytes(tree: Tree) -> str:
    path = _image(tree)
    path.write_bytes(b"")
    return path.name


def bomb(tree: Tree) -> str:
    path = _image(tree)
    path.write_bytes(_huge_png())
    return path.name


def unknown_range(tree: Tree) -> str:
    path = _image(tree)
    Image.fromarray(np.ones((SIDE, SIDE), dtype=np.float32)).save(path, format="TIFF")
    return path.name


def link_out(tree: Tree) -> str:
    path = _image(tree)
    outside = tree.root.parent / f"outside_{path.parent.name}_{path.name}"
    shutil.move(path, outside)
    path.symlink_to(outside)
    return path.name


# Faults of trees with masks.


def mask_missing(tree: Tree) -> str:
    path = tree.take("defective")
    tree.mask_of[path].unlink()
    return str(path.name)


def mask_surplus(tree: Tree) -> str:
    path = tree.mask_of[tree.take("defective")]
    return save(mask(), path.with_name(f"extra{tree.rng.randrange(1000)}.png")).name


def mask_renamed(tree: Tree) -> str:
    path = tree.mask_of[tree.take("defective")]
    return path.rename(path.with_name(f"x{path.name}")).name


def mask_empty(tree: Tree) -> str:
    path = tree.mask_of[tree.take("defective")]
    save(Image.new("L", (SIDE, SIDE), 0), path)
    return path.name


def mask_of_other_size(tree: Tree) -> str:
    path = tree.mask_of[tree.take("defective")]
    save(mask((SIDE, SIDE // 2), (4, 4, 9, 9)), path)
    return path.name


def mask_unreadable(tree: Tree) -> str:
    path = tree.mask_of[tree.take("defective")]
    path.write_bytes(path.read_bytes()[:40])
    return path.name


def wrong_class_folder(tree: Tree) -> str:
    """A defective picture copied among the good ones."""
    good = tree.take("normal")
    shutil.copyfile(tree.take("defective"), good)
    return str(good.name)


def no_image_file(tree: Tree) -> str:
    path = _image(tree)
    other = path.with_name("notes.docx")
    other.write_text("?", encoding="utf-8")
    return other.name


def two_endings(tree: Tree) -> str:
    path = _image(tree)
    return save(picture(tree.rng), path.with_suffix(".bmp")).name


def _folder_with_image(tree: Tree, folder: Path) -> str:
    save(picture(tree.rng), folder / "000.png")
    return f"{folder}: "


def folder_among_images(tree: Tree) -> str:
    return _folder_with_image(tree, _image(tree).parent / "more")


def other_folder(tree: Tree) -> str:
    """Beside the categories."""
    _folder_with_image(tree, tree.root / "spare/images")
    return f"{tree.root / 'spare'}: "


def other_folder_of_category(tree: Tree) -> str:
    return _folder_with_image(tree, tree.root / "screw/validation")


def other_folder_of_images(tree: Tree) -> str:
    return _folder_with_image(tree, tree.root / "candle/Data/Images/Unsure")


def loose_image(tree: Tree) -> str:
    return f"{save(picture(tree.rng), tree.root / 'loose.JPG')}: "


def loose_test_image(tree: Tree) -> str:
    return f"{save(picture(tree.rng), tree.root / 'screw/test/loose.png')}: "


def masks_without_folder(tree: Tree) -> str:
    path = tree.mask_of[tree.take("defective")].parent
    return shutil.copytree(path, path.with_name("ghost")).name


def category_without_good(tree: Tree) -> str:
    path = tree.take("normal")
    part = next(parent for parent in path.parents if (parent / "train/good").is_dir())
    shutil.rmtree(part / "train/good")
    return "train/good"


# Faults of tables.


def _change_lines(path: Path, change: Callable[[list[str]], None]) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _visa_table(tree: Tree) -> Path:
    return tree.root / tree.rng.choice(("candle", "pcb1")) / "image_anno.csv"


def visa_label(tree: Tree) -> str:
    path, line = _visa_table(tree), tree.rng.randrange(1, 9)
    _change_lines(path, lambda lines: lines.__setitem__(line, lines[line].replace("normal", "melt")))
    return f"{path}:{line + 1}: "


def visa_unlisted(tree: Tree) -> str:
    path = tree.take("normal")
    _change_lines(
        path.parents[3] / "image_anno.csv",
        lambda lines: lines.__setitem__(slice(None), [line for line in lines if f"Normal/{path.name}" not in line]),
    )
    return str(path)


def visa_ghost(tree: Tree) -> str:
    path = _visa_table(tree)
    _change_lines(path, lambda lines: lines.append("candle/Data/Images/Normal/9999.JPG,normal,"))
    return "9999.JPG"


def visa_fields(tree: Tree) -> str:
    path, line = _visa_table(tree), tree.rng.randrange(1, 9)
    _change_lines(path, lambda lines: lines.__setitem__(line, "only"))
    return f"{path}:{line + 1}: "


def visa_split(tree: Tree) -> str:
    path, line = tree.root / "split_csv/2cls_highshot.csv", tree.rng.randrange(1, 9)
    _change_lines(
        path, lambda lines: lines.__setitem__(line, lines[line].replace("train", "trian").replace("test", "x"))
    )
    return f"{path}:{line + 1}: "


def visa_no_table(tree: Tree) -> str:
    path = _visa_table(tree)
    path.unlink()
    return str(path)


def pcb_line(tree: Tree) -> str:
    test = tree.take("defective")
    path = test.parent.with_name(f"{test.parent.name}_not") / f"{test.name.removesuffix('_test.jpg')}.txt"
    bad = ("80 90 96", "80 90 x 106 1", "96 90 80 106 1", "80 90 96 106 7", "80 90 960 106 1")
    with path.open("a", encoding="utf-8") as stream:
        stream.write(tree.rng.choice(bad) + "\n")
    return f"{path}:3: "


def pcb_number(tree: Tree) -> str:
    test = tree.take("defective")
    path = test.parent.with_name(f"{test.parent.name}_not") / f"{test.name.removesuffix('_test.jpg')}.txt"
    path.write_text("80 90 96 106 0\n", encoding="utf-8")
    return f"{path}:1: "


def pcb_no_reference(tree: Tree) -> str:
    path = tree.take("defective")
    other = path.with_name(path.name.replace("_test", "_temp"))
    other.unlink()
    return str(other.name)


def pcb_no_test(tree: Tree) -> str:
    path = tree.take("defective")
    path.unlink()
    return str(path.name.replace("_test", "_temp"))


def pcb_no_annotation(tree: Tree) -> str:
    test = tree.take("defective")
    path = test.parent.with_name(f"{test.parent.name}_not") / f"{test.name.removesuffix('_test.jpg')}.txt"
    path.unlink()
    return path.name


def pcb_empty_annotation(tree: Tree) -> str:
    test = tree.take("defective")
    path = test.parent.with_name(f"{test.parent.name}_not") / f"{test.name.removesuffix('_test.jpg')}.txt"
    path.write_bytes(b"" if tree.rng.random() < 0.5 else b"\xff\xfe 80 90")
    return path.name


def pcb_size(tree: Tree) -> str:
    path = tree.take("defective")
    other = path.with_name(path.name.replace("_test", "_temp"))
    save(picture(tree.rng, 150, 150), other)
    return str(other.name)


# Faults of JSON files.


def _change_entry(tree: Tree, change: Callable[[Any], str]) -> str:
    """Change one entry of a JSON file; returns the file and the entry's field that a report must name."""
    path, key, _ = tree.take("entries")
    content = json.loads(path.read_text(encoding="utf-8"))
    part = change(content if key is None else content[key])
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    place = f"[{key}]" if isinstance(key, int) else key or ""
    return f"{path}: field '{place}{'.' if place and part else ''}{part}"


def _set(*steps: Any, value: Any = None, remove: bool = False) -> Fault:
    """A fault that sets a field of an entry, or removes it."""

    def change(entry: Any) -> str:
        inner = entry
        for step in steps[:-1]:
            inner = inner[step]
        if remove:
            del inner[steps[-1]]
        else:
            inner[steps[-1]] = value
        return ".".join(map(str, steps))

    return lambda tree: _change_entry(tree, change)


def _inside(fault: Fault, end: str) -> Fault:
    """The fault, when a report names only the field around it."""

    def inject(tree: Tree) -> str:
        return fault(tree).removesuffix(end)

    return inject


def json_cut(tree: Tree) -> str:
    path, _, _ = tree.take("entries")
    path.write_text(path.read_text(encoding="utf-8")[:-7], encoding="utf-8")
    return str(path)


def json_not_utf8(tree: Tree) -> str:
    path, _, _ = tree.take("entries")
    path.write_bytes(b'\xff\xfe{"a": "\xe9"}')
    return str(path)


def json_other_type(tree: Tree) -> str:
    path, _, _ = tree.take("entries")
    path.write_text(tree.rng.choice(("3", '"text"', "[]", "null", "[1]")), encoding="utf-8")
    return str(path)


def entry_twice(tree: Tree) -> str:
    path, key, image = tree.take("entries")
    content = json.loads(path.read_text(encoding="utf-8"))
    content.append(content[key])
    path.write_text(json.dumps(content), encoding="utf-8")
    return f"/{image.stem}/"


def no_image(tree: Tree) -> str:
    path = tree.take("entries")[2]
    path.unlink()
    return str(path.name if path.suffix != ".jpg" else path.stem)


def entry_mask_empty(tree: Tree) -> str:
    """Of an entry that has a mask."""
    tree.entries.sort(key=lambda entry: entry[2] in tree.mask_of)
    path = tree.mask_of[tree.entries.pop()[2]]
    save(Image.new("L", (SIDE, SIDE), 0), path)
    return path.name


def wide_annotation(tree: Tree) -> str:
    return _set("imageWidth", value=999)(tree)


# Faults of rows; a row is named by its number.


def _row(tree: Tree, change: Callable[[dict[str, Any]], None], label: str | None = None) -> str:
    left = [n for n in range(len(tree.rows)) if label is None or tree.rows[n]["label"] == label]
    left = [n for n in left if n not in tree.__dict__.setdefault("taken", set())]
    number = tree.rng.choice(left)
    tree.__dict__["taken"].add(number)
    change(tree.rows[number])
    return f"[{number}]"


def _row_image(content: bytes | None) -> Fault:
    value = None if content is None else {"bytes": content, "path": None}
    return lambda tree: _row(tree, lambda row: row.__setitem__("image", value))


def _row_mask(content: bytes | None) -> Fault:
    value = None if content is None else {"bytes": content, "path": None}
    return lambda tree: _row(tree, lambda row: row.__setitem__("mask", value), "scratch")


def row_truncated(tree: Tree) -> str:
    return _row_image(image_bytes(picture(tree.rng))[:500])(tree)


def row_same_picture(tree: Tree) -> str:
    tree.__dict__.setdefault("taken", set()).update((0, 1))
    tree.rows[1]["image"] = tree.rows[0]["image"]
    return "[1]"


IMAGE_FAULTS = {f.__name__: f for f in (truncated, text_as_image, no_bytes, bomb, unknown_range, link_out)}
MASK_FAULTS = {
    f.__name__: f
    for f in (
        mask_missing,
        mask_surplus,
        mask_renamed,
        mask_empty,
        mask_of_other_size,
        mask_unreadable,
        wrong_class_folder,
        no_image_file,
        two_endings,
    )
}
ENTRY_FAULTS = {
    "no_level": _set("pair_type", remove=True),
    "unknown_level": _set("pair_type", value="defect guessing"),
    "no_questions": _set("question_answer", value=[]),
    "no_question_text": _set("question_answer", 2, "question_en", value=""),
    "image_not_there": _set("test_image", value="gear/nowhere.png"),
    "image_leaves_root": _set("test_image", value="../../../etc/passwd"),
    "image_is_url": _set("test_image", value="https://example.org/a.png"),
    "image_is_no_text": _set("test_image", value=7),
    "entry_twice": entry_twice,
}
WHOLE_FILE_FAULTS = {"json_cut": json_cut, "json_not_utf8": json_not_utf8, "json_other_type": json_other_type}

# Faults that leave the rest of the tree as it is, so that several can be found in one run, and those that do not.
LOCAL: dict[str, dict[str, Fault]] = {
    "mvtec": {
        **IMAGE_FAULTS,
        **MASK_FAULTS,
        "masks_without_folder": masks_without_folder,
        "folder_among_images": folder_among_images,
        "other_folder": other_folder,
        "other_folder_of_category": other_folder_of_category,
        "loose_test_image": loose_test_image,
    },
    "visa": {
        **IMAGE_FAULTS,
        **MASK_FAULTS,
        "visa_unlisted": visa_unlisted,
        "visa_ghost": visa_ghost,
        "folder_among_images": folder_among_images,
        "other_folder": other_folder,
        "other_folder_of_images": other_folder_of_images,
    },
    "folder": {
        **IMAGE_FAULTS,
        **MASK_FAULTS,
        "masks_without_folder": masks_without_folder,
        "folder_among_images": folder_among_images,
        "loose_image": loose_image,
    },
    "deep_pcb": {
        **IMAGE_FAULTS,
        "pcb_line": pcb_line,
        "pcb_number": pcb_number,
        "pcb_no_reference": pcb_no_reference,
        "pcb_no_test": pcb_no_test,
        "pcb_no_annotation": pcb_no_annotation,
        "pcb_empty_annotation": pcb_empty_annotation,
        "pcb_size": pcb_size,
    },
    "labelme": {
        **IMAGE_FAULTS,
        **WHOLE_FILE_FAULTS,
        "no_image": no_image,
        "no_shapes": _set("shapes", remove=True),
        "no_label": _set("shapes", 0, "label", value=""),
        "one_point": _set("shapes", 0, "points", value=[[3, 4]]),
        "no_area": _set("shapes", 0, "points", value=[[3, 4], [3, 4], [3, 4]]),
        "outside": _set("shapes", 0, "points", value=[[900, 900], [950, 900], [950, 950]]),
        "no_number": _inside(_set("shapes", 0, "points", value=[["a", 4], [5, 9], [9, 9]]), ""),
        "wide_annotation": wide_annotation,
    },
    "ad_pl": {
        **IMAGE_FAULTS,
        **ENTRY_FAULTS,
        "one_answer": _set("question_answer", 1, "answer_options", value=[{"answer_en": "Yes.", "answer_cn": ""}]),
        "same_answers": _set("question_answer", 1, "answer_options", value=[{"answer_en": "Yes."}] * 4),
    },
    "manta": {
        **IMAGE_FAULTS,
        **ENTRY_FAULTS,
        "no_answer": _set("question_answer", 1, "answer", remove=True),
        "odd_answer": _set("question_answer", 1, "answer", value="perhaps"),
    },
    "mmad": {
        **IMAGE_FAULTS,
        "mask_empty": entry_mask_empty,
        "no_conversation": _set("conversation", value=[]),
        "no_such_option": _inside(_set("conversation", 0, "Answer", value="Z"), ".Answer"),
        "one_option": _inside(_set("conversation", 0, "Options", value={"A": "Yes."}), ".Options"),
        "unknown_type": _inside(_set("conversation", 0, "type", value="Guess"), ".type"),
        "no_question_text": _set("conversation", 1, "Question", value=" "),
        "mask_not_there": _set("mask_path", value="mask/none.png"),
        "template_not_there": _inside(_set("similar_templates", value=["a/b.png"]), ""),
        "template_is_url": _inside(_set("similar_templates", value=["http://example.org/b.png"]), ""),
        "no_image": no_image,
    },
    "datasets": {
        "row_truncated": row_truncated,
        "row_text": _row_image(b"<html>"),
        "row_no_bytes": _row_image(b""),
        "row_bomb": _row_image(_huge_png()),
        "row_no_image": _row_image(None),
        "row_mask_truncated": _row_mask(image_bytes(mask())[:60]),
        "row_mask_missing": _row_mask(None),
        "row_mask_empty": _row_mask(image_bytes(Image.new("L", (SIDE, SIDE)))),
        "row_mask_size": _row_mask(image_bytes(mask((20, 20), (2, 2, 9, 9)))),
        "row_mask_text": _row_mask(b"mask"),
        "row_same_picture": row_same_picture,
        "row_good_mask": lambda tree: _row(tree, lambda row: row.__setitem__("label", "stain"), "good"),
    },
}
LOCAL["mpdd"] = LOCAL["mvtec"]
WHOLE: dict[str, dict[str, Fault]] = {
    "mvtec": {"category_without_good": category_without_good},
    "mpdd": {"category_without_good": category_without_good},
    "visa": {
        "visa_label": visa_label,
        "visa_fields": visa_fields,
        "visa_split": visa_split,
        "visa_no_table": visa_no_table,
    },
    "ad_pl": WHOLE_FILE_FAULTS,
    "manta": WHOLE_FILE_FAULTS,
    "mmad": WHOLE_FILE_FAULTS,
}
