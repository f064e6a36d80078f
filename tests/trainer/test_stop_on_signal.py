"""Signals in every phase of a training: before, between steps, in a save, in an evaluation, after."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess

import pytest
from transformers import TrainerCallback

from sage_trl.errors import StoppedError
from sage_trl.trainer.checkpoint_files import newest_whole
from sage_trl.trainer.sfe_trainer import SFETrainer
from sage_trl.trainer.stop_on_signal import StopOnSignal
from tests.trainer.test_divergence import make_trainer


class SendSignals(TrainerCallback):
    """Sends signals to this process in the event of that name, once so many steps are done."""

    def __init__(self, event, *numbers, after=0):
        self.numbers, self.after = list(numbers), after
        setattr(self, event, self.send)

    def send(self, _args, state, *_, **_kwargs):
        while self.numbers and state.global_step >= self.after:
            os.kill(os.getpid(), self.numbers.pop(0))


def train(tiny, output_dir, event, *numbers, after=0, **options):
    trainer = make_trainer(tiny, output_dir, **{"max_steps": 6, "save_steps": 4, **options})
    stop = StopOnSignal()
    trainer.add_callback(SendSignals(event, *numbers, after=after))
    trainer.add_callback(stop)
    with stop.listening():
        trainer.train()
    return trainer, stop


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([signal.SIGTERM], 143),
        ([signal.SIGUSR1], 143),
        ([signal.SIGINT], 130),
        # Schedulers and launchers repeat them.
        ([signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1], 143),
        ([signal.SIGINT, signal.SIGINT, signal.SIGTERM], 130),
    ],
)
def test_the_step_under_way_is_saved_and_training_ends(tiny, tmp_path, numbers, code):
    trainer, stop = train(tiny, tmp_path, "on_pre_optimizer_step", *numbers)
    assert stop.has_stopped and trainer.state.global_step == 1
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-1", {})
    assert stop.error(1).exit_code == code


def test_a_signal_during_a_save_ends_after_that_save(tiny, tmp_path):
    trainer, stop = train(tiny, tmp_path, "on_save", signal.SIGTERM)
    assert stop.has_stopped and trainer.state.global_step == 4
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]


def test_an_evaluation_is_given_up_for_a_checkpoint(tiny, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 1}
    trainer, stop = train(tiny, tmp_path, "on_prediction_step", signal.SIGUSR1, **options)
    assert stop.has_stopped and trainer.state.global_step == 2
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-2", {})
    assert not any("eval_loss" in entry for entry in trainer.state.log_history)


def test_an_epoch_that_ends_with_the_signal_saves_once(tiny, tmp_path):
    options = {"save_strategy": "epoch", "max_steps": -1, "num_train_epochs": 3}
    trainer, _ = train(tiny, tmp_path, "on_epoch_end", signal.SIGTERM, **options)
    assert trainer.state.global_step == 4
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-4", {})


def test_the_checkpoint_of_a_stop_stays_beside_the_best(tiny, tmp_path, monkeypatch):
    """Nor is the best loaded, for a run that is stopped saves no model."""
    monkeypatch.setattr(SFETrainer, "_load_whole", lambda *_: pytest.fail("the best was loaded"))
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "metric_for_best_model": "loss"}
    options |= {"save_total_limit": 1, "load_best_model_at_end": True, "learning_rate": 0.0}
    trainer, stop = train(tiny, tmp_path, "on_pre_optimizer_step", signal.SIGTERM, after=4, **options)
    assert stop.has_stopped and trainer.state.global_step == 5
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-5", {})
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-5"}


def test_in_the_evaluation_before_the_first_step_a_signal_ends_at_once(tiny, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True}
    with pytest.raises(StoppedError, match="SIGTERM before the first step; nothing is lost") as stopped:
        train(tiny, tmp_path, "on_prediction_step", signal.SIGTERM, **options)
    assert stopped.value.exit_code == 143
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize("of", ["train", "eval", "test"])
def test_workers_leave_the_signals_to_the_process_that_trains(tiny, tmp_path, of):
    trainer = make_trainer(tiny, tmp_path, dataloader_num_workers=1, per_device_eval_batch_size=1)
    arguments = [trainer.eval_dataset] if of == "test" else []
    batches = iter(getattr(trainer, f"get_{of}_dataloader")(*arguments))
    next(batches)
    [worker] = multiprocessing.active_children()
    for number in ("TERM", "USR1", "INT", "TERM"):
        subprocess.run(["kill", f"-{number}", str(worker.pid)], check=True)
    worker.join(0.3)
    assert worker.is_alive()
    list(batches)


def test_workers_end_when_the_process_that_trains_does(tiny, tmp_path):
    """At its exit it sends SIGTERM to persistent workers, and waits for their end."""
    options = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    batches = iter(make_trainer(tiny, tmp_path, **options).get_train_dataloader())
    next(batches)
    [worker] = multiprocessing.active_children()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0


def test_before_the_first_step_a_signal_ends_at_once():
    with pytest.raises(StoppedError, match="before the first step") as stopped, StopOnSignal().listening():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert stopped.value.exit_code == 143


def test_after_the_last_step_the_run_is_finished(tiny, tmp_path):
    trainer, stop = train(tiny, tmp_path, "on_train_end", signal.SIGTERM)
    assert stop.received == signal.SIGTERM and not stop.has_stopped
    assert trainer.state.global_step == 6
