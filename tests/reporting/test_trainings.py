"""The log of a training: from the file that grows while it runs, or from what the `Trainer` keeps."""

from __future__ import annotations

from sage_trl.reporting.folders import find_runs
from sage_trl.reporting.trainings import read_trainings
from tests.reporting.made_runs import write_training


def test_a_training_that_still_runs_is_read(tmp_path):
    run = tmp_path / "running"
    run.mkdir()
    # The last line is being written.
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.5, "kl": null}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo'
    )
    [training] = read_trainings(find_runs([run]).trainings)
    assert training.curve("loss") == ([1.0, 2.0], [2.5, 1.5])
    assert training.curve("kl") == ([], [])


def test_metrics_come_before_the_trainer_s_state_and_old_runs_have_that_alone(tmp_path):
    run = write_training(tmp_path / "old", "loss")
    assert read_trainings([run])[0].curve("loss") == ([10.0, 20.0, 30.0], [1.0, 0.5, 1 / 3])
    (run / "metrics.jsonl").write_text('{"step": 7, "loss": 9.0}\n')
    assert read_trainings([run])[0].curve("loss") == ([7.0], [9.0])
