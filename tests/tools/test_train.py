"""Training through the real command line: stages, overrides, bad input, and a kill in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from sage_trl.errors import RecipeError
from sage_trl.training import find_checkpoint
from tests.conftest import REPOSITORY
from tests.warm import run_warm

TINY = {"image_size": 32, "vision_width": 16, "vision_layers": 1, "vision_heads": 2, "text_width": 32, "text_layers": 1}
SETTINGS = {
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 4,
    "max_steps": 6,
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 2,
    "report_to": "none",
    "disable_tqdm": True,
    "seed": 3,
}


def command(tool: str, *arguments: object) -> list[str]:
    return [sys.executable, str(REPOSITORY / "tools" / tool), *map(str, arguments)]


def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_warm(command(tool, *arguments))


@pytest.fixture
def run_here(run_tool_file, capfd):
    """As `run`, in this process: starting one takes longer than what most tests look at."""

    def here(tool: str, *arguments: object) -> SimpleNamespace:
        capfd.readouterr()
        code = run_tool_file(tool, *arguments)
        return SimpleNamespace(returncode=code, stderr=capfd.readouterr().err)

    return here


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A small synthetic dataset with facts and scores, built by the tools."""
    directory = tmp_path_factory.mktemp("data") / "ad_pl"
    groups = ("train=8", "validation=3", "test=3", "unseen=0")
    for arguments in (
        ("build_dataset.py", "--source", "synthetic", "--output", directory, "--seed", 0, "--groups", *groups),
        ("generate_facts.py", "--dataset", directory, "--model", "template"),
        ("score_mle.py", "--dataset", directory, "--judge", "rule"),
    ):
        result = run(*arguments)
        assert result.returncode == 0, result.stderr
    return directory


def write_recipe(path: Path, dataset: Path, output: Path, /, **values: object) -> Path:
    recipe = {"stage": "sfe", "model": "tiny", "tiny": TINY, "dataset": str(dataset), "output_dir": str(output)}
    path.write_text(yaml.safe_dump({**recipe, **SETTINGS, **values}))
    return path


def losses(output: Path) -> list[float]:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.slow
def test_both_stages_train_one_after_the_other(dataset, tmp_path):
    stage_1 = write_recipe(tmp_path / "sfe.yaml", dataset, tmp_path / "sfe", save_strategy="no")
    overrides = ("--learning_rate", "2e-3", "--max_steps", "2")
    launched = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--cpu", *command("train.py", stage_1, *overrides)[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
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
def test_a_killed_run_resumes_and_ends_with_the_same_losses(dataset, tmp_path):
    whole = write_recipe(tmp_path / "whole.yaml", dataset, tmp_path / "whole")
    result = run("train.py", whole)
    assert result.returncode == 0, result.stderr
    cut = write_recipe(tmp_path / "cut.yaml", dataset, tmp_path / "cut")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command("train.py", cut), stdout=log, stderr=log)
        state = tmp_path / "cut" / "checkpoint-4" / "trainer_state.json"
        deadline = time.monotonic() + 120
        while not state.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert state.is_file(), (tmp_path / "log").read_text()
    assert not (tmp_path / "cut" / "model.safetensors").exists(), "the run ended before it was killed"
    # What a kill in the middle of saving leaves behind must not be taken for a checkpoint.
    torn = tmp_path / "cut" / "checkpoint-5"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    refused = run("train.py", cut)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    resumed = run("train.py", cut, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming checkpoint-4" in resumed.stderr
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_saves_the_step_and_goes_on(dataset, tmp_path, number, code):
    # So many steps that the signal arrives long before the last one.
    recipe = write_recipe(tmp_path / "recipe.yaml", dataset, tmp_path / "run", max_steps=2000, save_steps=2000)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command("train.py", recipe), stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while "'loss'" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=60) == code
    said = (tmp_path / "log").read_text()
    assert f"stopped by {number.name} after step" in said and "--resume" in said and "Traceback" not in said
    [checkpoint] = (tmp_path / "run").glob("checkpoint-*")
    step = int(checkpoint.name.rpartition("-")[2])
    resumed = run("train.py", recipe, "--resume", "--max_steps", step + 1, "--quiet")
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, "", "")
    assert len(losses(tmp_path / "run")) == step + 1


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["model.safetensors"], "no checkpoint to go on from"),
        (["checkpoint-4/trainer_state.json"], "checkpoint-4: holds no weights"),
    ],
)
def test_resume_never_overwrites_what_it_cannot_go_on_from(tmp_path, files, said):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(RecipeError, match=said):
        find_checkpoint(tmp_path, resume=True)


def test_the_newest_whole_checkpoint_is_found(tmp_path):
    assert find_checkpoint(tmp_path, resume=True) is None
    for step in (2, 10, 30):
        (tmp_path / f"checkpoint-{step}").mkdir()
        # Sharded, as a large model is saved.
        (tmp_path / f"checkpoint-{step}" / "model-00001-of-00002.safetensors").touch()
        if step < 30:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-best").mkdir()
    assert find_checkpoint(tmp_path, resume=True) == tmp_path / "checkpoint-10"


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
        ({"eval_strategy": "steps"}, ["the trainer cannot be built", "eval_dataset"]),
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
