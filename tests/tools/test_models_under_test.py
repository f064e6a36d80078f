"""The systems of the paper's table 1 through `tools/evaluate.py`, as small models of the same classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_trl.models.internvl2.conversion import convert_checkpoint
from sage_trl.storage import read_json
from tests.conftest import REPOSITORY
from tests.models.internvl2.released import write_released
from tests.models.other_checkpoints import save_deepseek_vl, save_molmo2
from tests.models.stock_checkpoints import save_stock

RunTool = Callable[..., int]
GROUPS, QUESTIONS = 4, 8


def replies(path: Path) -> list[list[str]]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return sorted([line[name] for name in ("setting", "group_id", "question_id", "prediction")] for line in lines)


def convert_internvl2(place: Path) -> Path:
    """A small checkpoint in InternVL2's released layout, converted."""
    write_released(place / "released", "internlm2", llm_config={"max_position_embeddings": 1024})
    convert_checkpoint(place / "released", place / "internvl2", lambda done, total: None)
    return place / "internvl2"


def test_models_of_transformers_beside_ours(run_tool_file: RunTool, model: Path, ad_pl: Path, tmp_path: Path) -> None:
    save_stock("llava_next", tmp_path / "llava")
    save_stock("qwen2_vl", tmp_path / "qwen2")
    save_molmo2(tmp_path / "molmo2")
    save_deepseek_vl(tmp_path / "deepseek")
    convert_internvl2(tmp_path)
    others = ["llava", "molmo2", "qwen2", "deepseek", "internvl2"]

    code = run_tool_file(
        *("evaluate.py", "--model", *(f"hf:{tmp_path / name}" for name in others), model),
        *("--dataset", ad_pl, "--output", tmp_path / "out", "--setting", "zero_shot", "one_shot"),
        *("--max-new-tokens", "4", "--quiet"),
    )

    assert code == 0
    settings = ["zero_shot", "one_shot"]
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert list(metrics) == [*others, "tiny"]
    for by_setting in metrics.values():
        assert list(by_setting) == settings
        assert all((entry["groups"], entry["questions"]) == (GROUPS, QUESTIONS) for entry in by_setting.values())
    evaluation = read_json(tmp_path / "out" / "evaluation.json")
    assert evaluation["models"] == {name: f"hf:{tmp_path / name}" for name in others} | {"tiny": str(model)}
    assert evaluation["settings"] == settings
    written = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["key"] for line in written}) == len(written) == 6 * 2 * QUESTIONS
    assert len(read_json(tmp_path / "out" / "comparisons.json")) == 15 * 2


def test_a_base_of_ours_replies_alike_with_and_without_hf(run_tool_file: RunTool, ad_pl: Path, tmp_path: Path) -> None:
    """Our class around a plain base, without facts, is that base."""
    save_stock("internvl", tmp_path / "base")
    common = ["--dataset", ad_pl, "--setting", "zero_shot", "one_shot", "--turns", "single", "conversation"]
    common += ["--max-new-tokens", "6", "--quiet"]

    assert run_tool_file("evaluate.py", "--model", f"hf:{tmp_path / 'base'}", *common, "--output", tmp_path / "a") == 0
    assert run_tool_file("evaluate.py", "--model", tmp_path / "base", *common, "--output", tmp_path / "b") == 0

    figures = [read_json(tmp_path / name / "metrics.json") for name in ("a", "b")]
    # The two are asked under keys of their own, and everything else is the same.
    digests = [[entry.pop("replies_sha256") for entry in found["base"].values()] for found in figures]
    assert len({*digests[0], *digests[1]}) == 2 * 4
    assert figures[0] == figures[1]
    plain, ours = (replies(tmp_path / name / "predictions.jsonl") for name in ("a", "b"))
    assert plain == ours


@pytest.mark.soak
def test_internvl2_is_fine_tuned_and_measured(run_tool_file: RunTool, tmp_path: Path) -> None:
    data, tuned, output = tmp_path / "data", tmp_path / "internvl2_sft", tmp_path / "out"
    groups = ["train=4", "validation=2", "test=3", "unseen=0"]
    assert run_tool_file("build_dataset.py", "--source", "synthetic", "--output", data, "--groups", *groups) == 0
    recipe = REPOSITORY / "recipes" / "sft.yaml"
    changes = ["--datasets", "null", "--model", convert_internvl2(tmp_path), "--dataset", data]
    changes += ["--output_dir", tuned, "--use_cpu", "true", "--bf16", "false", "--max_steps", "1"]
    assert run_tool_file("train.py", recipe, *changes) == 0

    measured = ["--dataset", data, "--output", output, "--setting", "zero_shot", "one_shot", "--max-new-tokens", "4"]
    assert run_tool_file("evaluate.py", "--model", tuned, *measured, "--quiet") == 0

    assert read_json(tuned / "sage_inference.json") == {"facts": "none", "reference_in_prompt": True, "stage": "sft"}
    figures = read_json(output / "metrics.json")["internvl2_sft"]
    assert {setting: entry["groups"] for setting, entry in figures.items()} == {"zero_shot": 3, "one_shot": 3}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("hf:/nowhere/model", "hf:/nowhere/model: no such model directory"),
        ("hf:{model}", "model type 'sage_internvl' is of this toolkit"),
    ],
)
def test_mistakes_name_the_model(
    run_tool_file: RunTool,
    model: Path,
    ad_pl: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spec: str,
    expected: str,
) -> None:
    output = tmp_path / "out"
    arguments = ["--model", spec.format(model=model), "--dataset", ad_pl, "--output", output, "--setting", "zero_shot"]

    assert run_tool_file("evaluate.py", *arguments) == 2

    shown = capsys.readouterr().err
    assert expected in shown
    assert "remedy:" in shown
    assert not output.exists()
