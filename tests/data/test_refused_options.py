"""Options and names that no dataset can be made of: refused with a remedy, and nothing written or lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sage_trl.data.building import build_dataset
from sage_trl.data.sources import SourceOptions, open_source
from sage_trl.data.validation import examine_dataset
from sage_trl.errors import DataError
from sage_trl.storage import read_json, write_json
from tests.conftest import REPOSITORY
from tests.data.sources.trees import grow
from tests.evaluation.small_ad_pl import write_small_ad_pl
from tests.warm import run_warm


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split_shares": {"train": float("nan")}}, "do not add up to 1"),
        ({"split_shares": {"../../out": 1.0}}, "is no name"),
        ({"split_shares": {"": 1.0}}, "is no name"),
        ({"category": "  "}, "category '  ' is no name"),
        ({"licence": "\x1b[31m"}, "licence '\\x1b[31m' is no name"),
    ],
)
def test_options_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(DataError) as caught:
        SourceOptions(**options)
    assert said in str(caught.value) and "remedy: " in str(caught.value)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("synthetic", {"split_shares": {"train": 1.0}}, "--split-shares means nothing to source 'synthetic'"),
        ("synthetic", {"image_size": 0}, "image size 0 is out of range"),
        ("mvtec", {"views": "each"}, "--views means nothing to source 'mvtec'"),
        ("mvtec", {"defective_share": 0.2}, "--defective-share means nothing to source 'mvtec'"),
        ("mpdd", {"defective_share": 0.2}, "--defective-share means nothing to source 'mpdd'"),
        ("visa", {"language": "zh"}, "--language means nothing to source 'visa'"),
        ("ad_pl", {"defective_share": 0.5}, "--defective-share means nothing to source 'ad_pl'"),
        ("manta", {"pairing": "nearest"}, "use one of given, none"),
    ],
)
def test_options_that_would_do_nothing(source: str, options: dict[str, object], said: str, tmp_path: Path) -> None:
    root = None if source == "synthetic" else grow(source, tmp_path / "root").root
    with pytest.raises(DataError) as caught:
        build_dataset(open_source(source), SourceOptions(root=root, **options), tmp_path / "out")
    assert said in str(caught.value) and "remedy: " in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "name", "said"), [("folder", b"\xe9.jpg", "no UTF-8"), ("labelme", b"../C:\\a.jpg", "absolute")]
)
def test_names_of_files_that_no_dataset_can_hold(source: str, name: bytes, said: str, tmp_path: Path) -> None:
    tree = grow(source, tmp_path / "root")
    path, other = tree.normal[0], tree.normal[1]
    path.rename(path.parent / os.fsdecode(name))
    other.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        list(open_source(source).parts(SourceOptions(root=tree.root)))
    assert said in str(caught.value) and other.name in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize(("folder", "said"), [("__", "has no name for a defect"), ("<image>", "<image> stands for")])
def test_folders_without_a_word(folder: str, said: str, tmp_path: Path) -> None:
    tree = grow("folder", tmp_path / "root")
    (tree.root / "scratch").rename(tree.root / folder)
    (tree.root / "masks/scratch").rename(tree.root / "masks" / folder)
    with pytest.raises(DataError, match=said):
        list(open_source("folder").parts(SourceOptions(root=tree.root)))


def test_a_dataset_never_replaces_its_own_source(tmp_path: Path) -> None:
    root = write_small_ad_pl(tmp_path / "data")
    tree = grow("folder", root / "photos")
    with pytest.raises(DataError, match="holds the source's files"):
        build_dataset(open_source("folder"), SourceOptions(root=tree.root), root, force=True)
    assert all(path.is_file() for path in tree.normal)


def test_an_image_root_that_is_no_path(tmp_path: Path) -> None:
    root = write_small_ad_pl(tmp_path / "data")
    info = read_json(root / "dataset.json")
    write_json(root / "dataset.json", {**info, "image_root": "a\0b"})
    found = examine_dataset(root).errors
    assert [(one.kind, one.field) for one in found if one.kind == "path"] == [("path", "image_root")]


def run(tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_warm([sys.executable, REPOSITORY / "tools" / tool, *arguments])


def test_command_lines_are_refused(tmp_path: Path) -> None:
    data = write_small_ad_pl(tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    (tmp_path / "file").touch()
    build = ("build_dataset.py", "--source", "synthetic", "--output")
    for command, said in (
        ((*build, tmp_path / "out", "--groups", "train=4", "train=5"), "a name occurs twice"),
        ((*build, tmp_path / "out", "--groups", "train=²"), "is not SPLIT=NUMBER"),
        ((*build, tmp_path / "file" / "out", "--groups", "train=4"), "file"),
        ((*build, tmp_path / ("x" * 300), "--groups", "train=4"), "File name too long"),
        (("build_dataset.py", "--stats", data, "--output", tmp_path / "file"), "file"),
        (("generate_facts.py", "--dataset", data, "--model", "template", "--output", tmp_path), "Is a directory"),
        (("generate_facts.py", "--dataset", data, "--model", "openai:", "--yes"), "the model has no name"),
        (("review.py", "--dataset", data, "--reviewer", " "), "--reviewer ' ' is no name"),
    ):
        result = run(*command)
        assert result.returncode == 2 and "Traceback" not in result.stderr, (command, result.stderr)
        assert said in result.stderr, (command, result.stderr)
    (tmp_path / "file").unlink()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path != tmp_path} == before


def test_questions_that_the_check_would_refuse_are_not_built(tmp_path: Path) -> None:
    tree = grow("mmad", tmp_path / "root")
    entries = read_json(tree.root / "mmad.json")
    first, second = list(entries)[:2]
    entries[first]["conversation"][0]["Question"] = "Is <image> all right?"
    entries[second]["conversation"][1]["Question"] = "Where is the <fact>?"
    write_json(tree.root / "mmad.json", entries)
    with pytest.raises(DataError) as caught:
        build_dataset(open_source("mmad"), SourceOptions(root=tree.root), tmp_path / "out")
    said = str(caught.value)
    assert said.startswith("2 faults in the questions") and said.count("remedy: remove it from the text") == 2
    assert f"group mmad/{Path(first).with_suffix('')}/standard_comparison: field 'questions.0.question'" in said
    assert not (tmp_path / "out").exists()
