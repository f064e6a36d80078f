"""Datasets to a hub on this machine and back, through the command line; and through `datasets` alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from sage_trl.data.dataset import read_ad_pl, read_info, write_ad_pl
from sage_trl.errors import DataError
from sage_trl.publishing.dataset_download import restore_dataset
from sage_trl.publishing.dataset_publication import DatasetPublishOptions, prepared_dataset
from sage_trl.records import Inspection
from sage_trl.storage import read_json, write_json
from tests.conftest import REPOSITORY
from tests.evaluation.small_ad_pl import move_images_out, write_small_ad_pl
from tests.publishing.conftest import WITHOUT_WAITING, hub_environment
from tests.publishing.hub_server import TOKEN, Fault, Repository
from tests.warm import run_warm

Build = Callable[..., "subprocess.CompletedProcess[str]"]
NAME = "me/plates"
STORED = f"datasets/{NAME}"


@pytest.fixture
def build(hub, tmp_path) -> Build:
    """Runs `tools/build_dataset.py` against the hub, in `tmp_path`."""

    def run(*arguments: object, **changes: str | None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_WAITING, str(REPOSITORY / "tools" / "build_dataset.py")]
        environment = hub_environment(hub.url, tmp_path, **changes)
        return run_warm([*command, *map(str, arguments)], cwd=tmp_path, env=environment)

    return run


@pytest.fixture
def ad_pl(tmp_path) -> Path:
    """Five groups of two splits, with facts and a review that must stay at home."""
    root = write_small_ad_pl(tmp_path / "ad_pl")
    (root / "review.jsonl").write_text('{"reviewer": "Ann"}\n')
    return root


def set_licence(root: Path, licence: str) -> None:
    info = read_json(root / "dataset.json")
    write_json(root / "dataset.json", info | {"licence": licence, "sources": {"synthetic": licence}})


def push(build: Build, root: Path, *arguments: object, **changes: str | None) -> subprocess.CompletedProcess[str]:
    return build("--output", root, "--push-to-hub", NAME, *arguments, **changes)


def fetch(build: Build, output: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return build("--from-hub", NAME, "--output", output, *arguments)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def header(hub) -> dict:
    return yaml.safe_load(hub.repositories[STORED].files["README.md"].decode().split("---")[1])


@pytest.mark.slow
def test_there_and_back_without_the_loss_of_a_byte(build, hub, ad_pl, tmp_path):
    pushed = push(build, ad_pl)
    assert pushed.returncode == 0, pushed.stderr
    repository = hub.repositories[STORED]
    assert repository.private and len(repository.commits) == 1
    names = {f"data/{split}-00000-of-00001.parquet" for split in ("test", "unseen")}
    assert set(repository.files) == names | {"README.md", "dataset.json", "facts.jsonl", ".gitattributes"}
    fetched = fetch(build, tmp_path / "back")
    assert fetched.returncode == 0, fetched.stderr
    assert "5 groups, 9 images from the hub, 0 found locally" in fetched.stdout
    before, after = content(ad_pl), content(tmp_path / "back")
    # g3 has no reference, so nobody names its file.
    assert set(before) - set(after) == {"review.jsonl", "images/3_reference.png"}
    assert {name: before[name] for name in after if name != "dataset.json"} == {
        name: after[name] for name in after if name != "dataset.json"
    }
    assert read_json(tmp_path / "back" / "dataset.json") == read_json(ad_pl / "dataset.json")
    again = push(build, ad_pl)
    assert "nothing to send: all 5 files are there already" in again.stdout
    assert len(repository.commits) == 1
    taken = fetch(build, tmp_path / "back")
    assert taken.returncode == 2 and "not empty" in taken.stderr


def test_the_datasets_library_alone_reads_it(build, hub, ad_pl, tmp_path):
    assert push(build, ad_pl).returncode == 0
    files = hub.repositories[STORED].files
    assert header(hub)["configs"] == [
        {
            "config_name": "default",
            "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in ("test", "unseen")],
        }
    ]
    assert header(hub)["license"] == "cc0-1.0"
    for name, data in files.items():
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone" / name).write_bytes(data)
    code = (
        "from datasets import load_dataset\n"
        "rows = load_dataset('clone', split='test')\n"
        "row = rows[3]\n"
        "print(len(rows), row['id'], row['test_image'].size, row['reference_image'], row['questions'][0]['verdict'],\n"
        "      row['defects'][0]['box'], row['licence'])\n"
    )
    environment = hub_environment("http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    result = run_warm([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[0] == "4 g3 (16, 16) None True [0.1, 0.1, 0.3, 0.3] CC0"


@pytest.mark.slow
def test_images_of_unknown_licences_stay_at_home_and_are_found_by_hash(build, hub, ad_pl, tmp_path):
    set_licence(ad_pl, "research only")
    pushed = push(build, ad_pl)
    assert pushed.returncode == 0, pushed.stderr
    assert "left out: the images of synthetic" in pushed.stdout
    card = hub.repositories[STORED].files["README.md"].decode()
    assert "| synthetic | research only | 5 | no |" in card and header(hub)["license"] == "other"
    for name, data in hub.repositories[STORED].files.items():
        if name.endswith(".parquet"):
            table = pq.read_table(BytesIO(data))
            assert table["test_image"].null_count == table["reference_image"].null_count == len(table)
            assert b"PNG" not in data
    lost = fetch(build, tmp_path / "back")
    assert lost.returncode == 2 and "9 images were left out" in lost.stderr and "--image-root" in lost.stderr
    assert not (tmp_path / "back").exists() and "Traceback" not in lost.stderr
    # A local copy under other names, with one file changed.
    local = tmp_path / "local"
    local.mkdir()
    for number, path in enumerate(sorted((ad_pl / "images").iterdir())):
        shutil.copyfile(path, local / f"photo {number}.PNG")
    changed = local / "photo 0.PNG"
    good = changed.read_bytes()
    Image.new("RGB", (4, 4)).save(changed, format="PNG")
    lost = fetch(build, tmp_path / "back", "--image-root", local)
    assert lost.returncode == 2 and "1 images were left out" in lost.stderr and "images/0_reference.png" in lost.stderr
    changed.write_bytes(good)
    fetched = fetch(build, tmp_path / "back", "--image-root", local)
    assert fetched.returncode == 0, fetched.stderr
    assert "0 images from the hub, 9 found locally" in fetched.stdout
    back = read_ad_pl(tmp_path / "back")
    assert back.inspections == read_ad_pl(ad_pl).inspections
    for row in back.inspections:
        assert (back.root / row.test_image).read_bytes() == (ad_pl / row.test_image).read_bytes()
    # Who has the right can say so; the files of the first upload are replaced.
    assert push(build, ad_pl, "--with-images", "synthetic").returncode == 0
    assert fetch(build, tmp_path / "whole").returncode == 0


def test_a_split_that_is_gone_leaves_the_repository(build, hub, ad_pl):
    assert push(build, ad_pl).returncode == 0
    rows = [json.loads(line) for line in (ad_pl / "ad_pl.jsonl").read_text().splitlines()][:4]
    write_ad_pl(ad_pl, [Inspection.model_validate(row) for row in rows], read_info(ad_pl))
    (ad_pl / "facts.jsonl").unlink()
    result = push(build, ad_pl)
    assert "data/unseen-00000-of-00001.parquet" in result.stdout.partition("deleted")[2]
    files = set(hub.repositories[STORED].files)
    assert files == {"README.md", "dataset.json", "data/test-00000-of-00001.parquet", ".gitattributes"}


def test_a_dry_run_contacts_nobody(build, hub, ad_pl):
    result = push(build, ad_pl, "--dry-run", HF_TOKEN=None)
    assert result.returncode == 0, result.stderr
    assert "data/test-00000-of-00001.parquet" in result.stdout and "| synthetic | CC0 | 5 | yes |" in result.stdout
    assert hub.log == []


def test_refusals(build, hub, ad_pl, tmp_path):
    hub.repositories[STORED] = Repository(private=False)
    for arguments, said in [
        ((), "exists and is public"),
        (("--with-images", "mvtec"), "no source 'mvtec'"),
    ]:
        result = push(build, ad_pl, *arguments)
        assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr
    bad = build("--output", ad_pl, "--push-to-hub", "a/b/c")
    assert bad.returncode == 2 and "OWNER/NAME" in bad.stderr
    for incomplete in (
        ("--output", tmp_path / "x"),
        ("--push-to-hub", NAME),
        ("--stats", ad_pl, "--push-to-hub", NAME),
    ):
        assert build(*incomplete).returncode == 2
    facts = ad_pl / "facts.jsonl"
    facts.write_text(facts.read_text().replace("They get stained.", f"See {TOKEN} here."))
    leaking = push(build, ad_pl, "--public")
    assert leaking.returncode == 2 and "facts.jsonl:1" in leaking.stderr and TOKEN not in leaking.stderr
    assert hub.repositories[STORED].commits == []


def test_a_hub_that_fails_is_told_with_the_command_that_tries_again(build, hub, ad_pl, tmp_path):
    hub.fault = Fault("/commit/", 503)
    result = push(build, ad_pl)
    assert result.returncode == 8 and f"--push-to-hub {NAME}" in result.stderr and "Traceback" not in result.stderr
    hub.fault = None
    assert push(build, ad_pl).returncode == 0
    missing = build("--from-hub", "me/nothing", "--output", tmp_path / "back")
    assert missing.returncode == 8 and "404" in missing.stderr and "Traceback" not in missing.stderr
    assert not (tmp_path / "back").exists()


def test_a_tampered_image_is_refused(build, hub, ad_pl, tmp_path):
    assert push(build, ad_pl).returncode == 0
    files = hub.repositories[STORED].files
    name = "data/test-00000-of-00001.parquet"
    table = pq.read_table(BytesIO(files[name]))
    rows = table.to_pylist()
    rows[0]["test_image"]["bytes"] = rows[1]["test_image"]["bytes"]
    sink = BytesIO()
    pq.write_table(table.from_pylist(rows, schema=table.schema), sink)
    files[name] = sink.getvalue()
    result = fetch(build, tmp_path / "back")
    assert result.returncode == 2 and "images/0_test.png" in result.stderr and not (tmp_path / "back").exists()
    rows[0]["ad_pl"] = rows[0]["ad_pl"].replace("images/0_test.png", "../0_test.png")
    sink = BytesIO()
    pq.write_table(table.from_pylist(rows, schema=table.schema), sink)
    files[name] = sink.getvalue()
    result = fetch(build, tmp_path / "back")
    assert result.returncode == 2 and "leaves the dataset's directory" in result.stderr
    assert not (tmp_path / "0_test.png").exists()


def published(ad_pl: Path, place: Path) -> Path:
    """What a download of the published dataset holds."""
    (place / "data").mkdir(parents=True)
    with prepared_dataset(DatasetPublishOptions(ad_pl, NAME), NAME) as publication:
        for file in publication.files:
            (place / file.name).write_bytes(file.read())
    return place


def test_images_that_lie_elsewhere_are_inside_when_they_come_back(ad_pl, tmp_path):
    move_images_out(ad_pl, "photos")
    downloaded = published(ad_pl, tmp_path / "downloaded")
    assert read_info(downloaded).image_root == "."
    restore_dataset(downloaded, tmp_path / "deep" / "back")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["back"]
    assert read_ad_pl(tmp_path / "deep" / "back").inspections == read_ad_pl(ad_pl).inspections


@pytest.mark.parametrize("image_root", ["../..", "../elsewhere", "/elsewhere"])
def test_a_strangers_image_root_leads_nowhere_else(ad_pl, tmp_path, image_root):
    downloaded = published(ad_pl, tmp_path / "downloaded")
    write_json(downloaded / "dataset.json", read_json(downloaded / "dataset.json") | {"image_root": image_root})
    with pytest.raises(DataError, match="image_root"):
        restore_dataset(downloaded, tmp_path / "a" / "b" / "back")
    assert len(list(tmp_path.rglob("0_test.png"))) == 1 and not (tmp_path / "a").exists()


def test_what_is_no_image_is_refused(ad_pl, tmp_path):
    (ad_pl / "images" / "0_test.png").write_bytes(b"#!/bin/sh")
    with pytest.raises(DataError, match=r"images/0_test\.png: unreadable image"):
        restore_dataset(published(ad_pl, tmp_path / "downloaded"), tmp_path / "back")
    assert not (tmp_path / "back").exists()
