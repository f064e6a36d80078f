"""Facts: blind to the label, kept per image, resumable."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from sage_trl.data.building import build_dataset
from sage_trl.data.dataset import AdPlDirectory, read_ad_pl
from sage_trl.data.fact_sets import read_facts
from sage_trl.data.sources import SourceOptions, open_source
from sage_trl.errors import DataError
from sage_trl.facts.generation import FactReport, generate_facts
from sage_trl.facts.template_bank import TemplateBank
from sage_trl.facts.writer import Part
from sage_trl.storage import file_sha256


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> AdPlDirectory:
    root = tmp_path_factory.mktemp("facts") / "ad_pl"
    groups = {"train": 6, "validation": 0, "test": 0, "unseen": 2}
    build_dataset(open_source("synthetic"), SourceOptions(groups=groups), root)
    return read_ad_pl(root)


def test_facts_depend_on_category_and_picture_only(data: AdPlDirectory) -> None:
    picture = Image.new("RGB", (8, 8), (1, 2, 3))
    bank = TemplateBank()
    [plate, again, other] = bank.write([Part("plate", picture), Part("plate", picture), Part("odd_thing", picture)])
    assert plate == again and len(plate) == 4
    assert other[0].count("odd thing") == 1
    with pytest.raises(ValueError, match="1 to"):
        TemplateBank(count=99)


def test_one_row_per_image_and_resume(data: AdPlDirectory, tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    assert generate_facts(data, TemplateBank(), path) == FactReport(8, 8, ())
    whole = path.read_bytes()
    assert set(read_facts(path)) == {file_sha256(data.image_path(row.test_image)) for row in data.inspections}
    assert generate_facts(data, TemplateBank(), path).written == 0
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])  # killed in the middle of the fourth line
    assert generate_facts(data, TemplateBank(), path).written == 5
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b'{"a": 1}', b"notes of mine", b'x\n{"test_image": 3}'])
def test_a_file_of_another_kind_is_left_as_it_is(content: bytes, data: AdPlDirectory, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="--output"):
        generate_facts(data, TemplateBank(), path)
    assert path.read_bytes() == content


def test_facts_of_another_writer_are_not_mixed_in(data: AdPlDirectory, tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    generate_facts(data, TemplateBank(), path)
    other = TemplateBank()
    other.model = "another"
    with pytest.raises(DataError, match="holds facts by template-bank"):
        generate_facts(data, other, path)


def test_two_rows_for_one_image(data: AdPlDirectory, tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    generate_facts(data, TemplateBank(), path)
    shutil.copy(path, tmp_path / "twice.jsonl")
    with (tmp_path / "twice.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(path.read_text(encoding="utf-8").splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"twice\.jsonl:9: "):
        read_facts(tmp_path / "twice.jsonl")


def test_facts_of_another_count_or_seed_are_not_mixed_in(data: AdPlDirectory, tmp_path: Path) -> None:
    generate_facts(data, TemplateBank(4, 0), tmp_path / "facts.jsonl")
    for bank in (TemplateBank(2, 0), TemplateBank(4, 5)):
        with pytest.raises(DataError, match="count-4 seed-0"):
            generate_facts(data, bank, tmp_path / "facts.jsonl")
