"""`tools/inspect_pair.py`: the picture, the answers, and every mistake a user can make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sage_trl.models.tiny import TinySize, build_tiny_internvl
from sage_trl.storage import file_sha256, write_json, write_jsonl
from tests.models.stock_checkpoints import save_stock

RunTool = Callable[..., int]
SIDE = 128
DEFECT = (72, 40, 88, 56)  # the third patch of the fifth column, of eight by eight patches of 16 pixels
FACT = "Plates get scratched."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model with random weights, which sees eight by eight patches and selects three."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    size = TinySize(image_size=SIDE, vision_layers=1, text_layers=1, vision_width=32, text_width=32)
    texts = ["Is the part scratched? Yes, a scratch.", "No, fine."] * 3
    made, processor = build_tiny_internvl(texts, size, fusion={"num_selected_patches": 3})
    made.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A test image and its reference, which differ in a red square."""
    photo = Image.new("RGB", (SIDE, SIDE), (90, 120, 90))
    photo.save(tmp_path / "good.png")
    ImageDraw.Draw(photo).rectangle(DEFECT, fill=(255, 0, 0))
    photo.save(tmp_path / "part.png")
    return tmp_path / "part.png", tmp_path / "good.png"


@pytest.fixture
def arguments(model: Path, pair: tuple[Path, Path], tmp_path: Path) -> list[str]:
    output = str(tmp_path / "new" / "overlay.png")
    return ["--model", str(model), "--test", str(pair[0]), "--output", output, "--max-new-tokens", "4"]


def test_the_defect_is_outlined_as_most_distinct(
    run_tool_file: RunTool,
    arguments: list[str],
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    questions = ["Is it scratched?", "Is it fine?"]
    command = [*arguments, "--reference", str(pair[1]), "--facts", FACT, "They get stained.", "--question", *questions]

    assert run_tool_file("inspect_pair.py", *command, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [answer["question"] for answer in found["answers"]] == questions
    assert [fact["text"] for fact in found["facts"]] == [FACT, "They get stained."]
    assert [sum(fact["attention"]) for fact in found["facts"]] == pytest.approx([1, 1], abs=1e-4)
    # By hand: the square covers parts of the patches in columns 4 and 5, lines 2 and 3, from 0.
    boxes = [tuple(patch["box"]) for patch in found["patches"]]
    assert set(boxes) <= {(x / 8, y / 8, (x + 1) / 8, (y + 1) / 8) for x in (4, 5) for y in (2, 3)}
    assert len(boxes) == 3
    assert found["overlay"] == str(tmp_path / "new" / "overlay.png")
    with Image.open(tmp_path / "new" / "overlay.png") as overlay:
        # The most distinct patch is outlined in the reddest colour of its scale, on the left half.
        pixels = np.asarray(overlay.convert("RGB")).astype(int)
    outline = (abs(pixels - (255, 0, 0)).sum(axis=-1) < 10)[:, : pixels.shape[1] // 2]
    assert outline.any()

    assert run_tool_file("inspect_pair.py", *command) == 0
    shown = capsys.readouterr().out
    for said in (*questions, FACT, "most distinct", "#3", "overlay.png"):
        assert said in shown


def test_without_a_reference_all_patches_are_shown(
    run_tool_file: RunTool, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "facts.txt").write_text(f"{FACT}\n\n", encoding="utf-8")

    assert run_tool_file("inspect_pair.py", *arguments, "--facts", str(tmp_path / "facts.txt"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [fact["text"] for fact in found["facts"]] == [FACT]
    assert [patch["similarity"] for patch in found["patches"]] == [None] * 64
    assert (found["selected"], found["attended"]) == (False, 64)
    assert (tmp_path / "new" / "overlay.png").is_file()

    assert run_tool_file("inspect_pair.py", *arguments, "--facts", FACT) == 0
    assert "no patch is selected: the facts attend to all 64." in " ".join(capsys.readouterr().out.split())


def test_facts_of_a_dataset_are_found_by_the_image(
    run_tool_file: RunTool,
    arguments: list[str],
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts = tmp_path / "facts.jsonl"
    line = {"test_image_sha256": file_sha256(pair[0]), "facts": [FACT], "model": "template", "prompt_version": "1"}
    write_jsonl(facts, [line])
    assert run_tool_file("inspect_pair.py", *arguments, "--facts", facts, "--json") == 0
    assert [fact["text"] for fact in json.loads(capsys.readouterr().out)["facts"]] == [FACT]

    write_jsonl(facts, [{**line, "test_image_sha256": "0" * 64}])
    assert run_tool_file("inspect_pair.py", *arguments, "--facts", facts) == 2
    assert f"facts.jsonl: no facts for {pair[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], "no facts for"),
        (["--facts", " "], "no facts for"),
        (["--facts", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--facts", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--facts", FACT, "--test", "nowhere.png"], "nowhere.png: no such image"),
        (["--facts", FACT, "--reference", "nowhere.png"], "nowhere.png: no such image"),
        (["--facts", FACT, "--output", "overlay"], "overlay: no ending is no picture"),
        (["--facts", FACT, "--output", "overlay.html"], "overlay.html: .html is no picture"),
        (["--facts", FACT, "--model", "runs/nowhere/at_all"], "runs/nowhere/at_all"),
    ],
)
def test_mistakes_end_with_2_and_one_message(
    run_tool_file: RunTool,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    expected: str,
) -> None:
    assert run_tool_file("inspect_pair.py", *arguments, *changes) == 2

    shown = capsys.readouterr()
    assert expected in shown.err
    assert "remedy:" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("facts", ["stock", "hard"])
def test_a_model_that_fuses_no_facts_is_refused(
    run_tool_file: RunTool,
    arguments: list[str],
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    facts: str,
) -> None:
    note = model / "sage_inference.json"
    if facts == "stock":
        save_stock("internvl", tmp_path / "stock")
        arguments = [*arguments, "--model", str(tmp_path / "stock")]
    else:
        write_json(note, {"facts": "hard", "reference_in_prompt": False, "stage": "sft"})
    try:
        assert run_tool_file("inspect_pair.py", *arguments, "--facts", FACT) == 2
    finally:
        note.unlink(missing_ok=True)
    assert "it fuses no facts" in capsys.readouterr().err
