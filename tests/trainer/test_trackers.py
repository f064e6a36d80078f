"""`report_to`: our metrics reach a tracker; one that is down is told once and ends no training."""

from __future__ import annotations

import json
import logging
from typing import ClassVar

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from sage_trl.errors import LockedError, MachineError
from sage_trl.trainer.metrics_log import MetricsLog
from sage_trl.trainer.trackers import guard_trackers
from tests.trainer.test_divergence import make_trainer


class Tracker(TrainerCallback):
    """A tracker's callback, as `report_to` gives one; `fails` names the event in which its server is gone."""

    fails: str | None = None
    made: ClassVar[list[Tracker]] = []

    def __init__(self):
        self.events = []
        self.logs = []
        Tracker.made.append(self)

    def on_train_begin(self, args, state, control, **kwargs):
        self.note("on_train_begin")

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.note("on_log")
        self.logs.append(logs)

    def on_train_end(self, args, state, control, **kwargs):
        self.note("on_train_end")

    def note(self, event):
        self.events.append(event)
        if event == self.fails:
            raise ConnectionError("the tracker is down")


@pytest.fixture
def tracked(tiny, tmp_path, monkeypatch):
    def make(fails=None):
        monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", Tracker)
        monkeypatch.setattr(Tracker, "fails", fails)
        monkeypatch.setattr(Tracker, "made", [])
        trainer = make_trainer(tiny, tmp_path, report_to="wandb", save_strategy="no")
        guard_trackers(trainer)
        return trainer, Tracker.made[0]

    return make


def test_our_metrics_reach_the_tracker(tracked):
    trainer, tracker = tracked()
    trainer.train()
    assert tracker.events == ["on_train_begin", *["on_log"] * 5, "on_train_end"]
    assert all({"loss", "grad_norm", "mean_token_accuracy"} <= set(logs) for logs in tracker.logs[:4])


@pytest.mark.parametrize(("fails", "seen"), [("on_train_begin", 1), ("on_log", 2), ("on_train_end", 7)])
def test_a_tracker_that_is_down_is_told_once(tracked, caplog, fails, seen):
    trainer, tracker = tracked(fails)
    with caplog.at_level(logging.WARNING, logger="sage_trl"):
        trainer.train()
    assert trainer.state.global_step == 4 and len(tracker.events) == seen
    [record] = [one for one in caplog.records if "report_to" in one.message]
    assert "ConnectionError: the tracker is down" in record.message


def test_every_figure_is_on_disk_at_once_and_a_resumed_run_goes_on_from_its_checkpoint(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, save_steps=2)
    log = MetricsLog(tmp_path / "metrics.jsonl")
    trainer.add_callback(log)
    trainer.train()

    def rows():
        return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    assert rows() == trainer.state.log_history and len(rows()) == 5
    with pytest.raises(LockedError):
        MetricsLog(tmp_path / "metrics.jsonl")
    log.close()
    again = make_trainer(tiny, tmp_path)
    log = MetricsLog(tmp_path / "metrics.jsonl")
    again.add_callback(log)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    log.close()
    assert [row["step"] for row in rows()] == [1, 2, 3, 4, 4]


def test_a_figure_that_is_not_finite_is_null(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path)
    log = MetricsLog(tmp_path / "metrics.jsonl")
    trainer.add_callback(log)
    trainer.log({"kl": float("nan"), "loss": 1.5})
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) | {"epoch": 0} == {
        **{"kl": None, "loss": 1.5, "step": 0, "epoch": 0}
    }


def test_a_run_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"file/metrics.jsonl: cannot be written"):
        MetricsLog(tmp_path / "file" / "metrics.jsonl")
