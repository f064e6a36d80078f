"""Building a dataset again with `force`: what people did, and what was paid for, is still there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sage_trl.data.building import Built, build_dataset
from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.sources import SourceOptions, open_source
from sage_trl.errors import LockedError
from sage_trl.llm_client.ledger import Ledger
from sage_trl.storage import JsonlAppender
from tests.data.sources.trees import grow

GROUPS = {"train": 4, "validation": 0, "test": 0, "unseen": 0}
KEPT = {"facts.jsonl", "facts.short.jsonl", "review.jsonl", "notes/mine.txt"}
COMPUTED = {"scores.jsonl", "statistics.json", "statistics.png"}
# As a killed process leaves it: what was committed lies in the -wal alone.
PAY = """
import os, sys
from pathlib import Path
from sage_trl.llm_client.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
with ledger.transaction():
    ledger.answered(ledger.claim("a", 5), "paid", 5, None)
os._exit(9)
"""
KILLED = """
import os, sys
from pathlib import Path
from tests.data.test_replacing import build
rename = Path.rename
def rename_until(self, target):
    if self.name == sys.argv[2]:
        os._exit(9)
    return rename(self, target)
Path.rename = rename_until
build(Path(sys.argv[1]), seed=1)
"""


def build(output: Path, seed: int = 0) -> Built:
    return build_dataset(open_source("synthetic"), SourceOptions(seed=seed, groups=GROUPS), output, force=True)


def child(code: str, *arguments: str | Path) -> None:
    assert subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=False).returncode == 9


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def check_kept(root: Path) -> None:
    assert {(root / name).read_text() for name in KEPT} == KEPT
    with Ledger(root / "judge.sqlite") as ledger:
        assert [answer.body for answer in ledger.answers("a")] == ["paid"] and ledger.spent() == 5


@pytest.fixture
def worked_on(tmp_path: Path) -> Path:
    """A dataset with facts, scores, a review and a cache."""
    root = tmp_path / "d"
    build(root)
    (root / "notes").mkdir()
    for name in KEPT | COMPUTED:
        (root / name).write_text(name)
    child(PAY, root / "judge.sqlite")
    assert (root / "judge.sqlite-wal").stat().st_size
    return root


def test_the_same_dataset_keeps_everything(worked_on: Path) -> None:
    before = files(worked_on)
    assert build(worked_on).left_out == ()
    assert files(worked_on) == before
    check_kept(worked_on)


def test_another_dataset_keeps_what_cannot_be_mistaken(worked_on: Path, tmp_path: Path) -> None:
    before = files(worked_on)
    assert set(build(worked_on, seed=1).left_out) == COMPUTED
    build(tmp_path / "fresh", seed=1)
    others = {"judge.sqlite", "judge.sqlite-wal", "judge.sqlite-shm", "judge.sqlite.lock"}
    assert files(worked_on) == files(tmp_path / "fresh") | KEPT | (others & before)
    assert len(read_ad_pl(worked_on).inspections) == 4
    check_kept(worked_on)
    assert {path.name for path in tmp_path.iterdir()} == {"d", "fresh"}


def test_scores_of_an_image_that_was_changed_are_left_out(worked_on: Path) -> None:
    [image, *_] = (worked_on / "images").rglob("*.png")
    image.write_bytes(image.read_bytes() + b"mended")
    assert set(build(worked_on).left_out) == COMPUTED


@pytest.mark.parametrize("last", [".d.part", "d"])
def test_a_kill_between_old_and_new_loses_nothing(worked_on: Path, last: str) -> None:
    child(KILLED, worked_on, last)
    build(worked_on, seed=1)
    check_kept(worked_on)


def test_without_second_names_for_files_they_are_copied(worked_on: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    (worked_on / "more.jsonl").symlink_to("facts.jsonl")
    monkeypatch.setattr(os, "link", refuse)
    build(worked_on, seed=1)
    assert (worked_on / "more.jsonl").is_symlink() and (worked_on / "more.jsonl").read_text() == "facts.jsonl"
    check_kept(worked_on)


def test_a_file_that_is_being_written_stops_it(worked_on: Path) -> None:
    before = files(worked_on)
    with JsonlAppender(worked_on / "new.jsonl"), pytest.raises(LockedError, match=r"new\.jsonl"):
        build(worked_on, seed=1)
    with Ledger(worked_on / "judge.sqlite"), pytest.raises(LockedError, match=r"judge\.sqlite"):
        build(worked_on, seed=1)
    assert before <= files(worked_on) | {"judge.sqlite-wal", "judge.sqlite-shm"}
    check_kept(worked_on)


def test_images_below_other_folders_of_the_dataset_are_not_kept(tmp_path: Path) -> None:
    tree = grow("mvtec", tmp_path / "root")
    source, options = open_source("mvtec"), SourceOptions(root=tree.root)
    build_dataset(source, options, tmp_path / "d")
    rows = read_ad_pl(tmp_path / "d").inspections
    # As a reviewed dataset: the source's names, inside.
    info = (tmp_path / "d" / "dataset.json").read_text()
    (tmp_path / "d" / "dataset.json").write_text(info.replace('"../root"', '"."'))
    for name in {name for row in rows for name in (row.test_image, row.reference_image) if name}:
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes((tree.root / name).read_bytes())
    (tmp_path / "d" / "scores.jsonl").write_text("scores")
    assert build_dataset(source, options, tmp_path / "d", force=True).left_out == ()
    assert files(tmp_path / "d") == {"ad_pl.jsonl", "dataset.json", "scores.jsonl"}
