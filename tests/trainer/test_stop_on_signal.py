"""Signals in every phase of a training: before, between steps, in a save, in an evaluation, after."""

from __future__ import annotations

import os
import signal

import pytest
from transformers import TrainerCallback

from sage_trl.errors import StoppedError
from sage_trl.trainer.checkpoint_files import newest_whole
from sage_trl.trainer.stop_on_signal import StopOnSignal
from tests.trainer.test_divergence import make_trainer


class SendSignals(TrainerCallback):
    """Sends signals to this process in the event of that name, once."""

    def __init__(self, event, *numbers):
        self.numbers = list(numbers)
        setattr(self, event, self.send)

    def send(self, *_args, **_kwargs):
        while self.numbers:
            os.kill(os.getpid(), self.numbers.pop(0))


def train(tiny, output_dir, event, *numbers, **options):
    trainer = make_trainer(tiny, output_dir, **{"max_steps": 6, "save_steps": 4, **options})
    stop = StopOnSignal()
    trainer.add_callback(SendSignals(event, *numbers))
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


def test_before_the_first_step_a_signal_ends_at_once():
    with pytest.raises(StoppedError, match="before the first step") as stopped, StopOnSignal().listening():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert stopped.value.exit_code == 143


def test_after_the_last_step_the_run_is_finished(tiny, tmp_path):
    trainer, stop = train(tiny, tmp_path, "on_train_end", signal.SIGTERM)
    assert stop.received == signal.SIGTERM and not stop.has_stopped
    assert trainer.state.global_step == 6
