"""Steps: what happens when one fails, is stopped, is killed or has changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sage_trl.errors import DataError, LockedError
from sage_trl.steps.log import StepLog, sources_key
from sage_trl.steps.runner import Step, StepRunner, available_cores
from sage_trl.storage import read_json
from tests.conftest import REPOSITORY

# Notes its arguments in a file and ends with the code found in another.
FAKE_TOOL = """
import pathlib, sys, time
output = pathlib.Path(sys.argv[1])
output.mkdir(exist_ok=True)
with (output / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[2:]) + "\\n")
if "sleep" in sys.argv:
    time.sleep(60)
sys.exit(int((output.parent / "code").read_text()))
"""


@pytest.fixture(autouse=True)
def tools(tmp_path: Path) -> Path:
    """A directory of one fake tool."""
    directory = tmp_path / "tools"
    directory.mkdir()
    (directory / "fake.py").write_text(FAKE_TOOL)
    (tmp_path / "code").write_text("0")
    return directory


def first(tmp_path: Path, *extra: str, **fields: object) -> Step:
    made = tmp_path / "made"
    step = {"produces": made, "resume": ("--resume",), **fields}
    return Step("first", ("fake.py", str(made), "first", *extra), **step)  # type: ignore[arg-type]


def second(tmp_path: Path, **fields: object) -> Step:
    return Step("second", ("fake.py", str(tmp_path / "other"), "second"), **fields)  # type: ignore[arg-type]


def run(tmp_path: Path, *steps: Step, key: str = "", replaces: bool = True, jobs: int = 1) -> int:
    with StepRunner(tmp_path, tmp_path / "tools", key=key, replaces=replaces, jobs=jobs) as runner:
        return runner.run(steps)


def calls(directory: Path) -> list[str]:
    path = directory / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_all_steps_run_once(tmp_path: Path) -> None:
    for _ in range(2):
        assert run(tmp_path, first(tmp_path), second(tmp_path)) == 0

    assert calls(tmp_path / "made") == ["first"]
    assert calls(tmp_path / "other") == ["second"]


def test_the_first_failure_stops_with_its_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "code").write_text("7")

    assert run(tmp_path, first(tmp_path), second(tmp_path)) == 7

    assert calls(tmp_path / "other") == []
    shown = capfd.readouterr()
    assert "step 'first' failed with exit code 7" in shown.err
    assert "fake.py" in shown.out


def test_a_stopped_step_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("130")
    run(tmp_path, first(tmp_path), second(tmp_path))
    (tmp_path / "code").write_text("0")

    assert run(tmp_path, first(tmp_path), second(tmp_path)) == 0

    assert calls(tmp_path / "made") == ["first", "first --resume"]
    assert calls(tmp_path / "other") == ["second"]


def test_a_stopped_step_that_cannot_go_on_is_done_anew(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("130")
    run(tmp_path, first(tmp_path, resume=None))
    (tmp_path / "code").write_text("0")

    assert run(tmp_path, first(tmp_path, resume=None), replaces=False) == 0

    assert calls(tmp_path / "made") == ["first"]


def test_a_changed_step_and_all_that_need_it_are_done_anew(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("lr: 1")
    run(tmp_path, first(tmp_path, str(recipe)), second(tmp_path))
    recipe.write_text("lr: 2")

    assert run(tmp_path, first(tmp_path, str(recipe)), second(tmp_path)) == 0

    assert calls(tmp_path / "made") == [f"first {recipe}"]
    assert calls(tmp_path / "other") == ["second", "second"]


def test_a_step_that_needs_nothing_changed_stays_done(tmp_path: Path) -> None:
    run(tmp_path, first(tmp_path, "before"), second(tmp_path, needs=()))

    assert run(tmp_path, first(tmp_path, "after"), second(tmp_path, needs=())) == 0

    assert calls(tmp_path / "made") == ["first after"]
    assert calls(tmp_path / "other") == ["second"]


def test_a_changed_step_keeps_its_work_where_nothing_is_replaced(tmp_path: Path) -> None:
    run(tmp_path, first(tmp_path, "before"))

    with pytest.raises(DataError, match=r"made was made by another command.*'first'(.|\n)*remedy"):
        run(tmp_path, first(tmp_path, "after"), replaces=False)

    assert calls(tmp_path / "made") == ["first before"]


def test_changed_code_is_run_again(tmp_path: Path) -> None:
    run(tmp_path, first(tmp_path), second(tmp_path), key=sources_key([tmp_path / "tools"]))
    (tmp_path / "tools" / "losses.py").write_text("beta = 2")

    run(tmp_path, first(tmp_path), second(tmp_path), key=sources_key([tmp_path / "tools"]))

    assert calls(tmp_path / "other") == ["second", "second"]


def test_what_no_step_made_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "theirs").write_text("")

    run(tmp_path, first(tmp_path))

    assert (tmp_path / "made" / "theirs").exists()


def test_a_step_that_outlives_its_killed_run_is_not_started_a_second_time(tmp_path: Path) -> None:
    made = tmp_path / "made"
    code = (
        "import pathlib, sys; from sage_trl.steps.runner import Step, StepRunner; root = pathlib.Path(sys.argv[1])\n"
        "with StepRunner(root, root / 'tools', key='', replaces=True) as runner:\n"
        "    runner.run([Step('first', ('fake.py', str(root / 'made'), 'first', 'sleep'))])"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    killed = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not calls(made) and time.monotonic() < deadline:
            time.sleep(0.02)
        killed.kill()
        killed.wait()
        with pytest.raises(LockedError, match="a step of a killed run still is"):
            run(tmp_path, first(tmp_path))
    finally:
        os.killpg(killed.pid, signal.SIGKILL)

    assert calls(made) == ["first sleep"]
    assert StepLog(tmp_path / "steps.json").is_known("first")


# Ends once as many steps as it was told of have begun, so it never does when steps run one after the other.
MEETING_TOOL = """
import os, pathlib, sys, time
name, here, expected = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
(here / f"{name}.began").write_text(os.environ.get("OMP_NUM_THREADS", ""))
deadline = time.monotonic() + 30
while len(list(here.glob("*.began"))) < expected and time.monotonic() < deadline:
    time.sleep(0.01)
print(f"{name} saw {len(list(here.glob('*.began')))}", flush=True)
"""


def meeting(tmp_path: Path, name: str, expected: int, **fields: object) -> Step:
    (tmp_path / "tools" / "meet.py").write_text(MEETING_TOOL)
    return Step(name, ("meet.py", name, str(tmp_path), str(expected)), **fields)  # type: ignore[arg-type]


def test_steps_that_do_not_need_each_other_run_at_once_and_share_the_cores(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    left, right = meeting(tmp_path, "left", 2, needs=()), meeting(tmp_path, "right", 2, needs=())

    assert run(tmp_path, left, right, jobs=2) == 0

    shown = capfd.readouterr().out.splitlines()
    assert {"[left] left saw 2", "[right] right saw 2"} <= set(shown)
    threads = str(max(1, available_cores() // 2))
    assert [(tmp_path / f"{name}.began").read_text() for name in ("left", "right")] == [threads, threads]


def test_a_step_that_was_done_before_takes_no_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = first(tmp_path, needs=())
    assert run(tmp_path, done) == 0
    left, right = meeting(tmp_path, "left", 2, needs=()), meeting(tmp_path, "right", 2, needs=("first",))

    assert run(tmp_path, done, left, right, jobs=2) == 0

    assert {"[left] left saw 2", "[right] right saw 2"} <= set(capfd.readouterr().out.splitlines())


def test_what_is_said_is_printed_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with StepRunner(tmp_path, tmp_path / "tools", key="", replaces=True) as runner:
        runner.say("[train] module.py:100: UserWarning")
    assert capfd.readouterr().out == "[train] module.py:100: UserWarning\n"


def test_a_step_waits_for_those_it_needs_and_for_a_free_place(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = [
        meeting(tmp_path, "base", 1),
        meeting(tmp_path, "left", 3, needs=("base",)),
        meeting(tmp_path, "right", 3, needs=("base",)),
        meeting(tmp_path, "other", 4, needs=()),
        meeting(tmp_path, "last", 5),
    ]

    assert run(tmp_path, *steps, jobs=2) == 0

    # `other` has the second place from the start and keeps it until a fourth has begun.
    shown = [line for line in capfd.readouterr().out.splitlines() if " saw " in line]
    assert shown[-1] == "[last] last saw 5"
    assert shown[0].startswith("[base] base saw")
    assert len(shown) == 5


def test_the_failure_of_a_step_stops_the_others_which_go_on_another_time(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("7")
    sleeping = Step("sleeping", ("fake.py", str(tmp_path / "other"), "sleep"), needs=(), resume=("--resume",))

    assert run(tmp_path, sleeping, first(tmp_path, needs=()), jobs=2) == 7

    log = StepLog(tmp_path / "steps.json")
    assert log.is_known("sleeping")
    assert {name: entry["seconds"] for name, entry in read_json(tmp_path / "steps.json")["steps"].items()} == {
        "sleeping": None,
        "first": None,
    }


def test_errors_of_steps_are_shown_though_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tools" / "loud.py").write_text("import sys; print('the reason', file=sys.stderr); sys.exit(2)")
    step = Step("loud", ("loud.py",))
    with StepRunner(tmp_path, tmp_path / "tools", key="", replaces=True, quiet=True, jobs=2) as runner:
        assert runner.run([step]) == 2

    shown = capfd.readouterr()
    assert "the reason" in shown.err
    assert shown.out == ""


def test_step_log_remembers(tmp_path: Path) -> None:
    StepLog(tmp_path / "steps.json").note("train", "a", None)
    assert StepLog(tmp_path / "steps.json").state("train", "a") == "stopped"

    StepLog(tmp_path / "steps.json").note("train", "a", 1.5)
    log = StepLog(tmp_path / "steps.json")
    assert (log.state("train", "a"), log.state("train", "b"), log.state("other", "a")) == ("done", "new", "new")
    assert read_json(tmp_path / "steps.json")["steps"]["train"]["seconds"] == 1.5
