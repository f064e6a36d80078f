"""Faults known from the field, put into every source: none silent, none a traceback, all of them in one report."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from sage_trl.data.sources import SOURCES, SourceOptions, open_source
from sage_trl.errors import DataError
from tests.conftest import REPOSITORY
from tests.data.sources.faults import LOCAL, WHOLE
from tests.data.sources.trees import Tree, grow, save_rows
from tests.warm import run_warm

KINDS = {source: {**faults, **WHOLE.get(source, {})} for source, faults in LOCAL.items()}
CASES = [(source, kind) for source, kinds in sorted(KINDS.items()) for kind in kinds]


def report(source: str, tree: Tree) -> str:
    """What building from the tree says; it must refuse."""
    if source == "datasets":
        save_rows(tree, tree.rows)
    with pytest.raises(DataError) as caught:
        list(open_source(source).parts(SourceOptions(root=tree.root, image_size=64 if source == "deep_pcb" else None)))
    return str(caught.value)


def test_every_source_with_files_has_twelve_kinds_of_fault() -> None:
    assert set(KINDS) == set(SOURCES) - {"synthetic"}
    assert min(len(kinds) for kinds in KINDS.values()) >= 12


def check_one(source: str, kind: str, folder: Path, seed: int) -> None:
    tree = grow(source, folder / "root", seed)
    named = KINDS[source][kind](tree)
    said = report(source, tree)
    assert named in said, (source, kind, seed, named, said)
    assert "\n  remedy: " in said


def check_several(source: str, folder: Path, seed: int) -> None:
    """Four different faults in one tree: a report names them all."""
    tree = grow(source, folder / "root", seed)
    kinds = random.Random(f"{source} {seed}").sample(sorted(LOCAL[source]), 4)
    # What breaks a whole file comes last, and what follows in that file cannot be seen.
    kinds.sort(key=lambda kind: kind.startswith("json_"))
    named = [LOCAL[source][kind](tree) for kind in kinds]
    said = report(source, tree)
    assert all(one in said for one in named), (source, kinds, seed, named, said)
    assert said.count("remedy: ") >= len(set(named))


@pytest.mark.parametrize(("source", "kind"), CASES)
def test_a_fault_is_reported(source: str, kind: str, tmp_path: Path) -> None:
    check_one(source, kind, tmp_path, seed=0)


@pytest.mark.parametrize("source", sorted(LOCAL))
def test_all_faults_of_a_root_are_in_one_report(source: str, tmp_path: Path) -> None:
    check_several(source, tmp_path, seed=0)


@pytest.mark.soak
@pytest.mark.parametrize(("source", "kind"), CASES)
def test_a_fault_is_reported_with_any_seed(source: str, kind: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for seed in range(20):
        with subtests.test(seed=seed):
            check_one(source, kind, tmp_path / str(seed), seed)


@pytest.mark.soak
@pytest.mark.parametrize("source", sorted(LOCAL))
def test_all_faults_are_in_one_report_with_any_seed(source: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for seed in range(20):
        with subtests.test(seed=seed):
            check_several(source, tmp_path / str(seed), seed)


@pytest.mark.parametrize("source", ["mvtec", "ad_pl"])
def test_through_the_command_line(source: str, tmp_path: Path) -> None:
    tree = grow(source, tmp_path / "root")
    named = [LOCAL[source][kind](tree) for kind in ("truncated", "no_bytes", "bomb")]
    tool = [sys.executable, str(REPOSITORY / "tools/build_dataset.py"), "--source", source]
    command = [*tool, "--root", str(tree.root), "--output", str(tmp_path / "out")]
    result = run_warm(command)
    assert result.returncode == 2, result.stderr
    assert "error: 3 faults in " in result.stderr and "Traceback" not in result.stderr
    assert all(one in result.stderr for one in named)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", sorted(LOCAL))
def test_a_root_that_is_not_there(source: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="remedy: "):
        list(open_source(source).parts(SourceOptions(root=tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="remedy: "):
        list(open_source(source).parts(SourceOptions(root=tmp_path / "empty")))
    with pytest.raises(DataError, match="--root"):
        list(open_source(source).parts(SourceOptions()))
