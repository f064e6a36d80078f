"""Every kind of fault is found, with its line; several at once are all found; none is a traceback."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sage_trl.data.building import build_dataset
from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.sources import SourceOptions, open_source
from sage_trl.data.validation import examine_dataset
from sage_trl.facts.generation import generate_facts
from sage_trl.facts.template_bank import TemplateBank
from sage_trl.judge.scorer import open_judge, score_answers
from sage_trl.storage import write_jsonl
from tests.conftest import REPOSITORY
from tests.data.faults import FAULTS
from tests.warm import run_warm

GROUPS = {"train": 12, "validation": 3, "test": 3, "unseen": 2}
# Faults that leave a row, a line or an image unread, and so hide the one beside it, do not go together in one row.
TOGETHER = ["missing_image", "verdict_against_the_ranks", "same_group_twice", "no_licence", "placeholder_in_a_text"]


def with_facts_and_scores(root: Path) -> Path:
    data = read_ad_pl(root)
    generate_facts(data, TemplateBank(), root / "facts.jsonl")
    scores = score_answers(open_judge("rule"), data.inspections)
    write_jsonl(root / "scores.jsonl", (score.model_dump(mode="json") for score in scores))
    return root


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sound dataset of each source that can be built here."""
    place = tmp_path_factory.mktemp("sound")
    build_dataset(open_source("synthetic"), SourceOptions(groups=GROUPS, image_size=64), place / "synthetic")
    return {"synthetic": with_facts_and_scores(place / "synthetic")}


def spoil(sound: Path, place: Path, fault: str, seed: int) -> tuple[Path, str, int | None]:
    root = Path(shutil.copytree(sound, place / f"{fault}{seed}", symlinks=True))
    kind, line = FAULTS[fault](root, random.Random(seed))
    return root, kind, line


def assert_found(root: Path, kind: str, line: int | None) -> None:
    found = [finding for finding in examine_dataset(root).findings if finding.kind == kind]
    assert found, f"{kind} is not reported"
    assert line is None or line in {finding.line for finding in found}
    for finding in found:
        assert finding.problem and finding.remedy and Path(finding.path).name in str(finding)


def test_a_sound_dataset_has_no_finding(sound: dict[str, Path]) -> None:
    report = examine_dataset(sound["synthetic"])
    assert report.findings == ()
    assert report.counts == {"groups": 20, "questions": 100, "images": 40}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(sound: dict[str, Path], tmp_path: Path, fault: str) -> None:
    assert_found(*spoil(sound["synthetic"], tmp_path, fault, seed=0))


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_wherever_it_is(
    sound: dict[str, Path], tmp_path: Path, fault: str, subtests: pytest.Subtests
) -> None:
    for seed in range(1, 21):
        with subtests.test(seed=seed):
            assert_found(*spoil(sound["synthetic"], tmp_path, fault, seed))


@pytest.mark.parametrize("seed", range(3))
def test_all_faults_are_found_in_one_run(sound: dict[str, Path], tmp_path: Path, seed: int) -> None:
    root = Path(shutil.copytree(sound["synthetic"], tmp_path / "spoilt"))
    rng = random.Random(seed)
    expected = [FAULTS[name](root, rng) for name in TOGETHER]
    found = {(finding.kind, finding.line) for finding in examine_dataset(root).findings}
    assert {one for one in expected if one[1] is not None} <= found
    assert "licence" in {kind for kind, _ in found}


def test_all_fields_of_one_row_are_named(sound: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(sound["synthetic"], tmp_path / "spoilt"))
    path = root / "ad_pl.jsonl"
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    row = {**json.loads(first), "level": 7, "defects": [{"type": "", "box": [0, 0, 2, 1]}], "test_image": "gone.png"}
    path.write_text("\n".join([json.dumps(row), *rest]) + "\n", encoding="utf-8")
    found = {finding.field: finding for finding in examine_dataset(root).findings if finding.line == 1}
    assert found.keys() == {"level", "defects.0.type", "defects.0.box.2", "test_image"}
    assert found["level"].value == "7"
    assert found["test_image"].kind == "image-missing"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("null", "record"),
        ("[1, 2]", "record"),
        ("7" * 5000, "record"),
        ("[" * 100_000, "record"),
        ('{"id": NaN}', "record"),
        ('{"id": "\\ud800", "\\ud800": 1}', "record"),
        ('{"test_image": "' + "x" * 5000 + '"}', "image-unreadable"),
        ('{"test_image": "a\\u0000b\\u001b[31m"}', "image-missing"),
        ('{"questions": [{"answers": {"a": []}}], "defects": 3, "split": []}', "record"),
    ],
)
def test_lines_as_odd_as_can_be(sound: dict[str, Path], tmp_path: Path, line: str, kind: str) -> None:
    root = Path(shutil.copytree(sound["synthetic"], tmp_path / "spoilt"))
    with (root / "ad_pl.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    found = [finding for finding in examine_dataset(root).findings if finding.line == 21]
    assert kind in {finding.kind for finding in found}
    assert all(str(finding).replace("\n", "").isprintable() for finding in found)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "tools" / "check.py"), *map(str, arguments)]
    return run_warm(command)


def test_the_tool_prints_a_table_and_json(sound: dict[str, Path], tmp_path: Path) -> None:
    root, kind, line = spoil(sound["synthetic"], tmp_path, "missing_image", seed=3)
    result = run(root)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert f"ad_pl.jsonl:{line}: field 'test_image': no image at" in result.stdout
    assert "remedy: restore the image" in result.stdout
    report = json.loads(run(root, "--json", "--quiet").stdout)
    [finding] = [one for one in report["findings"] if one["kind"] == kind]
    assert finding.keys() == {"kind", "severity", "path", "line", "field", "value", "problem", "remedy"}
    assert report["errors"] >= 1 and report["counts"]["groups"] == 20


def test_warnings_alone_are_exit_code_0(sound: dict[str, Path], tmp_path: Path) -> None:
    root, _, _ = spoil(sound["synthetic"], tmp_path, "no_licence", seed=0)
    result = run(root, "--quiet")
    assert result.returncode == 0 and "warning: licence" in result.stdout and result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"), [(["nowhere"], "no such dataset or recipe"), ([".", "--x", "1"], "--x")]
)
def test_mistakes_of_the_command(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr


def test_every_kind_is_described() -> None:
    described = set(re.findall(r"`([a-z-]+)`", (REPOSITORY / "docs" / "checks.md").read_text(encoding="utf-8")))
    sources = [
        *(REPOSITORY / "sage_trl" / "data" / "checks").glob("*.py"),
        REPOSITORY / "sage_trl" / "data" / "images.py",
    ]
    sources += [REPOSITORY / "sage_trl" / "data" / "validation.py", REPOSITORY / "sage_trl" / "recipe_check.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    kinds = set(re.findall(r'(?:error|warning|from_exception|add|add_exception|of_kind|_Fault)\(\s*"([a-z-]+)"', text))
    assert len(kinds) > 30
    assert kinds <= described
