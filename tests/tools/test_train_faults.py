"""Faults in the middle of a training, as docs/reliability.md tells what comes of each."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sage_trl.storage import JsonlAppender
from sage_trl.trainer.checkpoint_files import checkpoints, newest_whole
from tests.tools.test_train_killed import PATIENCE, assert_same_end, newest, until
from tests.tools.training import command, run, write_recipe
from tests.warm import WarmProcess, run_warm, start_warm, with_prelude

TWO_RANKS = Path(__file__).with_name("two_ranks.py")
# Sleeps in every step, so that the test comes in between.
SLOWLY = """
import time
from sage_trl.trainer.sfe_trainer import SFETrainer
step = SFETrainer.training_step
def slow(self, *args, **kwargs):
    time.sleep(0.05)
    return step(self, *args, **kwargs)
SFETrainer.training_step = slow
"""
NAN_ON_RANK_1 = """
import os
from trl import SFTTrainer
compute = SFTTrainer.compute_loss
def spoiled(self, *args, **kwargs):
    loss = compute(self, *args, **kwargs)
    return loss * float("nan") if os.environ["RANK"] == "1" and self.state.global_step == 2 else loss
SFTTrainer.compute_loss = spoiled
"""


# As of a full disk, in the second save, when there is a best step.
FULL_ON_RANK_0 = """
import errno, os
from sage_trl.trainer.sfe_trainer import SFETrainer
save = SFETrainer.save_model
def full(self, *args, **kwargs):
    if os.environ["RANK"] == "0" and self.state.global_step == 2:
        raise OSError(errno.ENOSPC, "No space left on device")
    return save(self, *args, **kwargs)
SFETrainer.save_model = full
"""
# Breaks every image once two steps are done.
BREAK = """
from pathlib import Path
from sage_trl.trainer.sfe_trainer import SFETrainer
step = SFETrainer.training_step
def breaking(self, *args, **kwargs):
    if self.state.global_step == 2:
        for path in Path({data!r}).rglob("*.png"):
            {how}
    return step(self, *args, **kwargs)
SFETrainer.training_step = breaking
"""
CLOCK_GOES_BACKWARDS = """
import itertools, time
start, calls = time.time(), itertools.count()
time.time = lambda: start - 60 * next(calls)
"""


def after(prelude: str, *arguments: object) -> list[str]:
    """`tools/train.py` after some Python."""
    return with_prelude(prelude, command("train.py", *arguments))


def two_ranks(prelude: str, *arguments: object) -> list[str]:
    return [sys.executable, str(TWO_RANKS), prelude, *map(str, arguments)]


def rank_1(process: WarmProcess) -> int:
    """The process id of rank 1."""
    until(lambda: "rank 1: " in process.output("stdout"), process)
    return int(re.search(r"rank 1: (\d+)", process.output("stdout"))[1])


@pytest.fixture(scope="module")
def unbroken(dataset, tmp_path_factory):
    """Six steps without any fault."""
    folder = tmp_path_factory.mktemp("unbroken")
    result = run("train.py", write_recipe(folder / "recipe.yaml", dataset, folder / "run", save_steps=1))
    assert result.returncode == 0, result.stderr
    return folder / "run"


@pytest.mark.parametrize(
    ("how", "workers", "said"),
    [
        ("path.write_bytes(path.read_bytes()[:100])", 1, "unreadable image"),
        pytest.param("path.unlink()", 0, "no such image", marks=pytest.mark.soak),
    ],
)
def test_an_image_that_breaks_in_mid_epoch(dataset, unbroken, tmp_path, how, workers, said):
    data = shutil.copytree(dataset, tmp_path / "data")
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "run", save_steps=1, dataloader_num_workers=workers)
    broken = run_warm(after(BREAK.format(data=str(data), how=how), recipe))
    assert broken.returncode == 2, broken.stderr
    assert "Traceback" not in broken.stderr and re.search(
        rf"error: .*{data}/.*png: {said}.*\n  remedy: ", broken.stderr
    )
    assert 0 < newest(tmp_path / "run") < 6
    shutil.rmtree(data)
    shutil.copytree(dataset, data)
    resumed = run("train.py", recipe, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_end(unbroken, tmp_path / "run", 6)


def test_a_killed_worker_of_the_data_loader(dataset, tmp_path):
    settings = {"max_steps": 500, "save_steps": 1, "save_total_limit": 1, "dataloader_num_workers": 1}
    recipe = write_recipe(tmp_path / "r.yaml", dataset, tmp_path / "run", **settings)
    with start_warm(after(SLOWLY, recipe)) as process:
        until(lambda: newest(tmp_path / "run") > 0, process)
        [worker] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        assert process.wait(PATIENCE) == 9, process.output("stderr")
        said = r"error: DataLoader worker .*\n  remedy: lower dataloader_num_workers .*--resume"
        assert re.search(said, process.output("stderr")), process.output("stderr")
        assert "Traceback" not in process.output("stderr")
    assert newest_whole(tmp_path / "run")[0] is not None


def test_a_signal_to_the_process_group_is_not_for_the_workers(dataset, tmp_path):
    settings = {"max_steps": 500, "save_steps": 500, "dataloader_num_workers": 1}
    recipe = write_recipe(tmp_path / "r.yaml", dataset, tmp_path / "run", **settings)
    with start_warm(after(f"import os\nos.setpgrp()\n{SLOWLY}", recipe)) as process:
        until(lambda: "'loss'" in process.output("stderr"), process)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(PATIENCE) == 143, process.output("stderr")
        [step] = re.findall(r"stopped by SIGTERM after step (\d+), which is saved", process.output("stderr"))
    assert newest_whole(tmp_path / "run") == (tmp_path / "run" / f"checkpoint-{step}", {})


def test_a_disk_that_fills_up_in_a_save_ends_all_ranks_with_its_error(dataset, tmp_path):
    settings = {"save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss"}
    settings |= {"validation_split": "train", "per_device_train_batch_size": 2, "ddp_timeout": 60}
    recipe = write_recipe(tmp_path / "r.yaml", dataset, tmp_path / "run", **settings)
    result = run_warm(two_ranks(FULL_ON_RANK_0, recipe))
    assert result.returncode == 9 and "rank 1 ended with 9" in result.stdout, result.stderr
    said = "checkpoint-2: cannot be written: [Errno 28] No space left on device"
    assert re.search(rf"ERROR: process 0 cannot save: .*{re.escape(said)}", result.stderr), result.stderr
    assert re.search(rf"error: process 0 could not save: .*{re.escape(said)}", result.stderr)
    assert "Traceback" not in result.stderr
    assert newest_whole(tmp_path / "run") == (tmp_path / "run" / "checkpoint-1", {})
    assert not (tmp_path / "run" / ".partial").exists()


def test_a_killed_rank_ends_the_other_and_the_checkpoint_stays(dataset, tmp_path):
    settings = {"max_steps": 500, "save_steps": 1, "save_total_limit": 1, "per_device_train_batch_size": 2}
    recipe = write_recipe(tmp_path / "r.yaml", dataset, tmp_path / "run", **settings)
    with start_warm(two_ranks(SLOWLY, recipe)) as process:
        other = rank_1(process)
        until(lambda: newest(tmp_path / "run") > 0, process)
        os.kill(other, signal.SIGKILL)
        assert process.wait(PATIENCE) == 9, process.output("stderr")
        assert re.search(r"error: .*\n  remedy: .*--resume", process.output("stderr"))
        assert "rank 1 ended with -9" in process.output("stdout")
    assert newest_whole(tmp_path / "run")[0] is not None


def test_a_signal_to_one_rank_stops_both_after_the_same_step(dataset, tmp_path):
    settings = {"max_steps": 500, "save_steps": 500, "per_device_train_batch_size": 2}
    recipe = write_recipe(tmp_path / "r.yaml", dataset, tmp_path / "run", **settings)
    with start_warm(two_ranks(SLOWLY, recipe)) as process:
        other = rank_1(process)
        until(lambda: "'loss'" in process.output("stderr"), process)
        os.kill(other, signal.SIGUSR1)
        assert process.wait(PATIENCE) == 143, process.output("stderr")
        assert "rank 1 ended with 143" in process.output("stdout")
        [step] = set(re.findall(r"stopped by SIGUSR1 after step (\d+), which is saved", process.output("stderr")))
    [checkpoint] = checkpoints(tmp_path / "run")
    assert newest_whole(tmp_path / "run")[0] == checkpoint and checkpoint.name == f"checkpoint-{step}"
    assert {"rng_state_0.pth", "rng_state_1.pth", "model.safetensors"} <= {path.name for path in checkpoint.iterdir()}


def test_a_loss_that_is_no_number_on_one_rank_stops_both_before_the_step(dataset, tmp_path):
    recipe = write_recipe(tmp_path / "r.yaml", dataset, tmp_path / "run", save_steps=1, per_device_train_batch_size=2)
    result = run_warm(two_ranks(NAN_ON_RANK_1, recipe))
    assert result.returncode == 7, result.stderr
    assert "rank 1 ended with 7" in result.stdout
    assert result.stderr.count("the loss of step 3 is nan") == 2 and "Traceback" not in result.stderr
    assert newest(tmp_path / "run") == 2
    told = json.loads((tmp_path / "run" / "diverged-step-3.json").read_text())
    rows = [batch["rows"] for one in told["processes"] for batch in one["batches"]]
    assert [len(one) for one in rows] == [2, 2] and len({name for one in rows for name in one}) == 4
    assert [one["batches"][0]["loss"] == "nan" for one in told["processes"]] == [False, True]


def test_a_clock_that_goes_backwards_changes_nothing(dataset, unbroken, tmp_path):
    recipe = write_recipe(tmp_path / "r.yaml", dataset, tmp_path / "run", save_steps=1, save_total_limit=1)
    result = run_warm(after(CLOCK_GOES_BACKWARDS, recipe))
    assert result.returncode == 0, result.stderr
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["checkpoint-6"]
    assert_same_end(unbroken, tmp_path / "run", 6)


def test_an_output_that_cannot_be_written_is_told_before_training(run_here, dataset, tmp_path):
    (tmp_path / "file").touch()
    result = run_here("train.py", write_recipe(tmp_path / "r.yaml", dataset, tmp_path / "file" / "run"))
    assert result.returncode == 9
    assert f"error: output_dir {tmp_path}/file/run: {tmp_path}/file is no directory\n  remedy: " in result.stderr


def test_a_read_only_output_is_told_before_training(run_here, dataset, tmp_path, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    result = run_here("train.py", write_recipe(tmp_path / "r.yaml", dataset, small_disk / "run"))
    assert result.returncode == 9
    assert f"{small_disk} may not be written\n  remedy: " in result.stderr


def test_a_run_folder_tells_what_was_run_and_has_one_writer(run_here, dataset, tmp_path):
    recipe = write_recipe(tmp_path / "r.yaml", dataset, tmp_path / "run", max_steps=1)
    (tmp_path / "run").mkdir()
    with JsonlAppender(tmp_path / "run" / "metrics.jsonl"):
        locked = run_here("train.py", recipe)
    assert locked.returncode == 6 and "another process writes to it" in locked.stderr
    done = run_here("train.py", recipe, "--learning_rate", "1e-4")
    assert done.returncode == 0, done.stderr
    kept = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert kept == {**yaml.safe_load(recipe.read_text()), "learning_rate": 1e-4}
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["processes"] == 1 and environment["device"] == "cpu" and "torch" in environment["versions"]
    log = (tmp_path / "run" / "train.log").read_text()
    assert "starting anew" in log and "done after step 1" in log and "Traceback" not in log
    twice = run_here("train.py", recipe)
    assert twice.returncode == 2 and "already holds a run" in twice.stderr


@pytest.mark.soak
def test_a_killed_rank_costs_no_step(dataset, tmp_path):
    """Two processes, one killed, resumed with two: the weights of two that nobody killed."""
    settings = {"max_steps": 20, "save_steps": 1, "per_device_train_batch_size": 2}
    whole = write_recipe(tmp_path / "whole.yaml", dataset, tmp_path / "whole", **settings)
    assert run_warm(two_ranks("", whole)).returncode == 0
    recipe = write_recipe(tmp_path / "r.yaml", dataset, tmp_path / "run", **settings)
    with start_warm(two_ranks(SLOWLY, recipe)) as process:
        other = rank_1(process)
        until(lambda: newest(tmp_path / "run") > 3, process)
        os.kill(other, signal.SIGKILL)
        assert process.wait(PATIENCE) == 9
    resumed = run_warm(two_ranks("", recipe, "--resume"))
    assert resumed.returncode == 0, resumed.stderr
    assert_same_end(tmp_path / "whole", tmp_path / "run", 20)
