"""Training through the real command line: stages, overrides, bad input, and a signal in the middle."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
import yaml

from tests.tools.test_train_killed import PATIENCE, until
from tests.tools.training import TINY, command, losses, run, write_recipe
from tests.warm import run_warm, start_warm


@pytest.mark.slow
def test_both_stages_train_one_after_the_other(dataset, tmp_path):
    stage_1 = write_recipe(tmp_path / "sfe.yaml", dataset, tmp_path / "sfe", save_strategy="no")
    overrides = ("--learning_rate", "2e-3", "--max_steps", "2")
    launcher = [sys.executable, Path(sys.executable).with_name("accelerate"), "launch", "--cpu"]
    launched = run_warm([*launcher, *command("train.py", stage_1, *overrides)[1:]])
    assert launched.returncode == 0, launched.stderr
    assert "Trainable parts" in launched.stderr
    assert launched.stdout.strip() == ""
    stage_2 = write_recipe(
        tmp_path / "edpo.yaml", dataset, tmp_path / "edpo", stage="edpo", model=str(tmp_path / "sfe"), max_steps=2
    )
    text = stage_2.read_text().replace(yaml.safe_dump({"tiny": TINY}), "")
    stage_2.write_text(text)
    result = run("train.py", stage_2)
    assert result.returncode == 0, result.stderr
    assert "min pairs" in result.stderr
    state = json.loads((tmp_path / "edpo" / "trainer_state.json").read_text())
    # A step of four pairs may hold pairs of one kind only.
    logged = {name for entry in state["log_history"] for name in entry}
    assert {"delta_entropy/mean", "delta_entropy/bias", "rewards/margins"} <= logged
    assert {"rewards/margins_min_pairs", "rewards/margins_max_pairs"} & logged
    note = json.loads((tmp_path / "edpo" / "sage_inference.json").read_text())
    assert note == {"facts": "fusion", "reference_in_prompt": False, "stage": "edpo"}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_saves_the_step_and_goes_on(dataset, tmp_path, number, code):
    # So many steps that the signal arrives long before the last one.
    recipe = write_recipe(tmp_path / "recipe.yaml", dataset, tmp_path / "run", max_steps=2000, save_steps=2000)
    with start_warm(command("train.py", recipe)) as process:
        until(lambda: "'loss'" in process.output("stderr"), process)
        process.send_signal(number)
        assert process.wait(PATIENCE) == code
        said = process.output("stderr")
    assert f"stopped by {number.name} after step" in said and "--resume" in said and "Traceback" not in said
    [checkpoint] = (tmp_path / "run").glob("checkpoint-*")
    step = int(checkpoint.name.rpartition("-")[2])
    resumed = run("train.py", recipe, "--resume", "--max_steps", step + 1, "--quiet")
    assert resumed.returncode == 2
    assert f"max_steps: 2000, now {step + 1}" in resumed.stderr and "--resume_anyway" in resumed.stderr
    resumed = run("train.py", recipe, "--resume", "--resume_anyway", "--max_steps", step + 1, "--quiet")
    assert (resumed.returncode, resumed.stdout) == (0, ""), resumed.stderr
    assert resumed.stderr.splitlines() == [
        f"WARNING: resuming a run that differs: recipe key max_steps: 2000, now {step + 1}"
    ]
    assert len(losses(tmp_path / "run")) == step + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learnin_rate": 1}, ["unknown key 'learnin_rate'", "did you mean 'learning_rate'"]),
        ({"learning_rate": "fast"}, ["'learning_rate'", "'fast'", "float"]),
        ({"model": "no/such/model"}, ["no/such/model", "no model can be loaded"]),
        ({"model": "/no/such/model"}, ["/no/such/model", "no such model directory"]),
        ({"dataset": "nowhere"}, ["nowhere", "no such dataset directory"]),
        ({"split": "trian"}, ["'trian'", "train"]),
        ({"stage": "edpo", "model": "tiny"}, ["tiny", "stage 1"]),
        ({"facts_file": "no.jsonl"}, ["no.jsonl", "no such file"]),
        ({"fusion_num_heads": 3}, ["fusion_num_heads 3", "32"]),
        ({"eval_strategy": "steps"}, ["eval_strategy is steps", "set validation_split"]),
        ({"stage": "edpo", "loss_type": "robust"}, ["'loss_type'", "write a list, [robust]"]),
        ({"stage": "edpo", "loss_type": ["hinge", "ipo"]}, ["['hinge', 'ipo']", "a list of one, of sigmoid"]),
        ({"stage": "edpo", "reference_cache": __file__}, [f"reference_cache is {__file__}, which is no directory"]),
        ({"max_tokens_per_batch": 0}, ["max_tokens_per_batch is 0", "positive number"]),
        ({"max_tokens_per_batch": 9, "shared_prefix": False}, ["is 9, which needs shared_prefix: true"]),
    ],
)
def test_bad_input_is_one_screen_and_exit_code_2(run_here, dataset, tmp_path, change, words):
    recipe = write_recipe(tmp_path / "recipe.yaml", dataset, tmp_path / "out", **change)
    result = run_here("train.py", recipe)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) < 25
    for word in words:
        assert word in result.stderr


def test_a_mistake_in_a_process_of_its_own(dataset, tmp_path):
    result = run("train.py", write_recipe(tmp_path / "recipe.yaml", dataset, tmp_path / "out", learnin_rate=1))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "did you mean 'learning_rate'" in result.stderr


def test_stage_2_refuses_a_base_model_whose_fusion_would_be_random(run_here, dataset, tmp_path, stock):
    recipe = write_recipe(tmp_path / "recipe.yaml", dataset, tmp_path / "out", stage="edpo", model=str(stock[0]))
    result = run_here("train.py", recipe)
    assert result.returncode == 2, result.stderr
    assert "fusion would be random" in result.stderr and "output_dir of stage 1" in result.stderr


def test_stage_2_without_scores_names_the_tool(run_here, dataset, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", dataset, tmp_path / "out", stage="edpo", scores="none.jsonl")
    result = run_here("train.py", recipe)
    assert result.returncode == 2
    assert "none.jsonl" in result.stderr and "tools/score_mle.py --dataset" in result.stderr


def test_scores_missing_for_some_answers(run_here, dataset, tmp_path):
    lines = (dataset / "scores.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "scores.jsonl").write_text("".join(lines[1:]))  # the first is of the training split
    recipe = write_recipe(
        tmp_path / "recipe.yaml", dataset, tmp_path / "out", stage="edpo", scores=str(tmp_path / "scores.jsonl")
    )
    result = run_here("train.py", recipe)
    assert result.returncode == 2
    assert "scores missing for" in result.stderr
    assert "score_mle.py" in result.stderr


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda row: row.pop("level"), ["'level'"]),
        (lambda row: row.update(level=3), ["'level'", "3"]),
        (lambda row: row.update(test_image="../x.png"), ["'test_image'", "'../x.png'", "leaves"]),
        (lambda row: row.update(test_image="images/none.png"), ["images/none.png"]),
        (lambda row: row["questions"][0].update(answers=["Yes.", "", "No."]), ["answers"]),
    ],
)
def test_faults_of_a_dataset_stop_training(run_here, dataset, tmp_path, fault, words):
    copy = tmp_path / "data"
    copy.mkdir()
    for entry in dataset.iterdir():
        (copy / entry.name).symlink_to(entry)
    rows = [json.loads(line) for line in (dataset / "ad_pl.jsonl").read_text().splitlines()]
    fault(rows[1])
    (copy / "ad_pl.jsonl").unlink()
    (copy / "ad_pl.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run_here("train.py", write_recipe(tmp_path / "recipe.yaml", copy, tmp_path / "out"))
    assert result.returncode == 2
    assert "ad_pl.jsonl:2" in result.stderr
    for word in words:
        assert word in result.stderr
