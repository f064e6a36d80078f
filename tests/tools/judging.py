"""Runs tools/score_mle.py against a fake server, and audits what it leaves behind."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sage_trl.data.dataset import read_ad_pl
from sage_trl.judge.prompts import Judgement
from tests.conftest import REPOSITORY
from tests.llm_client.conftest import Served
from tests.llm_client.fake_server import content_hash, true_scores
from tests.warm import WarmProcess, run_warm, start_warm

KEY = "sk-planted-0123456789abcdef"
PRICES = ("--price-input", "2.5", "--price-output", "10")


def command(dataset: Path, server: Served | str, *options: str | Path) -> list[str]:
    url = server if isinstance(server, str) else server.url
    fixed = ["--dataset", dataset, "--judge", "openai", "--base-url", url, "--yes", "--timeout", "1", *PRICES]
    return [sys.executable, str(REPOSITORY / "tools" / "score_mle.py"), *map(str, (*fixed, *options))]


def environment() -> dict[str, str]:
    return {**os.environ, "OPENAI_API_KEY": KEY}


def start(dataset: Path, server: Served | str, *options: str | Path) -> WarmProcess:
    return start_warm(command(dataset, server, *options), env=environment())


def score(dataset: Path, server: Served | str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    asked = command(dataset, server, *options)
    return run_warm(asked, env=environment())


def wait_for_requests(server: Served, process: WarmProcess, more_than: int) -> None:
    """Until the server has received more than so many requests, or the process has ended."""
    while process.poll() is None and sum(server.stats()["received"].values()) <= more_than:
        time.sleep(0.02)


class Book:
    """What the cache file holds, read without the client's code."""

    def __init__(self, cache: Path) -> None:
        with closing(sqlite3.connect(cache)) as connection:
            self.check = connection.execute("PRAGMA integrity_check").fetchone()[0]
            attempts = connection.execute(
                "SELECT id, key, state, worst_nano_usd, cost_nano_usd FROM attempts"
            ).fetchall()
            self.parsed = connection.execute(
                "SELECT parsed.key, answers.attempt FROM parsed JOIN answers ON answers.id = parsed.answer"
            ).fetchall()
        self.attempts = [(number, key, state) for number, key, state, _, _ in attempts]
        self.spent = sum(worst if state == "claimed" else cost for _, _, state, worst, cost in attempts)

    def states(self, state: str) -> int:
        return sum(found == state for _, _, found in self.attempts)

    def asked_after_an_answer(self) -> list[str]:
        """Keys with an attempt after the one whose answer was read."""
        answered = dict(self.parsed)
        return [key for number, key, _ in self.attempts if number > answered.get(key, number)]


def expected_scores(dataset: Path) -> Iterator[dict[str, Any]]:
    """What the fake server must say of every answer, in the order of the dataset."""
    for inspection in read_ad_pl(dataset).inspections:
        for question in inspection.questions:
            for index, answer in enumerate(question.answers):
                body = Judgement(inspection, question, answer).request("gpt-4o").body()
                place = {"group_id": inspection.id, "question_id": question.id, "answer_index": index}
                yield {**place, **true_scores(content_hash(body))}


def written_scores(path: Path) -> list[dict[str, Any]]:
    """Rows of a score file, without the mean and the judge."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key not in ("mle", "judge")} for row in rows]
