"""Requests through the Batch API: half the price, answers within a day, and every step can be taken up again.

A shard goes through four states, each committed: built (its requests are claimed), uploaded, created, fetched. Where a
process dies between asking the server and noting what it said, the shard's name, which is the file's name and in the
batch's metadata, finds the file or the batch again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import openai
from rich.console import Console

from sage_trl.errors import CredentialsError, SageError
from sage_trl.llm_client.client import (
    KEY_VARIABLE,
    Kind,
    ServiceError,
    in_one_line,
    read_api_key,
    read_usage,
    refusal_kind,
)
from sage_trl.llm_client.cost import CostCapError, dollars
from sage_trl.llm_client.ledger import Claim, Ledger, StoredAnswer
from sage_trl.llm_client.plan import Item, Parse, Plan, RunSettings, read_value
from sage_trl.llm_client.replies import UnreadableError
from sage_trl.llm_client.request import without_credentials
from sage_trl.llm_client.runner import RunResult
from sage_trl.storage import content_key, to_line

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
METADATA = "sage_shard"
SHARD_REQUESTS = 10_000  # the API takes 50,000, and
SHARD_BYTES = 90_000_000  # 200 MB
FIRST_POLL, LONGEST_POLL = 1.0, 60.0
NO_ANSWER = (None, "no answer in the batch")
ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass
class Shard:
    """One batch on its way, as the ledger has it."""

    name: str
    state: str
    file: str | None
    batch: str | None


def run_batches(plan: Plan, parse: Parse, settings: RunSettings, ledger: Ledger) -> RunResult:
    """`run_plan` through the Batch API: earlier shards are finished first, then the rest is sent in new ones.

    A signal may end it at any moment; the same call goes on where it stopped.
    """
    result = RunResult(plan.values, dict(plan.quarantined), {}, plan.cached, 0, 0)
    run = _BatchRun(plan, parse, settings, ledger, result)
    try:
        run.go()
    except openai.OpenAIError as error:
        result.stopped = _explained(error, run.redact)
    except SageError as error:
        result.stopped = error
    result.spent = ledger.spent()
    return result


class _BatchRun:
    def __init__(self, plan: Plan, parse: Parse, settings: RunSettings, ledger: Ledger, result: RunResult) -> None:
        self._parse, self._settings, self._ledger, self._result = parse, settings, ledger, result
        self._items = {item.key: item for item in plan.pending}
        self._refused: set[Kind] = set()  # what this server does not know
        self._api_key = read_api_key(settings.base_url)
        self._client = openai.OpenAI(api_key=self._api_key, base_url=settings.base_url, max_retries=3)
        self._server = without_credentials(settings.base_url)
        self._console = Console(stderr=True, quiet=settings.quiet)

    def redact(self, text: str) -> str:
        return text if self._api_key == "none" else text.replace(self._api_key, "[API key]")

    def go(self) -> None:
        """Rounds, until every request has its value or is in quarantine."""
        with self._client:
            while True:
                shards = self._open_shards()
                for shard in shards:  # all are under way before one is waited for: each may take a day
                    self._send(shard)
                for shard in shards:
                    if shard.state == "created":
                        self._fetch(shard, self._wait(shard))
                if not self._items:
                    return
                self._build_all()

    def _build_all(self) -> None:
        """As many shards as the cap allows; what does not fit waits for what these turn out to cost.

        Raises:
            CostCapError: not one request fits.
        """
        for item in self._items.values():
            item.ask_otherwise(self._refused, self._server)
        for number, items in enumerate(_cut(list(self._items.values()))):
            try:
                self._build(items)
            except CostCapError:
                if number == 0:
                    raise
                return

    def _open_shards(self) -> list[Shard]:
        rows = self._ledger.connection.execute(
            "SELECT name, state, file, batch FROM shards WHERE state != 'fetched' AND base_url = ? ORDER BY started",
            (self._server,),
        )
        return [Shard(*row) for row in rows]

    def _build(self, items: Sequence[Item]) -> None:
        """Claim as many of the items as the cap allows."""
        fitting: list[tuple[Item, int]] = []
        spent = self._ledger.spent()
        for item in items:
            worst = self._settings.prices.worst_case(item.request)
            if self._settings.max_cost is not None and spent + worst > self._settings.max_cost:
                break
            spent += worst
            fitting.append((item, worst))
        if not fitting:
            remedy = "give a higher --max-cost to go on where this stopped"
            said = f"the next request could exceed the cap; spent so far: {dollars(spent)}"
            raise CostCapError(f"{said}\n  remedy: {remedy}")
        name = content_key([self._server, time.time_ns(), [item.key for item, _ in fitting]])[:24]
        with self._ledger.transaction():
            self._ledger.connection.execute(
                "INSERT INTO shards (name, state, base_url, started) VALUES (?, 'built', ?, ?)",
                (name, self._server, time.time()),
            )
            for item, worst in fitting:
                self._ledger.claim(item.key, worst, shard=name)
        self._result.asked += len(fitting)

    def _send(self, shard: Shard) -> None:
        """Upload and create, whatever of the two is still to do."""
        if shard.state == "built":
            claims = self._claims(shard)
            if not all(key in self._items for key in claims):
                self._give_up(shard, claims)
                return
            shard.file = self._find_file(shard) or self._upload(shard, claims)
            self._note(shard, "uploaded")
        if shard.state == "uploaded":
            shard.batch = self._find_batch(shard) or self._create(shard)
            self._note(shard, "created")

    def _claims(self, shard: Shard) -> dict[str, Claim]:
        rows = self._ledger.connection.execute(
            "SELECT id, key, worst_nano_usd FROM attempts WHERE shard = ? AND state = 'claimed' ORDER BY id",
            (shard.name,),
        )
        return {claim.key: claim for claim in (Claim(*row) for row in rows)}

    def _give_up(self, shard: Shard, claims: dict[str, Claim]) -> None:
        """A shard of which nothing was paid: never uploaded, or refused as a whole."""
        with self._ledger.transaction():
            for claim in claims.values():
                self._ledger.failed(claim, "never sent", may_be_paid=False)
            self._ledger.connection.execute("UPDATE shards SET state = 'fetched' WHERE name = ?", (shard.name,))
        shard.state = "fetched"

    def _note(self, shard: Shard, state: str) -> None:
        shard.state = state
        with self._ledger.transaction():
            self._ledger.connection.execute(
                "UPDATE shards SET state = ?, file = ?, batch = ? WHERE name = ?",
                (state, shard.file, shard.batch, shard.name),
            )

    def _find_file(self, shard: Shard) -> str | None:
        found = (file.id for file in self._client.files.list(purpose="batch") if file.filename == _file_name(shard))
        return next(found, None)

    def _upload(self, shard: Shard, claims: dict[str, Claim]) -> str:
        lines = (
            {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": self._items[key].request.body()}
            for key in claims
        )
        content = "".join(map(to_line, lines)).encode()
        return self._client.files.create(file=(_file_name(shard), content), purpose="batch").id

    def _find_batch(self, shard: Shard) -> str | None:
        found = (
            batch.id for batch in self._client.batches.list() if (batch.metadata or {}).get(METADATA) == shard.name
        )
        return next(found, None)

    def _create(self, shard: Shard) -> str:
        assert shard.file is not None
        # Never retried by the SDK: a batch that was made although its reply was lost would be made, and paid, twice.
        client = self._client.with_options(max_retries=0)
        batch = client.batches.create(
            input_file_id=shard.file, endpoint=ENDPOINT, completion_window="24h", metadata={METADATA: shard.name}
        )
        return batch.id

    def _wait(self, shard: Shard) -> Any:
        assert shard.batch is not None
        pause = FIRST_POLL
        while True:
            batch = self._client.batches.retrieve(shard.batch)
            if batch.status in ENDED:
                return batch
            counts = batch.request_counts
            done = f"{counts.completed:,}/{counts.total:,} done" if counts else "waiting"
            self._console.print(f"batch {batch.id}: {batch.status}, {done}", soft_wrap=True, markup=False)
            time.sleep(pause)
            pause = min(LONGEST_POLL, pause * 2)

    def _fetch(self, shard: Shard, batch: Any) -> None:
        """Commit all raw answers, then read them; what has none was not paid, and is asked again."""
        claims = self._claims(shard)
        lines = [*self._answers(batch.output_file_id), *self._answers(batch.error_file_id)]
        bodies = {key: text for key, status, text in lines if status == 200}
        errors = {key: (status, text) for key, status, text in lines if status != 200}
        if not bodies and batch.status == "failed":
            self._give_up(shard, claims)
            raise ServiceError(
                f"batch {batch.id} failed: {in_one_line(self.redact(str(batch.errors)))[:500]}\n  remedy: mend that"
            )
        stored: dict[str, StoredAnswer] = {}
        with self._ledger.transaction():
            for key, claim in claims.items():
                if key in bodies:
                    usage = read_usage(bodies[key])
                    cost = claim.worst if usage is None else self._settings.prices.cost(*usage)
                    stored[key] = self._ledger.answered(claim, bodies[key], cost, usage)
                else:
                    self._ledger.failed(claim, errors.get(key, NO_ANSWER)[1], may_be_paid=False)
            self._ledger.connection.execute("UPDATE shards SET state = 'fetched' WHERE name = ?", (shard.name,))
        with self._ledger.transaction():
            for key, answer in stored.items():
                if key in self._items:
                    self._read(self._items[key], answer)
            for key in claims.keys() - stored.keys():
                if key in self._items:
                    self._unanswered(self._items[key], *errors.get(key, NO_ANSWER))

    def _answers(self, file: str | None) -> Iterator[tuple[str, int | None, str]]:
        """(key, HTTP status or None, raw text) of each line of an output or error file."""
        if file is None:
            return
        # Only line feeds end a line of JSONL: str.splitlines would cut at a U+2028 inside an answer too.
        for line in self.redact(self._client.files.content(file).text).split("\n"):
            if not line.strip():
                continue
            try:
                answer: Any = json.loads(line)
                key, response = answer["custom_id"], answer.get("response") or {}
                body, status = response.get("body") or answer.get("error"), response.get("status_code")
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                said = f"{file} of the server holds a line that is no answer: {in_one_line(line[:80])}"
                raise ServiceError(f"{said}\n  remedy: give the same command again; it fetches the file anew") from None
            text = body if isinstance(body, str) else json.dumps(body)
            yield key, status, text.encode(errors="replace").decode()

    def _read(self, item: Item, answer: StoredAnswer) -> None:
        parser = self._settings.parser
        try:
            value = read_value(item.request, answer.body, self._parse)
        except UnreadableError as error:
            item.unreadable += 1
            if item.unreadable >= self._settings.tries:
                self._quarantine(item, f"{item.unreadable} unreadable answers, the last: {error}", answer.body)
            return
        self._ledger.parsed(item.key, parser, answer, json.dumps(value))
        for row in item.rows:
            self._result.values[row] = value
        del self._items[item.key]

    def _unanswered(self, item: Item, status: int | None, error: str) -> None:
        """What the server refused goes into quarantine at once; what expired or failed there is asked again.

        What can be asked otherwise, under the same key, is asked so by the next shard: nothing was paid for it.
        """
        refusal = refusal_kind(error)
        if status in (400, 422) and refusal is not Kind.NO_SCHEMA and item.can_be_asked_otherwise(refusal):
            self._refused.add(refusal)
            return
        item.unreadable += 1
        if status in (400, 422) or item.unreadable >= self._settings.tries:
            self._quarantine(item, f"refused: {error}", error)

    def _quarantine(self, item: Item, reason: str, raw: str | None) -> None:
        self._ledger.quarantine(item.key, self._settings.parser, reason, raw)
        self._result.quarantined.update(dict.fromkeys(item.rows, reason))
        del self._items[item.key]


def _file_name(shard: Shard) -> str:
    return f"sage-{shard.name}.jsonl"


def _cut(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Shards that the API takes."""
    shard: list[Item] = []
    size = 0
    for item in items:
        length = item.request.body_size()
        if shard and (len(shard) == SHARD_REQUESTS or size + length > SHARD_BYTES):
            yield shard
            shard, size = [], 0
        shard.append(item)
        size += length
    if shard:
        yield shard


def _explained(error: openai.OpenAIError, redact: Callable[[str], str]) -> SageError:
    said = in_one_line(redact(str(error)))[:500]
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError) or "insufficient_quota" in said:
        return CredentialsError(f"{said}\n  remedy: check {KEY_VARIABLE}, the account's rights and its credit")
    return ServiceError(f"{said}\n  remedy: check --base-url and that the server has a Batch API, then try again")
