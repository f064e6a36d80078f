"""Two processes against one: losses, weights, metrics, resuming, and FSDP2; with `soak` under `accelerate launch`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file

from sage_trl.recipe import load_recipe
from sage_trl.training import run_training
from tests.conftest import REPOSITORY
from tests.models.stock_checkpoints import save_stock
from tests.trainer.ad_pl_of_groups import write_groups
from tests.warm import start_warm

SCRIPT = Path(__file__).with_name("training_in_processes.py")
PATIENCE = 600
TINY = {"image_size": 32, "vision_width": 16, "vision_layers": 1, "vision_heads": 2, "text_width": 32, "text_layers": 1}
SHARED = {
    "split": "train",
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    # Adam would blow up gradients that are nothing but rounding.
    "adam_epsilon": 1e-5,
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "seed": 3,
}
# Recipe -> its keys, those for one process and those for two, which make the same steps.
SFE = {"stage": "sfe", "model": "tiny", "tiny": TINY, "num_train_epochs": 2, "fusion_learning_rate": 2e-3}
SFE |= {"validation_split": "validation", "eval_strategy": "steps", "eval_steps": 4, "per_device_eval_batch_size": 2}
SFE |= {"save_strategy": "steps", "save_steps": 3}
EDPO = {"stage": "edpo", "eta": 2.0, "pairs": "max", "num_train_epochs": 1}
EDPO |= {"validation_split": "validation", "eval_strategy": "epoch", "per_device_eval_batch_size": 2}
LORA = {"stage": "edpo", "objective": "paper", "kl_coef": 0.5, "lora_r": 2, "num_train_epochs": 2}
OWN = {"stage": "edpo", "num_train_epochs": 2}
RECIPES = {
    "sfe": (SFE, {"per_device_train_batch_size": 4}, {"per_device_train_batch_size": 2}),
    # 15 pairs by two: the last step has one pair, and so none for the second process.
    "edpo": (EDPO, {"per_device_train_batch_size": 2}, {"per_device_train_batch_size": 1}),
    "lora": (
        LORA,
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    ),
    # The policy is its own reference, read before the first step by the process that has the rows then.
    "own": (
        OWN,
        {"per_device_train_batch_size": 8, "reference_cache": "cache-of-one"},
        {"per_device_train_batch_size": 4, "reference_cache": "cache-of-two"},
    ),
}
COMPARED = ("loss", "eval_loss", "grad_norm", "rewards/margins", "rewards/accuracies", "delta_entropy/mean", "kl")
COMPARED += ("entropy", "eval_entropy", "mean_token_accuracy", "eval_mean_token_accuracy")


def write_recipe(folder: Path, name: str, keys: dict, **more: object) -> Path:
    values = {"dataset": str(folder / "ad_pl"), "model": str(folder / "sfe-1"), **SHARED, **keys, **more}
    if "reference_cache" in values:
        values["reference_cache"] = str(folder / values["reference_cache"])
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**values, "output_dir": str(folder / name)}))
    return path


def train(path: Path) -> None:
    run_training(load_recipe(path), Console(quiet=True))


def resumed_from(folder: Path, name: str, of: str, keys: dict) -> Path:
    """A recipe that goes on from another run's third step."""
    shutil.copytree(folder / of / "checkpoint-3", folder / name / "checkpoint-3")
    return write_recipe(folder, name, keys, resume=True)


def train_all(folder: Path, names: list[str], stock: str, run_two: Callable[[Path, list[Path]], None]) -> Path:
    """Recipes trained by one process and by two, `sfe` also resumed with the other number, and a model for FSDP2."""
    write_groups(folder / "ad_pl", {"train": [5, 1, 3, 2, 4], "validation": [3, 2]})
    save_stock(stock, folder / f"stock-{stock}")
    recipes = {name: RECIPES[name] for name in names}
    for name, (keys, one, _) in recipes.items():
        train(write_recipe(folder, f"{name}-1", {**keys, **one}))
    paths = [write_recipe(folder, f"{name}-2", {**keys, **two}) for name, (keys, _, two) in recipes.items()]
    keys, one, two = RECIPES["sfe"]
    paths.append(resumed_from(folder, "resumed-by-2", "sfe-1", {**keys, **two}))
    run_two(folder, paths)
    train(resumed_from(folder, "resumed-by-1", "sfe-2", {**keys, **one}))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return train_all(tmp_path_factory.mktemp("processes"), ["sfe", "edpo"], "internvl", start_two)


@pytest.fixture(scope="module")
def trained_more(tmp_path_factory) -> Path:
    return train_all(tmp_path_factory.mktemp("processes"), ["sfe", "lora", "own"], "qwen2_vl", launch_two)


def start_two(folder: Path, paths: list[Path]) -> None:
    """In place of `launch_two`, without the half minute that a launcher and its processes import."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared = {**os.environ, **shared, "GLOO_SOCKET_IFNAME": "lo"}
    with ExitStack() as stack:
        ranks = [
            stack.enter_context(
                start_warm([sys.executable, SCRIPT, folder, *paths], env={**shared, "RANK": rank, "LOCAL_RANK": rank})
            )
            for rank in ("0", "1")
        ]
        codes = [rank.wait(PATIENCE) for rank in ranks]
        said = "".join(rank.output("stderr") for rank in ranks)
    assert codes == [0, 0], said[-6000:]
    (folder / "log").write_text(said)


def launch_two(folder: Path, paths: list[Path]) -> None:
    # With `distributed_type: MULTI_CPU` accelerate 1.15 starts one process, as with --cpu.
    config = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",
        "use_cpu": True,
        "num_machines": 1,
        "num_processes": 2,
        "main_process_port": 0,
        "mixed_precision": "no",
        "debug": False,
    }
    (folder / "two.yaml").write_text(yaml.safe_dump(config))
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(folder / "two.yaml")]
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [*launcher, str(SCRIPT), str(folder), *map(str, paths)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-6000:]
    (folder / "log").write_text(result.stderr)


def history(folder: Path, name: str) -> list[dict[str, float]]:
    state = json.loads((folder / name / "trainer_state.json").read_text())
    return [{key: entry[key] for key in ("step", *COMPARED) if key in entry} for entry in state["log_history"]]


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    [path] = (folder / name).glob("*model.safetensors")
    return load_file(path)


def batches(folder: Path, process: int) -> dict[str, list[list[str]]]:
    return json.loads((folder / f"process-{process}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sfe", "edpo"])
def test_two_processes_take_the_steps_of_one(trained, name):
    assert_equal_runs(trained, name)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["lora", "own"])
def test_two_processes_with_an_adapter_accumulation_and_a_reference_cache(trained_more, name):
    assert_equal_runs(trained_more, name)


def assert_equal_runs(folder, name):
    one, two = history(folder, f"{name}-1"), history(folder, f"{name}-2")
    assert len(one) == len(two) and len(one) > 3
    for ours, expected in zip(two, one, strict=True):
        assert ours == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert_equal_weights(folder, f"{name}-2", f"{name}-1")
    if name in ("edpo", "own"):
        # The weights have moved, so that to compare them tells something.
        first = weights(folder, "sfe-1")
        assert max((value - first[key]).abs().max() for key, value in weights(folder, f"{name}-1").items()) > 1e-3


def assert_equal_weights(folder, one, other):
    ours, expected = weights(folder, one), weights(folder, other)
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        assert (ours[key] - value).abs().max() <= 1e-5, key


@pytest.mark.slow
def test_processes_have_unequal_batches_and_never_none(trained):
    sfe, edpo = ([batches(trained, process)[name] for process in (0, 1)] for name in ("sfe-2", "edpo-2"))
    for one, other in zip(*sfe, strict=True):
        assert one and other
    assert any(len(one) != len(other) for one, other in zip(*sfe, strict=True))
    # Every pair once, whoever has it, and one filler for the step of one pair; what follows is the evaluation.
    rows = [row for process in edpo for batch in process[:8] for row in batch]
    counted = [row for row in rows if not row.endswith("*")]
    assert len(counted) == len(set(counted)) == 15
    assert len(rows) == 16


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_goes_on_with_another_number_of_processes(trained, processes):
    assert_equal_weights(trained, f"resumed-by-{processes}", "sfe-1")
    expected = history(trained, "sfe-1")
    assert history(trained, f"resumed-by-{processes}") == [
        pytest.approx(entry, rel=1e-5, abs=1e-5) for entry in expected
    ]


@pytest.mark.slow
def test_processes_train_one_model_after_an_evaluation_too(trained):
    found = [batches(trained, process)["stock-internvl evaluated"] for process in (0, 1)]
    assert all(process["apart"] == 0 and process["moved"] > 1e-3 for process in found)


@pytest.mark.slow
def test_the_balance_is_told_at_the_start(trained):
    assert "tokens of the fullest process over the mean" in (trained / "log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sfe", "edpo"])
def test_trees_on_a_model_divided_by_fsdp2(trained, stage):
    assert_sharded(trained, f"stock-internvl {stage}")


@pytest.mark.soak
@pytest.mark.parametrize("stage", ["sfe", "edpo"])
def test_another_backbone_divided_by_fsdp2(trained_more, stage):
    assert_sharded(trained_more, f"stock-qwen2_vl {stage}")


def assert_sharded(folder, name):
    for process in (0, 1):
        found = batches(folder, process)[name]
        assert found["layers"] > 3
        assert found["loss"] <= 1e-5
        assert found["gradient"] <= 1e-5 < found["largest gradient"]
