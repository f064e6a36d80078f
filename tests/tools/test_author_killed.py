"""tools/build_dataset.py --author openai killed at any moment: nothing is paid twice, and the dataset is the same."""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_trl.data.validation import check_dataset
from tests.conftest import REPOSITORY
from tests.llm_client.conftest import Served, serve
from tests.tools.judging import PRICES, Book, environment, wait_for_requests
from tests.warm import run_warm, start_warm

__all__ = ["serve"]
Serve = Callable[..., Served]
# What is left to ask when a run is killed may be in flight; the server has charged for it, and nobody has the reply.
CONCURRENCY = 4


def command(output: Path, server: Served, groups: int) -> list[str]:
    """Captions, three sets of templates and answers of so many synthetic groups."""
    fixed = ["--source", "synthetic", "--groups", f"train={groups}", "validation=0", "test=0", "unseen=0", "--quiet"]
    asked = ["--author", "openai", "--base-url", server.url, "--yes", "--timeout", "5", "--retry-quarantined"]
    limits = ["--concurrency", str(CONCURRENCY), *PRICES]
    tool = str(REPOSITORY / "tools" / "build_dataset.py")
    return [sys.executable, tool, *fixed, "--output", str(output), *asked, *limits]


def build(output: Path, server: Served, groups: int) -> None:
    """Run until nothing is missing: chance may put a reply into quarantine."""
    for _ in range(10):
        asked = [*command(output, server, groups), "--force"]
        result = run_warm(asked, env=environment())
        assert result.returncode in (0, 3), result.stderr
        if result.returncode == 0:
            return
    raise AssertionError(result.stderr)


def kill_often(folder: Path, serve: Serve, groups: int, kills: int, faults: float) -> None:
    server = serve("--latency", "0.02", "--faults", str(faults), "--seed", "5")
    output, cache = folder / "killed", folder / "killed.authoring.sqlite"
    draw, lost = random.Random(1), 0
    all_requests = 2 * groups + 3
    for number in range(kills):
        # Spread over all three stages.
        target = all_requests * (number + draw.random()) / (kills + 1)
        with start_warm(command(output, server, groups), env=environment()) as process:
            wait_for_requests(server, process, int(target))
            process.send_signal(signal.SIGKILL)
            code, said = process.wait(60), process.output("stderr")
        assert code == -signal.SIGKILL, f"ended by itself before kill {number + 1}: {said}"
        time.sleep(0.1)  # the server may be about to answer those who are gone
        book, stats = Book(cache), server.stats()
        assert book.check == "ok" and book.spent >= stats["nano_usd"]
        assert book.states("claimed") <= CONCURRENCY
        lost += book.states("claimed")
        assert not output.exists()
        # The images of the last run alone, however many were killed.
        assert {path.name for path in folder.iterdir()} <= {".killed.part", cache.name, f"{cache.name}.lock"} | {
            f"{cache.name}{ending}" for ending in ("-wal", "-shm")
        }
    build(output, server, groups)
    book, stats = Book(cache), server.stats()
    assert not book.asked_after_an_answer()
    assert book.states("claimed") == 0 and book.spent >= stats["nano_usd"]
    # Only what was in flight, or came back faulty, was asked again.
    charged, faulty = sum(stats["charged"].values()), sum(stats["faults"].values())
    print(
        f"{all_requests} requests to make, {kills} kills, {lost} in flight when killed, {faulty} faults, {charged} paid"
    )
    assert all_requests <= charged <= all_requests + lost + faulty
    assert check_dataset(output) == []
    assert not (folder / ".killed.part").exists()

    build(folder / "whole", serve(), groups)
    written = {path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    whole = folder / "whole"
    assert written == {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*") if path.is_file()}


def test_killed_and_resumed_it_pays_for_nothing_twice(tmp_path: Path, serve: Serve) -> None:
    kill_often(tmp_path, serve, groups=24, kills=2, faults=0.0)


@pytest.mark.soak
def test_killed_twenty_times_with_a_faulty_server(tmp_path: Path, serve: Serve) -> None:
    kill_often(tmp_path, serve, groups=150, kills=20, faults=0.2)
