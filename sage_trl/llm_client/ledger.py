"""The sqlite file that is both cache and ledger: what was asked, what came back, what it cost.

One process writes, under a lock. A claim is committed before a request is sent and the raw answer before it is parsed,
so a kill at any moment loses nothing that was paid, and what was in flight is known and counted at its worst case.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from sage_trl.errors import DataError, LockedError

SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('claimed', 'answered', 'failed', 'unknown')),
    worst_nano_usd INTEGER NOT NULL,
    cost_nano_usd INTEGER NOT NULL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    error TEXT,
    shard TEXT,
    started REAL NOT NULL,
    finished REAL
);
CREATE INDEX IF NOT EXISTS attempts_by_key ON attempts (key);
CREATE INDEX IF NOT EXISTS attempts_claimed ON attempts (state) WHERE state = 'claimed';
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    attempt INTEGER NOT NULL REFERENCES attempts (id),
    body TEXT NOT NULL,
    received REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_by_key ON answers (key);
CREATE TABLE IF NOT EXISTS parsed (
    key TEXT NOT NULL,
    parser TEXT NOT NULL,
    answer INTEGER NOT NULL REFERENCES answers (id),
    value TEXT NOT NULL,
    PRIMARY KEY (key, parser)
);
CREATE TABLE IF NOT EXISTS quarantine (
    key TEXT NOT NULL,
    parser TEXT NOT NULL,
    reason TEXT NOT NULL,
    raw TEXT,
    at REAL NOT NULL,
    PRIMARY KEY (key, parser)
);
CREATE TABLE IF NOT EXISTS shards (
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('built', 'uploaded', 'created', 'fetched')),
    base_url TEXT NOT NULL,
    file TEXT,
    batch TEXT,
    started REAL NOT NULL
);
PRAGMA user_version = 1;
"""


class StoredAnswer(NamedTuple):
    """A raw answer: its row and its text."""

    id: int
    body: str


class Claim(NamedTuple):
    """A request that is about to be sent: its attempt's row and the nano-dollars set aside for it."""

    attempt: int
    key: str
    worst: int


class Ledger:
    """Opens, or makes, the file; the only writer until it is closed.

    The connection may be handed from one thread to another, but is used by one at a time.

    Raises:
        LockedError: another process writes to it.
        DataError: it cannot be written, or is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Made before sqlite does, which would let others read it; its side files take the mode of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._lock = _lock(path)
            try:
                path.chmod(0o600)
                self.connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
                self.connection.execute("PRAGMA journal_mode = WAL")
                self.connection.execute("PRAGMA synchronous = FULL")
                self.connection.executescript(SCHEMA)
                self._count_the_lost()
            except BaseException:
                self._lock.close()
                raise

    def close(self) -> None:
        self.connection.close()
        self._lock.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the body's changes reach the disk before this returns, or none do.

        Raises:
            DataError: the file cannot be written: full disk, no permission.
        """
        with _explained(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def _count_the_lost(self) -> None:
        """What was in flight when an earlier process was killed counts as paid, for it may have been.

        Requests of a batch are not lost: the batch can be found again.
        """
        with self.transaction():
            self.connection.execute(
                "UPDATE attempts SET state = 'unknown', cost_nano_usd = worst_nano_usd, error = 'killed in flight', "
                "finished = ? WHERE state = 'claimed' AND shard IS NULL",
                (time.time(),),
            )

    def claim(self, key: str, worst: int, shard: str | None = None) -> Claim:
        """Note that a request is about to be sent. Commit before sending."""
        row = self.connection.execute(
            "INSERT INTO attempts (key, state, worst_nano_usd, cost_nano_usd, shard, started) "
            "VALUES (?, 'claimed', ?, 0, ?, ?)",
            (key, worst, shard, time.time()),
        )
        return Claim(int(row.lastrowid or 0), key, worst)

    def answered(self, claim: Claim, body: str, cost: int, tokens: tuple[int, int] | None) -> StoredAnswer:
        """Note the raw answer to a claim. Commit before parsing."""
        prompt, completion = tokens or (None, None)
        self.connection.execute(
            "UPDATE attempts SET state = 'answered', cost_nano_usd = ?, prompt_tokens = ?, completion_tokens = ?, "
            "finished = ? WHERE id = ?",
            (cost, prompt, completion, time.time(), claim.attempt),
        )
        row = self.connection.execute(
            "INSERT INTO answers (key, attempt, body, received) VALUES (?, ?, ?, ?)",
            (claim.key, claim.attempt, body, time.time()),
        )
        return StoredAnswer(int(row.lastrowid or 0), body)

    def failed(self, claim: Claim, error: str, *, may_be_paid: bool) -> None:
        """Note that no answer came; an attempt that may have been paid counts at its worst case."""
        state, cost = ("unknown", claim.worst) if may_be_paid else ("failed", 0)
        self.connection.execute(
            "UPDATE attempts SET state = ?, cost_nano_usd = ?, error = ?, finished = ? WHERE id = ?",
            (state, cost, error, time.time(), claim.attempt),
        )

    def parsed(self, key: str, parser: str, answer: StoredAnswer, value: str) -> None:
        """Note what an answer was read as, JSON text; it leaves the quarantine."""
        self.connection.execute("INSERT OR REPLACE INTO parsed VALUES (?, ?, ?, ?)", (key, parser, answer.id, value))
        self.release([key], parser)

    def quarantine(self, key: str, parser: str, reason: str, raw: str | None) -> None:
        """Note that a request has no readable answer, with the last raw text."""
        row = (key, parser, reason, raw, time.time())
        self.connection.execute("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?)", row)

    def release(self, keys: Iterable[str], parser: str) -> None:
        """Take requests out of quarantine."""
        self.connection.executemany("DELETE FROM quarantine WHERE key = ? AND parser = ?", ((k, parser) for k in keys))

    def parsed_values(self, parser: str) -> dict[str, str]:
        """Key -> JSON text of everything that this parser has read."""
        return dict(self.connection.execute("SELECT key, value FROM parsed WHERE parser = ?", (parser,)))

    def quarantined(self, parser: str) -> dict[str, str]:
        """Key -> reason."""
        return dict(self.connection.execute("SELECT key, reason FROM quarantine WHERE parser = ?", (parser,)))

    def answer_counts(self) -> dict[str, int]:
        """Key -> number of raw answers."""
        return dict(self.connection.execute("SELECT key, COUNT(*) FROM answers GROUP BY key"))

    def answers(self, key: str) -> list[StoredAnswer]:
        """Raw answers to a request, oldest first."""
        rows = self.connection.execute("SELECT id, body FROM answers WHERE key = ? ORDER BY id", (key,))
        return [StoredAnswer(*row) for row in rows]

    def in_batches(self) -> set[str]:
        """Keys of requests whose batch may have been created and has not been fetched."""
        keys = self.connection.execute(
            "SELECT key FROM attempts JOIN shards ON shards.name = attempts.shard "
            "WHERE attempts.state = 'claimed' AND shards.state IN ('uploaded', 'created')"
        )
        return {key for (key,) in keys}

    def spent(self) -> int:
        """Nano-dollars, attempts in flight and uncertain ones at their worst case."""
        total = "SELECT COALESCE(SUM(CASE state WHEN 'claimed' THEN worst_nano_usd ELSE cost_nano_usd END), 0)"
        return int(self.connection.execute(f"{total} FROM attempts").fetchone()[0])


def _lock(path: Path) -> IO[str]:
    # A file of its own: sqlite's locks on the database would be dropped if another descriptor of it was closed.
    # Beside the file itself, not beside a link to it: two names of one file have one lock.
    file = path.resolve()
    lock = file.with_name(file.name + ".lock").open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise LockedError(
            f"{path}: another process writes to it\n  remedy: wait until it is done, or use another --cache"
        ) from None
    return lock


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        remedy = "free space, or check the file and its permissions; what was committed is intact"
        raise DataError.at(path, None, f"cannot be used as a cache: {error}", remedy) from None
    except OSError as error:
        remedy = "check the path and its permissions, or use another --cache"
        raise DataError.at(path, None, f"cannot be opened: {error.strerror}", remedy) from None
