"""LoRA through the real command line: both stages, merging, evaluation, and what does not go together."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from sage_trl.models.checkpoints import is_adapter
from tests.models.stock_checkpoints import save_stock
from tests.tools.training import run, write_recipe

LORA = {"lora_r": 4, "max_steps": 2, "save_strategy": "no", "tiny": None}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("base")
    save_stock("internvl", directory)
    return directory


@pytest.mark.slow
def test_both_stages_merge_and_evaluation(dataset, base, tmp_path):
    fusion = {"num_selected_patches": 2, "fusion_num_heads": 4}
    stage_1 = write_recipe(tmp_path / "1.yaml", dataset, tmp_path / "sfe", model=str(base), **LORA, **fusion)
    result = run("train.py", stage_1, "--load_in_4bit", "true")
    assert result.returncode == 0, result.stderr
    assert "attention: sdpa" in result.stderr
    assert is_adapter(tmp_path / "sfe")
    stage_2 = write_recipe(
        tmp_path / "2.yaml", dataset, tmp_path / "edpo", stage="edpo", model=str(tmp_path / "sfe"), **LORA
    )
    result = run("train.py", stage_2)
    assert result.returncode == 0, result.stderr
    for arguments in (("edpo", "merged"), ("edpo", "plain", "--plain")):
        names = [str(tmp_path / name) if not name.startswith("--") else name for name in arguments]
        result = run("merge.py", *names)
        assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["model_type"] == "internvl"
    options = (
        "--dataset",
        dataset,
        "--setting",
        "one_shot",
        "--limit",
        2,
        "--max-new-tokens",
        4,
        "--output",
        tmp_path / "evaluation",
    )
    result = run("evaluate.py", "--model", tmp_path / "edpo", tmp_path / "merged", *options)
    assert result.returncode == 0, result.stderr
    predictions = (tmp_path / "evaluation" / "predictions.jsonl").read_text().splitlines()
    counted = Counter(json.loads(line)["model"] for line in predictions)
    assert counted["edpo"] == counted["merged"] > 0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"lora_r": 4}, "lora_r: the tiny model"),
        ({"lora_alpha": 4}, "lora_alpha has no effect without lora_r"),
        ({"lora_r": 0}, "lora_r is 0"),
        ({"model": "BASE", "tiny": None, "load_in_4bit": True}, "4-bit weights cannot train"),
        ({"model": "BASE", "tiny": None, "lora_r": 4, "lora_target": ["q_porj"]}, "q_porj"),
    ],
)
def test_keys_that_do_not_go_together_are_named(values, named, dataset, base, tmp_path, run_tool_file, capsys):
    values = {key: str(base) if value == "BASE" else value for key, value in values.items()}
    recipe = write_recipe(tmp_path / "recipe.yaml", dataset, tmp_path / "run", **values)
    assert run_tool_file("train.py", recipe) == 2
    assert named in capsys.readouterr().err


def test_another_rank_than_the_adapter_s_is_refused(dataset, base, tmp_path, run_tool_file, capsys):
    stage_1 = write_recipe(tmp_path / "1.yaml", dataset, tmp_path / "sfe", model=str(base), **LORA, fusion_num_heads=4)
    assert run_tool_file("train.py", stage_1) == 0
    other = {**LORA, "lora_r": 8}
    stage_2 = write_recipe(
        tmp_path / "2.yaml", dataset, tmp_path / "edpo", stage="edpo", model=str(tmp_path / "sfe"), **other
    )
    assert run_tool_file("train.py", stage_2) == 2
    assert "lora_r is 8, but the adapter" in capsys.readouterr().err


def test_merging_refuses_what_is_no_adapter_in_one_line(base, tmp_path, run_tool_file, capsys):
    assert run_tool_file("merge.py", base, tmp_path / "merged") == 2
    assert "not an adapter" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()
