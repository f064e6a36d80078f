"""Faults of the machine by the words of torch and of the operating system; real ones are in tests/tools."""

from __future__ import annotations

import errno

import pytest

from sage_trl.errors import MachineError
from sage_trl.trainer.machine_faults import machine_faults


@pytest.mark.parametrize(
    ("error", "problem", "remedy"),
    [
        (
            ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
            "DataLoader worker is gone: .*Connection reset by peer",
            "lower dataloader_num_workers if memory ran out; .*--resume",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            "DataLoader worker .pid 7. is killed",
            "lower dataloader_num_workers",
        ),
        (RuntimeError("[gloo] Connection reset by peer"), "Connection reset by peer", "the same command with --resume"),
        (RuntimeError("Timed out waiting 1800000ms for recv"), "Timed out waiting", "the same command with --resume"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left", "free space, or .*--resume"),
    ],
)
def test_a_fault_says_how_to_go_on(error, problem, remedy):
    with pytest.raises(MachineError, match=rf"{problem}.*\n  remedy: {remedy}"), machine_faults():
        raise error


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes do not fit"), machine_faults():
        raise RuntimeError("shapes do not fit")
